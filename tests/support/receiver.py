"""A receiver of webhooks on loopback: it verifies, keeps what came, and answers as it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any

import orjson

from tests.support.listening import listening


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The body as JSON."""
        document: dict[str, Any] = orjson.loads(self.body)
        return document


@dataclass(slots=True)
class Receiver:
    """`answer` says the status of each request; the first of equal webhook-ids is in `once`."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    answer: Callable[[Received], int] = lambda _: 204
    headers: str = ""
    silent: bool = False
    """Take requests and never answer."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def types(self) -> list[str]:
        """The types of what came, in order."""
        return [each.message["type"] for each in self.received]


@asynccontextmanager
async def receiving(trust: SSLContext | None = None, port: int = 0) -> AsyncIterator[Receiver]:
    """Listen on loopback until the end."""
    receiver = Receiver()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Received(headers | {":line": head[0]}, body)
        receiver.received.append(request)
        if receiver.silent:
            await reader.read()
            return
        status = receiver.answer(request)
        writer.write(f"HTTP/1.1 {status} X\r\n{receiver.headers}Content-Length: 0\r\n\r\n".encode())
        await writer.drain()

    async with listening(serve, port, trust) as receiver.port:
        yield receiver
