"""An HTTP listener of one of our processes: quiet, and ended by the process's supervisor rather than by signals."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp


class Listener(uvicorn.Server):
    """The process's supervisor owns the signals; a server must not take them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listener(app: ASGIApp, host: str, port: int, drain_s: float) -> Listener:
    """Return a listener that has not started; requests under way get `drain_s` at its end."""
    return Listener(
        uvicorn.Config(
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
    )


async def serve_until(
    stopping: asyncio.Event, servers: Sequence[Listener], before_end: Callable[[], None] = lambda: None
) -> None:
    """Serve until `stopping`, or until one of them ends; then finish what is under way."""
    tasks = [asyncio.create_task(server.serve()) for server in servers]
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
    before_end()
    for server in servers:
        server.should_exit = True
    waiting.cancel()
    await asyncio.gather(*tasks)
