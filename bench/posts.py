"""Requests made and signed beforehand, sent over keep-alive connections: a load that takes little of what it measures.

It does what wrk would: each connection sends its next request when the last one is answered, and of an answer it reads
the status and the length.
"""

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
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
            "Idempotency-Key": f"{load.wallet_id}-one-{number}",
        } | signed_headers(
            method="POST",
            path="/v1/intents",
            body=body,
            key_id=load.info.key_id,
            secret=load.info.key_secret,
            timestamp=timestamp,
            nonce=secrets.token_urlsafe(12),
        )
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        made.append(f"POST /v1/intents HTTP/1.1\r\n{head}\r\n".encode() + body)
    return made


async def post_all(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> float:
    """Send requests for `seconds`, or until there are no more; return how many were answered in a second.

    Raises RefusedError at the first answer that is no 2xx.
    """
    loop, at, waiting = asyncio.get_running_loop(), urlsplit(url), iter(requests)
    open_ones = [
        (await loop.create_connection(lambda: _Connection(waiting), at.hostname or "", at.port or 80))[1]
        for _ in range(connections)
    ]
    started = time.monotonic()
    for each in open_ones:
        each.begin(started + seconds)
    try:
        await asyncio.gather(*(each.done for each in open_ones))
    finally:
        for each in open_ones:
            each.close()
    return sum(each.answered for each in open_ones) / (time.monotonic() - started)


class _Connection(asyncio.Protocol):
    """One connection; `done` is when the answer to its last request was read, or the exception that ended it."""

    def __init__(self, waiting: Iterator[bytes]) -> None:
        self._waiting, self._read, self._stop_at = waiting, b"", 0.0
        self.answered, self.done = 0, asyncio.get_running_loop().create_future()

    def begin(self, stop_at: float) -> None:
        """Send the first request; none is sent after `stop_at` of the monotonic clock."""
        self._stop_at = stop_at
        self._send_next()

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
        if not head.startswith(b"HTTP/1.1 2"):
            self._end(RefusedError(f"a payment was answered {head[9:12]!r}: {body[:300]!r}"))
            return
        self._read = b""
        self.answered += 1
        self._send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(RefusedError(f"a connection ended before its answer: {exc}"))

    def _send_next(self) -> None:
        request = next(self._waiting, None) if time.monotonic() < self._stop_at else None
        if request is None:
            self._end(None)
        else:
            self._transport.write(request)

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None) if error is None else self.done.set_exception(error)


def _length_of(head: bytes) -> int:
    at = head.lower().index(_LENGTH) + len(_LENGTH)
    return int(head[at:].partition(b"\r\n")[0])
