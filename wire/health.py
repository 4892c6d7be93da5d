"""Liveness, readiness and metrics of one process over HTTP: the same three paths everywhere."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from wire.pulse import PULSE, Pulse


class Health:
    """Answers /healthz (the loops turn), /readyz (`missing` names nothing) and /metrics.

    Liveness never depends on Redis, the core, the database or a provider: a restart mends none of them.
    """

    def __init__(self, missing: Callable[[], Awaitable[str]], pulse: Pulse = PULSE) -> None:
        """`missing` says what is not there yet; an empty text means ready."""
        self._missing, self._pulse = missing, pulse
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError where the port cannot be had."""
        app = web.Application()
        app.add_routes(
            [web.get("/healthz", self._alive), web.get("/readyz", self._ready), web.get("/metrics", self._metrics)]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _alive(self, _: web.Request) -> web.Response:
        await asyncio.sleep(0)
        stalled = self._pulse.stalled()
        return web.json_response({"status": "stalled" if stalled else "ok", "loops": stalled}, status=_code(stalled))

    async def _ready(self, _: web.Request) -> web.Response:
        missing = await self._missing()
        return web.json_response({"status": missing or "ok"}, status=_code(missing))

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _code(fault: object) -> int:
    return 503 if fault else 200
