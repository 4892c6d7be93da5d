"""The HTTP client of every rail: explicit time-outs, bounded connections, no retries, honest errors.

httpx's own pool scans quadratically with hundreds of connections, so the connections are aiohttp's
(`httpx-aiohttp`). That transport reports *every* broken connection as ConnectTimeout, also one that broke
after the request had left; read as "never sent" that would pay twice. Here a failure counts as a connect
failure only where aiohttp itself says that no connection came about.

What a rail asks is a method, a path, headers and bytes. httpx would make and take apart objects for its redirects,
cookies, authentication and hooks, none of which a provider's client has, for two thirds of a call's processor time:
such a request goes to the connections at once. Whatever else is asked goes the whole way.
"""

import re
import time
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import aiohttp
import httpx
import orjson
from httpx_aiohttp.transport import map_aiohttp_exceptions
from yarl import URL

from wire.sending import OnceTransport

_NEVER_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024
"""The longest answer that is read: a page of a register is a tenth of it."""
_GZIP: Final = zlib.MAX_WBITS | 16
_JSON: Final = {"Content-Type": "application/json"}
_PLAIN: Final = re.compile(r"/[A-Za-z0-9/_.~?=&:-]*", re.ASCII)
"""Paths that go over the wire as they are."""
_IDLE_S: Final = 1.5
"""How long a connection is kept for another call: less than any usual server keeps it (gunicorn 2 s; Apache, Node.js
and uvicorn 5). A payment that meets its provider's closing is in doubt, and withdrawn though it never arrived."""
_LEFT_TO_THE_CLIENT: Final = (None, httpx.USE_CLIENT_DEFAULT)


@contextmanager
def _honestly() -> Iterator[None]:
    """Raise httpx.ConnectError and ConnectTimeout only where nothing was sent."""
    try:
        yield
    except (httpx.ConnectTimeout, httpx.ConnectError) as error:
        if isinstance(error.__cause__, _NEVER_CONNECTED):
            raise
        raise httpx.ReadError(f"connection lost after sending: {error}") from error
    except aiohttp.ClientError as error:
        # What the transport leaves unmapped, such as a status line that is none: something answered.
        name = type(error).__name__
        raise httpx.RemoteProtocolError(f"the answer is not HTTP: {name}") from error


