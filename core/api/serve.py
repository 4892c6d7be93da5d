"""Two listeners in one loop: the public API, and the internal one that only adapters and scrapers reach."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.types import ASGIApp

from core.api.answers import install_problems
from core.api.health import install_health
from core.api.internal import install_internal
from core.api.metrics import install_metrics
from core.api.public import public_app
from core.bootstrap import PASSING_FAULTS, Core
from core.bus.gate import BacklogGate, GateBounds
from core.bus.throttle import ResultsThrottle
from core.services.permits import Throttle
from core.settings import Settings
from schemas.streams import ADAPTERS_GROUP, groups_of
from wire.client import connect_redis


def internal_app(core: Core, throttle: Throttle, gates: Sequence[BacklogGate]) -> ASGIApp:
    """Return the application of the internal listener."""
    app = FastAPI(title="psp-fleet internal", version="1", docs_url=None, redoc_url=None)
    install_problems(app, PASSING_FAULTS)
    install_health(app, core)
    install_metrics(app, core, gates)
    return install_internal(app, core, throttle)


async def serve_api(core: Core, stopping: asyncio.Event) -> None:
    """Serve until `stopping`, then finish what is under way."""
    settings = core.settings
    client = connect_redis(settings.redis_url.get_secret_value(), "core-api")
    throttle = ResultsThrottle(client, settings.rail_names, _results_bounds(settings))
    await throttle.look()
    watching = asyncio.create_task(throttle.watch())
    try:
        await _serve(core, internal_app(core, throttle, _watched(settings, client)), stopping)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await client.aclose()


def _watched(settings: Settings, client: Redis) -> list[BacklogGate]:
    jobs = GateBounds(
        settings.backlog_high, settings.backlog_low, settings.stream_length_max, settings.redis_memory_max_bytes
    )
    return [
        BacklogGate(client, stream, group, jobs if group == ADAPTERS_GROUP else _results_bounds(settings))
        for rail in settings.rail_names
        for stream, group in groups_of(rail)
    ]


def _results_bounds(settings: Settings) -> GateBounds:
    high = settings.results_high
    return GateBounds(high, high * 3 // 4, settings.stream_length_max, settings.redis_memory_max_bytes)


async def _serve(core: Core, internal: ASGIApp, stopping: asyncio.Event) -> None:
    settings = core.settings
    servers = [
        _Server(_config(public_app(core), settings.host, settings.public_port, settings.drain_s)),
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
