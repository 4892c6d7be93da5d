"""Two listeners in one loop: the public API, and the internal one that only adapters and scrapers reach."""

import asyncio

from fastapi import FastAPI
from starlette.types import ASGIApp

from core.api.answers import install_problems
from core.api.health import install_health
from core.api.internal import install_internal
from core.api.metrics import Measured, install_metrics
from core.api.public import public_app
from core.bootstrap import PASSING_FAULTS, Core
from core.bus.gate import GateBounds
from core.bus.roles import sign_permits
from core.bus.stream_repair import StreamRepair
from core.bus.throttle import ResultsThrottle
from core.services.settling.permits import Throttle
from core.settings import Settings
from core.store.settling.dispatch import PostgresDispatch, PostgresUpkeep
from wire.client import StreamServers
from wire.listener import listener, serve_until


def internal_app(core: Core, throttle: Throttle) -> ASGIApp:
    """Return the application of the internal listener."""
    app = FastAPI(title="psp-fleet internal", version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
    install_problems(app, PASSING_FAULTS)
    install_health(app, core)
    install_metrics(app)
    return Measured(install_internal(app, core, throttle), "internal")


async def serve_api(core: Core, stopping: asyncio.Event) -> None:
    """Serve until `stopping`, then finish what is under way."""
    settings = core.settings
    servers = StreamServers(settings.redis_url.get_secret_value(), "core-api")
    throttle = ResultsThrottle(servers, settings.rail_parts, _results_bounds(settings))
    await throttle.look()
    tasks = [
        asyncio.create_task(throttle.watch()),
        asyncio.create_task(sign_permits(PostgresUpkeep(core.worker_database))),
    ]
    try:
        streams = StreamRepair(servers, settings.rail_parts, PostgresDispatch(core.worker_database))
        await _serve(core, public_app(core, streams), internal_app(core, throttle), stopping)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await servers.aclose()


def _results_bounds(settings: Settings) -> GateBounds:
    high = settings.results_high
    return GateBounds(high, high * 3 // 4, settings.stream_length_max, settings.redis_memory_max_bytes)


async def _serve(core: Core, public: ASGIApp, internal: ASGIApp, stopping: asyncio.Event) -> None:
    settings = core.settings
    servers = [
        listener(Measured(public, "public"), settings.host, settings.public_port, settings.drain_s),
        listener(internal, settings.host, settings.internal_port, settings.drain_s),
    ]
    # Streams of events would not end by themselves.
    await serve_until(stopping, servers, before_end=core.events.hub.close)