async def _at_most(most: int, parts: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts; raises httpx.RemoteProtocolError once they are more than `most` bytes together."""
    size = 0
    async for part in parts:
        size += len(part)
        if size > most:
            raise _too_long(most)
        yield part


class _Bounded(httpx.AsyncByteStream):
    """An answer's bytes, no more than `most` of them."""

    def __init__(self, stream: httpx.AsyncByteStream, most: int) -> None:
        self._stream, self._most = stream, most

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _at_most(self._most, self._stream)

    async def aclose(self) -> None:
        await self._stream.aclose()


def _too_long(most: int) -> httpx.RemoteProtocolError:
    # Indeterminate, as everything that was answered and cannot be read.
    return httpx.RemoteProtocolError(f"the answer has more than {most} bytes")


def _require_room(body: bytes, encoding: str, most: int) -> None:
    """Raise httpx.RemoteProtocolError where a body would unpack to more than `most` bytes, or nobody knows how."""
    if encoding in ("", "identity"):
        return
    if encoding != "gzip":
        raise httpx.RemoteProtocolError("the answer is packed in a way that was not asked for")
    try:
        fits = len(zlib.decompressobj(_GZIP).decompress(body, most + 1)) <= most
    except zlib.error as error:
        raise httpx.DecodingError("the answer is no gzip") from error
    if not fits:
        raise _too_long(most)


class HonestTransport(OnceTransport):
    """aiohttp's connections with errors that never call a sent request unsent, and answers of bounded length."""

    def __init__(self, *, answer_max_bytes: int, **options: Any) -> None:
        super().__init__(**options)
        self._most = answer_max_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request once. Raises httpx.ConnectError/ConnectTimeout only if nothing was sent."""
        with _honestly():
            response = await super().handle_async_request(request)
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _Bounded(response.stream, self._most)
        return response

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | None, timeout: aiohttp.ClientTimeout
    ) -> httpx.Response:
        """Send a request once and read its answer whole; raises as `handle_async_request` does."""
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        begun_s = time.perf_counter()
        with _honestly(), map_aiohttp_exceptions():
            async with self.client.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=content or None,
                allow_redirects=False,
                auto_decompress=False,
                compress=False,
                timeout=timeout,
            ) as answer:
                body = b"".join([part async for part in _at_most(self._most, answer.content.iter_any())])
        _require_room(body, answer.headers.get("Content-Encoding", "").lower(), self._most)
        return _Answer(method, url, answer, body, time.perf_counter() - begun_s)


class _Answer(httpx.Response):
    """A response that was read whole; its request is made where somebody wants to see it.

    It answers whatever `httpx.Response` answers, but for the request's headers and body, which hold secrets and payees,
    and `next_request`: nothing is followed.
    """

    def __init__(self, method: str, url: str, told: aiohttp.ClientResponse, body: bytes, elapsed_s: float) -> None:
        extensions = {"http_version": b"HTTP/1.1"}
        if told.reason:
            extensions["reason_phrase"] = told.reason.encode()
        # A stream, and no content: httpx would add a header of its own, and forget how much came over the wire.
        super().__init__(told.status, headers=told.raw_headers, stream=httpx.ByteStream(body), extensions=extensions)
        self._asked = (method, url)
        self.elapsed = timedelta(seconds=elapsed_s)
        self.read()

    @property
    def request(self) -> httpx.Request:
        """The method and the address that were asked, without headers and body."""
        return httpx.Request(*self._asked)

    @request.setter
    def request(self, value: httpx.Request) -> None:
        self._asked = (value.method, str(value.url))

    def raise_for_status(self) -> httpx.Response:
        """As `httpx.Response.raise_for_status`, which looks for a request that was made already."""
        self._request = self.request
        return super().raise_for_status()


class ProviderClient(httpx.AsyncClient):
    """A client of one provider, whose plain requests take the short way.

    What is set on it later (headers, parameters, authentication, hooks) counts: its requests are plain no longer.
    """

    def __init__(self, base_url: str, transport: HonestTransport, timeout: httpx.Timeout) -> None:
        super().__init__(
            base_url=base_url, timeout=timeout, transport=transport, follow_redirects=False, trust_env=False
        )
        self.headers["Accept-Encoding"] = "gzip"
        self._connections, self._address = transport, base_url.rstrip("/")
        self._waits = aiohttp.ClientTimeout(sock_connect=timeout.connect, sock_read=timeout.read, connect=timeout.pool)
        self._usual, self._made_with = dict(self.headers), self.headers.raw

    async def request(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        content: Any = None,
        json: Any = None,
        headers: Any = None,
        **more: Any,
    ) -> httpx.Response:
        """Send a request once; see `httpx.AsyncClient.request` for what may be asked and what is raised."""
        given = (value for value in more.values() if value not in _LEFT_TO_THE_CLIENT)
        short = isinstance(url, str) and _PLAIN.fullmatch(url) and isinstance(content, bytes | None)
        if not short or any(True for _ in given) or not isinstance(headers, dict | None) or not self._is_as_made():
            return await super().request(method, url, content=content, json=json, headers=headers, **more)
        told = self._usual | (headers or {})
        if json is not None:
            content, told = orjson.dumps(json), told | _JSON
        address = f"{self._address}{url}"
        try:
            return await self._connections.ask(method, address, told, content, self._waits)
        except httpx.RequestError as error:
            error.request = httpx.Request(method, address)
            raise

    def _is_as_made(self) -> bool:
        # Cookies are left out on purpose: what a provider sets must not change how it is asked.
        changed = self.is_closed or self.auth or self.params or any(self.event_hooks.values())
        return not changed and self.headers.raw == self._made_with


def provider_client(
    base_url: str,
    *,
    call_total_s: float,
    connect_s: float,
    max_connections: int,
    verify: bool = True,
    answer_max_bytes: int = ANSWER_MAX_BYTES,
) -> httpx.AsyncClient:
    """Return a client for one provider. All durations are seconds; the runtime adds the total of T_psp.

    Redirects are not followed (a payment is never re-sent to another address) and the environment's proxies
    are not read. An answer that is longer than `answer_max_bytes`, unpacked, raises httpx.RemoteProtocolError.
    """
    limits = httpx.Limits(max_connections=max_connections, keepalive_expiry=_IDLE_S)
    transport = HonestTransport(answer_max_bytes=answer_max_bytes, verify=verify, trust_env=False, limits=limits)
    return ProviderClient(base_url, transport, httpx.Timeout(call_total_s, connect=connect_s, pool=connect_s))
