"""Two listeners in one loop: the public API, and the internal one that only adapters and scrapers reach."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from core.api.answers import install_problems
from core.api.health import install_health
from core.api.internal import install_internal
from core.api.metrics import Measured, install_metrics
from core.api.public import public_app
from core.bootstrap import PASSING_FAULTS, Core
from core.bus.gate import GateBounds
from core.bus.throttle import ResultsThrottle
from core.services.permits import Throttle
from core.settings import Settings
from wire.client import connect_redis


def internal_app(core: Core, throttle: Throttle) -> ASGIApp:
    """Return the application of the internal listener."""
    app = FastAPI(title="psp-fleet internal", version="1", docs_url=None, redoc_url=None)
    install_problems(app, PASSING_FAULTS)
    install_health(app, core)
    install_metrics(app)
    return Measured(install_internal(app, core, throttle), "internal")


async def serve_api(core: Core, stopping: asyncio.Event) -> None:
    """Serve until `stopping`, then finish what is under way."""
    settings = core.settings
    client = connect_redis(settings.redis_url.get_secret_value(), "core-api")
    throttle = ResultsThrottle(client, settings.rail_names, _results_bounds(settings))
    await throttle.look()
    watching = asyncio.create_task(throttle.watch())
    try:
        await _serve(core, internal_app(core, throttle), stopping)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await client.aclose()


def _results_bounds(settings: Settings) -> GateBounds:
    high = settings.results_high
    return GateBounds(high, high * 3 // 4, settings.stream_length_max, settings.redis_memory_max_bytes)


async def _serve(core: Core, internal: ASGIApp, stopping: asyncio.Event) -> None:
    settings = core.settings
    servers = [
        _Server(_config(Measured(public_app(core), "public"), settings.host, settings.public_port, settings.drain_s)),
        _Server(_config(internal, settings.host, settings.internal_port, settings.drain_s)),
    ]
    tasks = [asyncio.create_task(server.serve()) for server in servers]
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
    core.events.hub.close()
    for server in servers:
        server.should_exit = True
    waiting.cancel()
    await asyncio.gather(*tasks)


class _Server(uvicorn.Server):
    """The process's supervisor owns the signals; a server must not take them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: ASGIApp, host: str, port: int, drain_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="none",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(drain_s),
    )
