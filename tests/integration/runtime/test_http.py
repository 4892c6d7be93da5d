"""The provider client against real sockets: only what never connected counts as not sent."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import httpx
import pytest

from adapters.runtime.errors import Indeterminate, NotSent, transport_error
from adapters.runtime.http import provider_client

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


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
async def test_what_broke_after_sending_may_have_executed(handler: Handler) -> None:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = provider_client(f"http://127.0.0.1:{port}", call_total_s=0.5, connect_s=0.3, max_connections=2)
    try:
        with pytest.raises(httpx.HTTPError) as raised:
            await client.post("/v1/transfers", json={"client_ref": "R"})
        assert isinstance(transport_error(raised.value), Indeterminate)
    finally:
        await client.aclose()
        server.close()


@pytest.mark.parametrize("handler", [None, _hang_up, _reset, _half_an_answer, _reset_within_the_body, _silence, _busy])
async def test_its_errors_are_of_the_classes_of_httpxs_own_transport(handler: Handler | None) -> None:
    """`None` is nobody who listens; the pool's own time-out comes where one connection is held by another call."""
    server = await asyncio.start_server(handler or _silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if handler is None:
        server.close()
        await server.wait_closed()
    url, limits = f"http://127.0.0.1:{port}", httpx.Limits(max_connections=1)
    timeout = httpx.Timeout(0.6, connect=0.3, pool=0.2)
    clients = (
        provider_client(url, call_total_s=0.6, connect_s=0.3, max_connections=1),
        httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits, trust_env=False),
    )
    learned = []
    for client in clients:
        calls = [client.post("/v1/transfers", json={}) for _ in range(2 if handler is _busy else 1)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        errors = [each for each in answers if isinstance(each, httpx.HTTPError)]
        learned.append(sorted(type(transport_error(error)).__name__ for error in errors))
        await client.aclose()
    server.close()
    assert learned[0] == learned[1]
    assert learned[0], "nothing failed, so nothing was compared"


async def test_a_refused_connection_never_left_us() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = provider_client(f"http://127.0.0.1:{port}", call_total_s=0.5, connect_s=0.3, max_connections=2)
    with pytest.raises(httpx.HTTPError) as raised:
        await client.post("/v1/transfers", json={})
    assert isinstance(transport_error(raised.value), NotSent)
    await client.aclose()
