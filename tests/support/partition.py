"""A network between processes that can be parted: what is sent meanwhile is swallowed, as by a lost route."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.listening import listening


@dataclass
class Link:
    """`upstream` may be told later than the link's own `url`."""

    upstream: str = ""
    url: str = ""
    _whole: asyncio.Event = field(default_factory=asyncio.Event)

    def part(self) -> None:
        """Let nothing through any more, and answer nothing."""
        self._whole.clear()

    def join(self) -> None:
        """Let everything through."""
        self._whole.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        await self._whole.wait()
        address = urlsplit(self.upstream)
        there_reader, there_writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, there_writer))
                both.create_task(self._carry(there_reader, writer))
        finally:
            there_writer.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await self._whole.wait()
                sink.write(data)
                await sink.drain()
        sink.close()


@asynccontextmanager
async def link() -> AsyncIterator[Link]:
    """Listen on a loopback port for the length of the block; whole at first."""
    made = Link()
    made.join()
    async with listening(made.serve) as port:
        made.url = f"http://127.0.0.1:{port}"
        yield made
