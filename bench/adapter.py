"""One adapter process against a provider that takes 200 ms: how many calls a second 400 connections hold."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from multiprocessing import get_context
from typing import Any, Final

import aiohttp
import httpx
import orjson
import uvloop
from aiohttp import web

from adapters.runtime.http import provider_client
from bench.measurement import Measurement, at_least, shown
from fleet.stack.processes import free_port

_DELAY_S: Final = 0.2
_CONNECTIONS: Final = 400
_WARM_S: Final = 2.0
_SECONDS: Final = 6.0
_GOAL_PER_S: Final = 1_000


def _serve(port: int) -> None:
    async def pay(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(_DELAY_S)
        return web.json_response({"status": "SUCCEEDED", "client_ref": "R"})

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/transfers", pay)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        await asyncio.Event().wait()

    uvloop.run(serve())


@contextlib.asynccontextmanager
async def _provider() -> AsyncIterator[str]:
    """The provider is a process of its own: its work is not the adapter's."""
    port = free_port()
    process = get_context("spawn").Process(target=_serve, args=(port,), daemon=True)
    process.start()
    try:
        async with httpx.AsyncClient() as probe:
            for _ in range(200):
                with contextlib.suppress(httpx.TransportError):
                    await probe.post(f"http://127.0.0.1:{port}/v1/transfers")
                    break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.join(5)


_BODY: Final[dict[str, Any]] = {"client_ref": uuid.uuid4().hex, "amount": "12.34", "lookup_id": "L" * 20}


async def _calls_per_s(call: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Calls a second with every connection busy, and the CPU seconds that 1,000 of them cost."""
    done = 0

    async def keep_calling() -> None:
        nonlocal done
        while True:
            await call()
            done += 1

    callers = [asyncio.create_task(keep_calling()) for _ in range(_CONNECTIONS)]
    await asyncio.sleep(_WARM_S)
    before, begun_s, cpu_s = done, time.monotonic(), time.process_time()
    await asyncio.sleep(_SECONDS)
    made, took_s, spent_s = done - before, time.monotonic() - begun_s, time.process_time() - cpu_s
    for caller in callers:
        caller.cancel()
    ended = await asyncio.gather(*callers, return_exceptions=True)
    for failed in (each for each in ended if isinstance(each, Exception)):
        raise failed
    return made / took_s, spent_s * 1_000 / max(1, made)


async def run() -> list[Measurement]:
    """Measure the client that every rail uses. It is bound by CPU: the limit of one process is the cost of a call."""
    async with _provider() as url:
        ours = provider_client(url, call_total_s=10, connect_s=5, max_connections=_CONNECTIONS)
        async with ours:

            async def by_client() -> None:
                body, headers = orjson.dumps(_BODY), {"Content-Type": "application/json"}
                (await ours.request("POST", "/v1/transfers", content=body, headers=headers)).raise_for_status()

            per_s, cpu_s = await _calls_per_s(by_client)
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as session:

            async def bare() -> None:
                async with session.post(f"{url}/v1/transfers", json=_BODY) as answer:
                    await answer.read()

            bare_per_s, bare_cpu_s = await _calls_per_s(bare)
    return [
        at_least(f"calls/s, {_CONNECTIONS} connections, provider of 200 ms", per_s, "calls/s", _GOAL_PER_S),
        shown("CPU of 1,000 calls", cpu_s, "s"),
        shown("the limit that this cost sets to one core", 1_000 / cpu_s, "calls/s"),
        shown("the same by aiohttp alone, whose connections these are", bare_per_s, "calls/s"),
        shown("CPU of 1,000 calls by aiohttp alone", bare_cpu_s, "s"),
        shown("the limit of the connections themselves", _CONNECTIONS / _DELAY_S, "calls/s"),
    ]
