"""The provider client against real sockets: only what never connected counts as not sent."""

import asyncio
import contextlib
import gzip
import re
import socket
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from adapters.runtime.core_client import CoreClient, CoreUnavailableError
from adapters.runtime.errors import Indeterminate, NotSent, transport_error
from adapters.runtime.http import provider_client
from fleet.client import FleetClient
from tests.support.listening import Serve, listening


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()


async def _half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()


async def _reset_within_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    await writer.drain()
    await asyncio.sleep(0.05)
    no_linger = struct.pack("ii", 1, 0)  # closing then sends a reset, not an end
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
    writer.transport.abort()


async def _not_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x00\x01 this is no status line\r\n\r\n")
    await writer.drain()
    writer.close()


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def _busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Keeps the only connection for longer than another call waits for one."""
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.4)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("handler", [_hang_up, _reset, _half_an_answer, _reset_within_the_body, _not_http, _silence])
async def test_what_broke_after_sending_may_have_executed(handler: Serve) -> None:
    async with listening(handler) as port:
        client = provider_client(f"http://127.0.0.1:{port}", call_total_s=0.5, connect_s=0.3, max_connections=2)
        try:
            with pytest.raises(httpx.HTTPError) as raised:
                await client.post("/v1/transfers", json={"client_ref": "R"})
            assert isinstance(transport_error(raised.value), Indeterminate)
        finally:
            await client.aclose()


@pytest.mark.parametrize("handler", [None, _hang_up, _reset, _half_an_answer, _reset_within_the_body, _silence, _busy])
async def test_its_errors_are_of_the_classes_of_httpxs_own_transport(handler: Serve | None) -> None:
    """`None` is nobody who listens; the pool's own time-out comes where one connection is held by another call."""
    async with AsyncExitStack() as listener:
        port = await listener.enter_async_context(listening(handler or _silence))
        if handler is None:
            await listener.aclose()
        learned = [await _learned(client, handler) for client in _clients(f"http://127.0.0.1:{port}")]
    assert learned[0] == learned[1]
    assert learned[0], "nothing failed, so nothing was compared"


def _clients(url: str) -> tuple[Any, Any]:
    """Return ours and httpx's own, with the same time-outs and one connection."""
    limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(0.6, connect=0.3, pool=0.2)
    return (
        provider_client(url, call_total_s=0.6, connect_s=0.3, max_connections=1),
        httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits, trust_env=False),
    )


async def _learned(client: Any, handler: Serve | None) -> list[str]:
    """Return of which classes the errors of a call are, of two at once where the first keeps the connection."""
    calls = [client.post("/v1/transfers", json={}) for _ in range(2 if handler is _busy else 1)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    await client.aclose()
    errors = [each for each in answers if isinstance(each, httpx.HTTPError)]
    return sorted(type(transport_error(error)).__name__ for error in errors)


async def test_a_refused_connection_never_left_us() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = provider_client(f"http://127.0.0.1:{port}", call_total_s=0.5, connect_s=0.3, max_connections=2)
    with pytest.raises(httpx.HTTPError) as raised:
        await client.post("/v1/transfers", json={})
    assert isinstance(transport_error(raised.value), NotSent)
    await client.aclose()


@dataclass(slots=True)
class Heard:
    """What came over the wire, request by request."""

    requests: list[bytes] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: ([0-9]+)", head.lower())
        self.requests.append(head + (await reader.readexactly(int(found[1])) if found else b""))
        body = gzip.compress(b'{"status": "SUCCEEDED"}')
        told = b"Set-Cookie: a=b\r\nRetry-After: 3\r\nContent-Encoding: gzip\r\nConnection: close\r\n"
        writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), told, body))
        await writer.drain()
        writer.close()

    def parts(self) -> list[tuple[bytes, set[bytes], bytes]]:
        """Return the first line, the headers and the body of each; names of headers in lower case."""
        parts = []
        for request in self.requests:
            head, _, body = request.partition(b"\r\n\r\n")
            first, *lines = head.split(b"\r\n")
            named = (line.partition(b":") for line in lines)
            parts.append((first, {name.lower() + b":" + value.strip() for name, _, value in named}, body))
        return parts


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        (
            "POST",
            "/v1/transfers",
            {"content": b'{"a":1}', "headers": {"X-Key": "k", "Content-Type": "application/json"}},
        ),
        ("POST", "/v1/transfers", {"json": {"a": 1, "name": "ก"}}),
        ("GET", "/v1/settlements/2026-01-05?after=A1&b=2", {"headers": {"X-Key": "k"}}),
        ("GET", "/v1/transfers/by-ref/R%2F1?after=x y", {}),
        ("POST", "/v1/transfers/by-ref/R/cancel", {"content": b""}),
    ],
)
async def test_the_short_way_asks_and_answers_what_httpx_does(method: str, path: str, asked: dict[str, Any]) -> None:
    heard = Heard()
    async with listening(heard) as port:
        base = f"http://127.0.0.1:{port}/base"
        async with provider_client(base, call_total_s=5, connect_s=1, max_connections=1) as client:
            answers = [await client.request(method, path, **asked, extensions=each) for each in (None, {"a": 1})]
    for answer in answers:
        assert answer.raise_for_status() is answer
        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (202, {"status": "SUCCEEDED"}, "3")
        assert (answer.request.method, str(answer.request.url)) == (method, str(httpx.URL(f"{base}{path}")))
    short, whole = heard.parts()
    # Having a cookie, httpx sends it again; of a provider nothing is to be remembered from call to call.
    assert short == (whole[0], {each for each in whole[1] if not each.startswith(b"cookie:")}, whole[2])


