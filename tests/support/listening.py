"""A listener on loopback that leaves nothing open: a connection left to the garbage collector fails a later test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, port: int = 0, trust: SSLContext | None = None) -> AsyncIterator[int]:
    """Serve each connection until the block ends, then cut off what is still served; yield the port.

    A connection ends with its `serve`. A peer that goes away is no error; what else `serve` raises, the block raises.
    """
    served: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        served[task] = writer
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        del served[task]

    server = await asyncio.start_server(one, "127.0.0.1", port, ssl=trust)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        raised = await _cut_off(served)
    for error in raised:
        raise error


async def _cut_off(served: dict[asyncio.Task[None] | None, asyncio.StreamWriter]) -> list[Exception]:
    """End what is served, for closing a server closes none of its connections; return what was raised in them."""
    left = dict(served)
    tasks = [task for task in left if task is not None]
    for task, writer in left.items():
        if writer.is_closing():
            writer.transport.abort()  # it ends by itself; cancelled, its stream would never say that it is closed
        elif task is not None:
            task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    for writer in left.values():
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()
    return [end for end in ends if isinstance(end, Exception)]
