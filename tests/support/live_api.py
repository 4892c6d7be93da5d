"""The public API behind a real listener on loopback: what streams cannot be heard through an in-process transport."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from core.api.public import public_app
from core.bootstrap import Core
from wire.listener import listener


@asynccontextmanager
async def serving(core: Core, app: ASGIApp | None = None) -> AsyncIterator[str]:
    """Serve the public API, or another of the core's, until the end; yields the base URL."""
    server = listener(app or public_app(core), "127.0.0.1", 0, 5)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - the server offers nothing to wait for
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        core.events.hub.close()
        server.should_exit = True
        await task