async def test_nothing_is_remembered_from_one_call_to_the_next() -> None:
    heard = Heard()
    async with listening(heard) as port:
        base = f"http://127.0.0.1:{port}"
        async with provider_client(base, call_total_s=5, connect_s=1, max_connections=1) as client:
            for _ in range(2):
                await client.request("POST", "/v1/transfers", content=b"{}")
    first, second = heard.parts()
    assert first == second


async def test_a_call_goes_on_no_connection_that_its_provider_is_about_to_close() -> None:
    loop, connections = asyncio.get_running_loop(), 0

    async def keeps_for_two_seconds(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        ends_s = loop.time() + 2
        while await reader.readuntil(b"\r\n\r\n") and loop.time() < ends_s:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            ends_s = loop.time() + 2

    async with listening(keeps_for_two_seconds) as port:
        base = f"http://127.0.0.1:{port}"
        async with provider_client(base, call_total_s=5, connect_s=1, max_connections=1) as client:
            for wait_s in (0, 0.5, 2):
                await asyncio.sleep(wait_s)
                await client.post("/v1/transfers")
    assert connections == 2


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
@pytest.mark.parametrize("who", ["a provider", "a provider, the long way", "the core", "the payment service"])
async def test_a_call_whose_connection_is_lost_is_sent_once(who: str, method: str) -> None:
    heard = 0

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        await reader.readuntil(b"\r\n\r\n")
        heard += 1
        writer.close()

    async with listening(hangs_up) as port, AsyncExitStack() as stack:
        base, asking = f"http://127.0.0.1:{port}", {"timeout": 5} if "long" in who else {}
        if who == "the core":
            core = CoreClient(base, key_id="k", secret="s")
            stack.push_async_callback(core.close)
            with pytest.raises(CoreUnavailableError):
                await core._call(method, "/internal/v1/rails/promptpay", b"")
        else:
            made = FleetClient(base, "k", "s")._http if "service" in who else None
            client = made or provider_client(base, call_total_s=5, connect_s=1, max_connections=1)
            async with client:
                with pytest.raises(httpx.TransportError):
                    await client.request(method, "/v1/transfers", **asking)  # type: ignore[arg-type]
    assert heard == 1


_TEXT, _JSON = b"Content-Type: text/plain", b"Content-Type: application/json"
ANSWERS = {
    "/json": (b"200 OK", (_JSON,), '{"ชื่อ": 1}'.encode()),
    "/zipped": (b"201 Made", (_JSON, b"Content-Encoding: gzip"), gzip.compress(b'{"a": 1}')),
    "/thai": (b"200 OK", (b"Content-Type: text/plain; charset=windows-874",), "กข".encode("cp874")),
    "/latin": (b"200 OK", (b"Content-Type: text/plain; charset=iso-8859-1",), "é".encode("latin-1")),
    "/no-charset": (b"200 OK", (b"Content-Type: text/plain; charset=nonsense",), b"one\r\ntwo\xff"),
    "/nothing": (b"204 No Content", (), b""),
    "/torn-json": (b"422 Not Like This", (_JSON,), b'{"a"'),
    "/broken": (b"503 Back Soon", (_TEXT, b"Retry-After: 3"), b"later"),
    "/moved": (b"302 Found", (_TEXT, b"Location: /json"), b"there"),
    "/twice": (b"200 OK", (_TEXT, b"X-A: 1", b"X-A: 2", b'Link: </b>; rel="next"'), b"x"),
}
SAID = (
    "status_code", "reason_phrase", "http_version", "headers", "content", "text", "encoding", "charset_encoding",
    "default_encoding", "is_informational", "is_success", "is_redirect", "is_client_error", "is_server_error",
    "is_error", "has_redirect_location", "history", "url", "links", "extensions", "is_closed", "is_stream_consumed",
    "num_bytes_downloaded",
)  # fmt: skip
DONE = ("json", "read", "raise_for_status", "iter_bytes", "iter_text", "iter_lines", "iter_raw", "__repr__")
AWAITED = ("aread", "aclose")
WALKED = ("aiter_bytes", "aiter_text", "aiter_lines", "aiter_raw")


async def _tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
    if path == "/chunked":
        writer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"4\r\nhalf\r\n3\r\nabc\r\n0\r\n\r\n"
        )
    else:
        first, headers, body = ANSWERS[path]
        sized = b"Content-Length: %d" % len(body)
        writer.write(b"\r\n".join([b"HTTP/1.1 " + first, *headers, sized, b"Connection: close", b"", body]))
    await writer.drain()
    writer.close()


