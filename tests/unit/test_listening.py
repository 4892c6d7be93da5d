"""The listener of the tests themselves: what is left open at its end would fail a later test."""

import asyncio
from contextlib import suppress

import pytest

from tests.support.listening import listening
from tests.support.waiting import PATIENCE_S


async def test_what_is_still_served_when_the_block_ends_is_cut_off() -> None:
    at_work, writers = asyncio.Event(), list[asyncio.StreamWriter]()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        at_work.set()
        await asyncio.Event().wait()

    async with listening(hang) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await at_work.wait()
    assert writers[0].transport.get_extra_info("socket").fileno() == -1, "closed by the end of the block"
    async with asyncio.timeout(PATIENCE_S):
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_a_connection_ends_with_what_serves_it_and_a_peer_that_goes_away_is_no_error() -> None:
    async def read(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)

    async with listening(read) as port, asyncio.timeout(PATIENCE_S):
        for sent in (b"12", b"1"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            if sent == b"1":
                writer.write_eof()
            assert await reader.read() == b""
            writer.close()


async def test_what_goes_wrong_in_serving_fails_the_block() -> None:
    async def fail(*_: object) -> None:
        raise ValueError("a header without a colon")

    async def call() -> None:
        async with listening(fail) as port, asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()

    with pytest.raises(ValueError, match="without a colon"):
        await call()
