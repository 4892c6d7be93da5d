"""A proxy in front of the real core that loses connections and answers in its place, by script."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.listening import listening

CUT_BEFORE = b"cut before"
"""Close the connection; the core never sees the request."""
CUT_AFTER = b"cut after"
"""Hand the request to the core, take its answer, and close the connection without a word."""


def answer(status: str, body: str, **headers: str) -> bytes:
    """Return an answer to give in the core's place."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", body]).encode()


@dataclass
class Front:
    """`script` is used up a fault a request; None, or an empty script, passes the request on.

    What is `changed` is put in place of what stands in the head of a request that is passed on.
    """

    upstream: str
    url: str = ""
    script: deque[bytes | None] = field(default_factory=deque)
    seen: list[dict[str, str]] = field(default_factory=list)
    changed: dict[bytes, bytes] = field(default_factory=dict)

    def headers(self, name: str) -> list[str]:
        """Return one header of each request seen; empty where it was absent."""
        return [request.get(name.lower(), "") for request in self.seen]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._one(reader, writer):
            pass

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.seen.append(headers | {"request": first, "body": body.decode()})
        fault = self.script.popleft() if self.script else None
        if fault == CUT_BEFORE:
            return False
        given = fault if fault not in (None, CUT_AFTER) else await self._pass_on(head, body)
        if fault == CUT_AFTER:
            return False
        writer.write(given)
        await writer.drain()
        return True

    async def _pass_on(self, head: bytes, body: bytes) -> bytes:
        address = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for sent, instead in self.changed.items():
            head = head.replace(sent, instead)
        first, _, rest = head.partition(b"\r\n")
        try:
            writer.write(first + b"\r\nConnection: close\r\n" + rest + body)
            whole = await reader.read()
        finally:
            writer.close()
        # The client's connection is kept, whatever the core does with ours.
        return whole.replace(b"connection: close\r\n", b"", 1)


@asynccontextmanager
async def flaky_front(upstream: str) -> AsyncIterator[Front]:
    """Listen on a loopback port for the length of the block."""
    front = Front(upstream)
    async with listening(front.serve) as port:
        front.url = f"http://127.0.0.1:{port}"
        yield front
