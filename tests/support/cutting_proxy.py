"""A proxy in front of a real Redis that hands a command over, takes its answer and cuts the connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from tests.support.listening import listening


@dataclass
class CuttingProxy:
    """`cut_after` names what a command must contain; one connection that sends it gets no answer and is closed."""

    host: str
    port: int
    url: str = ""
    cut_after: bytes = b""
    cuts: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self.host, self.port)
        silent = asyncio.Event()

        async def commands() -> None:
            while data := await reader.read(65_536):
                if self.cut_after and self.cut_after in data:
                    self.cut_after = b""
                    silent.set()
                upstream_writer.write(data)
                await upstream_writer.drain()

        async def answers() -> None:
            while data := await upstream_reader.read(65_536):
                if silent.is_set():
                    self.cuts += 1
                    return
                writer.write(data)
                await writer.drain()

        tasks = [asyncio.create_task(commands()), asyncio.create_task(answers())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            upstream_writer.close()


@asynccontextmanager
async def cutting_proxy(redis_url: str) -> AsyncIterator[CuttingProxy]:
    """Yield a proxy; its `url` is `redis_url` through it."""
    parts = urlsplit(redis_url)
    proxy = CuttingProxy(parts.hostname or "127.0.0.1", parts.port or 6379)
    login = parts.netloc.rpartition("@")[0]
    async with listening(proxy.serve) as port:
        proxy.url = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}" if login else f"127.0.0.1:{port}"))
        yield proxy
