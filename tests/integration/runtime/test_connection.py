"""Connections to the core: kept, never shared by two requests, and closed when left in the middle of an answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from adapters.runtime.connection import ConnectionFailedError, KeptConnections

Reply = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Answers each request by `reply`; says how many connections it was given."""

    reply: Reply
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    url: str = ""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                self.heads.append(head)
                await self.reply(await reader.readexactly(length), writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def http(body: bytes, *more: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *more, b"", body]
    return b"\r\n".join(lines)


async def echo(body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(http(body))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server(echo)
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield made
    listening.close()
    for writer in made.writers:
        writer.close()
    await listening.wait_closed()


async def ask(connections: KeptConnections, body: bytes, timeout_s: float = 2.0) -> tuple[int, bytes]:
    return await connections.ask("POST", "/p", {"A": "b"}, body, timeout_s)


async def test_requests_one_after_another_share_a_connection_and_at_once_do_not(server: Server) -> None:
    connections = KeptConnections(server.url)
    for at in range(5):
        assert await ask(connections, b"%d" % at) == (200, b"%d" % at)
    assert server.connections == 1
    assert server.heads[0].startswith(b"POST /p HTTP/1.1\r\nHost: 127.0.0.1:")
    answers = await asyncio.gather(*(ask(connections, b"%d" % at) for at in range(20)))
    assert answers == [(200, b"%d" % at) for at in range(20)]
    connections.close()


async def test_an_answer_that_comes_too_late_is_never_read_by_the_next_request(server: Server) -> None:
    async def slow_first(body: bytes, writer: asyncio.StreamWriter) -> None:
        if body == b"first":
            await asyncio.sleep(0.15)
        writer.write(http(body))

    server.reply = slow_first
    connections = KeptConnections(server.url)
    assert await ask(connections, b"warm") == (200, b"warm")
    with pytest.raises(ConnectionFailedError, match="in time"):
        await ask(connections, b"first", timeout_s=0.05)
    cancelled = asyncio.create_task(ask(connections, b"first"))
    await asyncio.sleep(0.05)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await asyncio.sleep(0.2)
    assert await ask(connections, b"second") == (200, b"second")
    connections.close()


async def test_an_answer_in_pieces_is_whole_and_two_answers_to_one_request_end_the_connection(server: Server) -> None:
    async def pieces(body: bytes, writer: asyncio.StreamWriter) -> None:
        chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        for at in range(0, len(chunked), 7):
            writer.write(chunked[at : at + 7])
            await writer.drain()
            await asyncio.sleep(0.001)
        if body == b"twice":
            writer.write(http(b"unasked"))

    server.reply = pieces
    connections = KeptConnections(server.url)
    assert await ask(connections, b"once") == (200, b"abc")
    assert await ask(connections, b"twice") == (200, b"abc")
    await asyncio.sleep(0.05)
    assert await ask(connections, b"once") == (200, b"abc")
    assert server.connections == 2
    connections.close()


@pytest.mark.parametrize("said", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", b""])
async def test_what_is_no_whole_answer_is_none(server: Server, said: bytes) -> None:
    async def broken(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    server.reply = broken
    connections = KeptConnections(server.url)
    with pytest.raises(ConnectionFailedError):
        await ask(connections, b"x")
    server.reply = echo
    assert await ask(connections, b"y") == (200, b"y")
    connections.close()


async def test_a_connection_that_the_server_ends_is_not_used_again(server: Server) -> None:
    async def last(body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(body, b"connection: close", status=b"503 Away"))

    server.reply = last
    connections = KeptConnections(server.url)
    assert await ask(connections, b"x") == (503, b"x")
    server.reply = echo
    assert await ask(connections, b"y") == (200, b"y")
    server.writers[-1].close()
    await asyncio.sleep(0.05)
    assert await ask(connections, b"z") == (200, b"z")
    assert server.connections == 3
    connections.close()


async def test_nobody_there_and_a_header_of_two_lines_are_told_apart(server: Server) -> None:
    with pytest.raises(ConnectionFailedError):
        await ask(KeptConnections("http://127.0.0.1:1"), b"x")
    with pytest.raises(ValueError, match="one line"):
        await KeptConnections(server.url).ask("POST", "/p", {"A": "b\r\nC: d"}, b"", 1)
    with pytest.raises(ValueError, match="http"):
        KeptConnections("ftp://core")
