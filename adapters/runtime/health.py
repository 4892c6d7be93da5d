"""Liveness, readiness and metrics of one adapter over HTTP."""

import asyncio
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


class Health:
    """Answers /health (the loop turns), /ready (registered and well set up) and /metrics."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen. Liveness never depends on Redis, the core or the provider."""
        app = web.Application()
        app.add_routes(
            [web.get("/health", self._health), web.get("/ready", self._readiness), web.get("/metrics", self._metrics)]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        await asyncio.sleep(0)
        return web.json_response({"alive": True})

    async def _readiness(self, _: web.Request) -> web.Response:
        ready = self._ready()
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