async def _told(answer: httpx.Response) -> dict[str, Any]:
    """Return what an answer says to whoever asks it for anything; what it raises is said too."""
    told: dict[str, Any] = {"took": answer.elapsed.total_seconds() > 0}
    told["asked"] = (answer.request.method, str(answer.request.url))
    told |= {name: getattr(answer, name) for name in SAID}
    told["headers"] = answer.headers.raw
    for name in (*DONE, *AWAITED, *WALKED):
        try:
            said = getattr(answer, name)()
            if name in AWAITED:
                said = await said
            elif name in WALKED:
                said = [each async for each in said]
            elif name.startswith("iter"):
                said = list(said)
            told[name] = "itself" if said is answer else said
        except (httpx.HTTPError, httpx.StreamError, ValueError, RuntimeError) as error:
            told[name] = (type(error), str(error))
    return told


@pytest.mark.parametrize("path", [*ANSWERS, "/chunked"])
async def test_an_answer_of_the_short_way_says_whatever_httpxs_own_says(path: str) -> None:
    async with (
        listening(_tell) as port,
        provider_client(f"http://127.0.0.1:{port}", call_total_s=5, connect_s=1, max_connections=1) as client,
    ):
        short, whole = [await client.get(path, extensions=each) for each in (None, {"a": 1})]
        assert type(short) is not type(whole), "both went the same way: nothing is compared"
        assert await _told(short) == await _told(whole)


@pytest.mark.parametrize("handler", [_hang_up, _half_an_answer, None])
async def test_an_error_of_the_short_way_says_what_was_asked(handler: Serve | None) -> None:
    """`None` is a body that is not encoded as it says."""

    async def not_zipped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    async with listening(handler or not_zipped) as port:
        base = f"http://127.0.0.1:{port}"
        async with provider_client(base, call_total_s=5, connect_s=1, max_connections=1) as client:
            with pytest.raises(httpx.RequestError) as raised:
                await client.post("/v1/transfers", json={})
    assert (raised.value.request.method, str(raised.value.request.url)) == ("POST", f"{base}/v1/transfers")
    assert isinstance(transport_error(raised.value), Indeterminate)


def _by_header(client: httpx.AsyncClient) -> None:
    client.headers["X-Key"] = "k"


def _by_authentication(client: httpx.AsyncClient) -> None:
    client.auth = httpx.BasicAuth("user", "password")


def _by_parameter(client: httpx.AsyncClient) -> None:
    client.params = httpx.QueryParams(key="k")


def _by_hook(client: httpx.AsyncClient) -> None:
    async def sign(request: httpx.Request) -> None:
        request.headers["X-Signature"] = "s"

    client.event_hooks = {"request": [sign]}


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (_by_header, b"x-key: k"),
        (_by_authentication, b"authorization: basic "),
        (_by_parameter, b"post /v1/transfers?key=k "),
        (_by_hook, b"x-signature: s"),
    ],
)
async def test_what_is_set_on_a_client_after_it_was_made_is_sent(
    changed: Callable[[httpx.AsyncClient], None], line: bytes
) -> None:
    heard = Heard()
    async with listening(heard) as port:
        base = f"http://127.0.0.1:{port}"
        async with provider_client(base, call_total_s=5, connect_s=1, max_connections=1) as client:
            changed(client)
            await client.post("/v1/transfers", content=b"{}")
    assert line in heard.requests[0].lower()


@pytest.mark.parametrize("extensions", [None, {"a": 1}], ids=["short way", "whole way"])
async def test_an_answer_without_end_is_not_read_on_and_may_have_executed(extensions: dict[str, Any] | None) -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while not writer.is_closing() and sent < 50_000_000:
                writer.write(b"x" * 100_000)
                sent += 100_000
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    bounded = provider_client(base, call_total_s=5, connect_s=1, max_connections=1, answer_max_bytes=1_000_000)
    async with bounded as client:
        with pytest.raises(httpx.RemoteProtocolError) as raised:
            await client.post("/v1/transfers", content=b"{}", extensions=extensions)
    server.close()
    assert isinstance(transport_error(raised.value), Indeterminate)
    assert sent < 50_000_000


@pytest.mark.parametrize("packed", ["gzip", "gzip, gzip", "br"])
async def test_what_would_unpack_without_end_is_not_unpacked(packed: str) -> None:
    body = gzip.compress(bytes(20_000_000))

    async def bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        told = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n"
        writer.write(told % (packed.encode(), len(body)) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(bomb, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with provider_client(base, call_total_s=5, connect_s=1, max_connections=1) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/v1/transfers")
    server.close()
