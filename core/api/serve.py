"""Two listeners in one loop: the public API, and the internal one that only adapters and scrapers reach."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec

import uvicorn
from fastapi import FastAPI

from core.api.answers import install_problems
from core.api.health import install_health
from core.api.public import public_app
from core.bootstrap import PASSING_FAULTS, Core


def internal_app(core: Core) -> FastAPI:
    """Return the application of the internal listener."""
    app = FastAPI(title="psp-fleet internal", version="1", docs_url=None, redoc_url=None, openapi_url=None)
    install_problems(app, PASSING_FAULTS)
    install_health(app, core)
    if find_spec("core.api.internal") is not None:
        app.include_router(import_module("core.api.internal").internal_router(core))
    return app


async def serve_api(core: Core, stopping: asyncio.Event) -> None:
    """Serve until `stopping`, then finish what is under way."""
    settings = core.settings
    servers = [
        _Server(_config(public_app(core), settings.host, settings.public_port, settings.drain_s)),
        _Server(_config(internal_app(core), settings.host, settings.internal_port, settings.drain_s)),
    ]
    tasks = [asyncio.create_task(server.serve()) for server in servers]
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.should_exit = True
    waiting.cancel()
    await asyncio.gather(*tasks)


class _Server(uvicorn.Server):
    """The process's supervisor owns the signals; a server must not take them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: FastAPI, host: str, port: int, drain_s: float) -> uvicorn.Config:
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
        timeout_graceful_shutdown=int(drain_s),
    )
