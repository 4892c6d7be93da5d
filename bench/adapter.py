"""One adapter process against a provider that takes 200 ms: how many calls a second 400 connections hold."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from multiprocessing import get_context
from typing import Any, Final

import httpx
import uvloop
from aiohttp import web

from adapters.runtime.http import provider_client
from bench.measurement import Measurement, at_least, shown
from fleet.stack.processes import free_port

_DELAY_S: Final = 0.2
_CONNECTIONS: Final = 400
_SECONDS: Final = 8.0
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


async def _calls_per_s(client: httpx.AsyncClient) -> tuple[float, float]:
    """Calls a second with every connection busy, and the CPU seconds that 1,000 of them cost."""
    body: dict[str, Any] = {"client_ref": uuid.uuid4().hex, "amount": "12.34", "lookup_id": "L" * 20}

    async def keep_calling(until_s: float) -> int:
        done = 0
        while time.monotonic() < until_s:
            (await client.post("/v1/transfers", json=body)).raise_for_status()
            done += 1
        return done

    await asyncio.gather(*(client.post("/v1/transfers", json=body) for _ in range(_CONNECTIONS)))
    begun_s, cpu_s = time.monotonic(), time.process_time()
    until_s = begun_s + _SECONDS
    done = sum(await asyncio.gather(*(keep_calling(until_s) for _ in range(_CONNECTIONS))))
    return done / (time.monotonic() - begun_s), (time.process_time() - cpu_s) * 1_000 / max(1, done)


async def run() -> list[Measurement]:
    """Measure the client that every rail uses, and httpx's own transport beside it."""
    async with _provider() as url:
        ours = provider_client(url, call_total_s=10, connect_s=5, max_connections=_CONNECTIONS)
        async with ours:
            per_s, cpu_s = await _calls_per_s(ours)
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30, trust_env=False) as plain:
            plain_per_s, _ = await _calls_per_s(plain)
    return [
        at_least(f"calls/s, {_CONNECTIONS} connections, provider of 200 ms", per_s, "calls/s", _GOAL_PER_S),
        shown("CPU of 1,000 calls", cpu_s, "s"),
        shown("the limit of the connections themselves", _CONNECTIONS / _DELAY_S, "calls/s"),
        shown("httpx's own transport, the same", plain_per_s, "calls/s"),
    ]
