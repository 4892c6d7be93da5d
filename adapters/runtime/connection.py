"""Kept connections to the core: HTTP/1.1 and nothing else, for the one request that every payment waits for.

A general client costs three times the CPU of a lone permit. Parsing is httptools'; what is left is to write a request
whole and to wait for its answer. One request at a time on a connection, and a connection that was left in the middle
of an answer, by a time-out, a cancellation or nonsense, is closed: a later request can never read an earlier answer.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Final, cast
from urllib.parse import urlsplit

import httptools

ANSWER_MAX_BYTES: Final = 16 * 1024 * 1024
"""An answer above this is refused: a batch of permits is far below."""


class ConnectionFailedError(Exception):
    """No answer came: the core was not reached, the connection broke, time ran out, or what came is no HTTP."""


class _Channel(asyncio.Protocol):
    """One connection: `ask` once at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._length_bytes = 0
        self.reusable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream protocol is given nothing else; uvloop's transports are no subclass of it.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost: {type(exc).__name__}")

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # nobody asked, so it is no answer
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the answer is not HTTP: {type(error).__name__}")

    def on_body(self, body: bytes) -> None:
        self._length_bytes += len(body)
        if self._length_bytes > ANSWER_MAX_BYTES:
            self._fail("the answer is too large")
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self.reusable = self._parser.should_keep_alive()
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._parts)))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        self._reset()
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            raise ConnectionFailedError("the connection is closed")
        self._transport.write(request)
        return await self._answer

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, why: str) -> None:
        self.reusable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionFailedError(why))
        self.close()


class KeptConnections:
    """Connections to one origin, kept after use. Bounded by what is asked at once; the caller bounds that."""

    def __init__(self, base_url: str) -> None:
        origin = urlsplit(base_url)
        if origin.scheme not in ("http", "https") or origin.hostname is None:
            raise ValueError("the core's address is no http:// or https:// URL")
        self._tls = origin.scheme == "https"
        self._host, self._port = origin.hostname, origin.port or (443 if self._tls else 80)
        self._head_host = origin.netloc.rpartition("@")[2]
        self._idle: deque[_Channel] = deque()

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> tuple[int, bytes]:
        """Return status and body of one request, sent once. Raises ConnectionFailedError, also after `timeout_s`."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._head_host}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a header must be one line")
        request = "\r\n".join([*lines, "", ""]).encode("ascii") + body
        channel: _Channel | None = None
        try:
            async with asyncio.timeout(timeout_s):
                channel = self._kept() or await self._opened()
                answer = await channel.ask(request)
            if channel.reusable:
                self._idle.append(channel)
                channel = None
        except TimeoutError as error:
            raise ConnectionFailedError("no answer in time") from error
        except OSError as error:
            raise ConnectionFailedError(type(error).__name__) from error
        finally:
            if channel is not None:
                channel.close()
        return answer

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _kept(self) -> _Channel | None:
        # The one that was used last: the others may end by the server's time-out.
        while self._idle:
            if (channel := self._idle.pop()).open:
                return channel
        return None

    async def _opened(self) -> _Channel:
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(_Channel, self._host, self._port, ssl=self._tls or None)
        return channel
