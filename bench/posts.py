"""Requests made and signed beforehand, sent over keep-alive connections: a load that takes little of what it measures.

It does what wrk would: each connection sends its next request when the last one is answered, and of an answer it reads
the status and the length.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast
from urllib.parse import urlsplit

import orjson

from bench.load import Load
from wire.signing import signed_headers

_HEAD_ENDS: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class RefusedError(RuntimeError):
    """An answer was no 2xx, or the connection ended: what was measured is not what was asked for."""


def payments(load: Load, numbers: Sequence[int]) -> list[bytes]:
    """Return one request for each payment as it goes over the wire, signed now: it counts for TOLERANCE_S."""
    host, timestamp = urlsplit(load.info.public_url).netloc, int(time.time())
    made = []
    for number in numbers:
        body = orjson.dumps(load.intent(number))
        headers = {
            "Host": host,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        } | signed_headers(
            method="POST",
            path="/v1/intents",
            body=body,
            key_id=load.info.key_id,
            secret=load.info.key_secret,
            timestamp=timestamp,
            nonce=secrets.token_urlsafe(12),
            idempotency_key=f"{load.wallet_id}-one-{number}",
        )
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        made.append(f"POST /v1/intents HTTP/1.1\r\n{head}\r\n".encode() + body)
    return made


async def post_all(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> float:
    """Send requests for `seconds`, or until there are no more; return how many were answered in a second.

    Raises RefusedError at the first answer that is no 2xx.
    """
    waiting, answered, started = iter(requests), 0, time.monotonic()

    def send_next(each: _Connection) -> bool:
        request = next(waiting, None) if time.monotonic() < started + seconds else None
        if request is not None:
            each.send(request)
        return request is not None

    def heard(each: _Connection, _: bytes) -> None:
        nonlocal answered
        answered += 1
        if not send_next(each):
            each.end()

    async with _connected(url, connections, heard) as open_ones:
        started = time.monotonic()
        for each in open_ones:
            if not send_next(each):
                each.end()
        await asyncio.gather(*(each.done for each in open_ones))
    return answered / (time.monotonic() - started)


async def post_paced(url: str, requests: Sequence[bytes], rate: int, connections: int) -> list[tuple[float, bytes]]:
    """Send `rate` requests a second, whatever the answers take; return when each was sent (epoch), and its answer.

    Each goes over the connection that is free the longest (a server ends idle ones); where none is, the time runs
    from when it should have been sent.
    Raises RefusedError at the first answer that is no 2xx.
    """
    sent_at: dict[_Connection, float] = {}
    answers: list[tuple[float, bytes]] = []
    all_heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    free: asyncio.Queue[_Connection] = asyncio.Queue()

    def heard(each: _Connection, body: bytes) -> None:
        answers.append((sent_at[each], body))
        free.put_nowait(each)
        if len(answers) == len(requests):
            all_heard.set_result(None)

    async with _connected(url, connections, heard) as open_ones:
        for each in open_ones:
            free.put_nowait(each)
        began, clock = time.monotonic(), time.time()
        for number, request in enumerate(requests):
            await asyncio.sleep(began + number / rate - time.monotonic())
            each = await free.get()
            sent_at[each] = clock + number / rate
            each.send(request)
        await asyncio.wait([all_heard, *(each.done for each in open_ones)], return_when=asyncio.FIRST_COMPLETED)
        for each in open_ones:
            each.end()
            each.done.result()
    return answers


@asynccontextmanager
async def _connected(
    url: str, connections: int, heard: Callable[["_Connection", bytes], None]
) -> AsyncIterator[list["_Connection"]]:
    loop, at = asyncio.get_running_loop(), urlsplit(url)
    open_ones = [
        (await loop.create_connection(lambda: _Connection(heard), at.hostname or "", at.port or 80))[1]
        for _ in range(connections)
    ]
    try:
        yield open_ones
    finally:
        for each in open_ones:
            each.close()


class _Connection(asyncio.Protocol):
    """One connection; `done` is when nothing more is sent over it, or the exception that ended it."""

    def __init__(self, heard: Callable[["_Connection", bytes], None]) -> None:
        self._heard, self._read = heard, b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(self, request: bytes) -> None:
        """Send a request; its answer is heard before the next is sent."""
        self._transport.write(request)

    def end(self, error: Exception | None = None) -> None:
        """Say that nothing more is sent."""
        if not self.done.done():
            self.done.set_result(None) if error is None else self.done.set_exception(error)

    def close(self) -> None:
        """End the connection, whether or not an answer is on its way."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, ends, body = self._read.partition(_HEAD_ENDS)
        if not ends or len(body) < _length_of(head):
            return
        self._read = b""
        if head.startswith(b"HTTP/1.1 2"):
            self._heard(self, body)
        else:
            self.end(RefusedError(f"a payment was answered {head[9:12]!r}: {body[:300]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(RefusedError(f"a connection ended before its answer: {exc}"))


def _length_of(head: bytes) -> int:
    at = head.lower().index(_LENGTH) + len(_LENGTH)
    return int(head[at:].partition(b"\r\n")[0])
