"""The client against a real server: what it must never do to the task that uses it."""

import asyncio

import hiredis
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from wire.client import connect_redis


async def test_a_cancelled_task_ends_wherever_in_a_command_the_cancellation_finds_it(fresh_redis: str) -> None:
    client = connect_redis(fresh_redis, "cancelled")

    async def ask_for_ever() -> None:
        while True:
            await client.ping()

    for steps in range(120):
        task = asyncio.create_task(ask_for_ever())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        _, left = await asyncio.wait([task], timeout=10)
        for each in left:
            each.cancel()
        assert not left, f"the cancellation was lost {steps} steps of the loop after the start"
    mine = [each for each in await client.client_list() if each["name"] == "cancelled"]
    assert len(mine) == 1, "each command gives its connection back, however it ends"
    await client.aclose()


async def test_a_command_whose_answer_is_lost_was_sent_once_and_the_next_one_finds_a_new_connection() -> None:
    told: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while data := await reader.read(4096):
            commands.feed(data)
            while (command := commands.gets()) is not False:
                told.append(command[0])
                if command[0] == b"INCRBY":
                    writer.close()
                    return
                writer.write(b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = connect_redis(f"redis://127.0.0.1:{port}?protocol=2", "lost")
        with pytest.raises(RedisConnectionError):
            await client.incr("payments")
        await client.ping()
        await client.aclose()
    assert told.count(b"INCRBY") == 1


async def test_what_follows_a_command_that_was_cancelled_half_written_gets_its_own_answer(fresh_redis: str) -> None:
    client = connect_redis(fresh_redis, "halved")
    for steps in range(1, 8):
        assert await client.echo("before") == b"before"
        task = asyncio.ensure_future(client.echo("first!" * 2_000_000))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await client.echo("second") == b"second"
    await client.aclose()


async def test_an_answer_that_comes_too_late_is_no_other_commands(fresh_redis: str) -> None:
    client, other = connect_redis(f"{fresh_redis}?socket_timeout=0.2", "late"), connect_redis(fresh_redis, "pauser")
    await client.set("a", "first")
    await other.execute_command("CLIENT", "PAUSE", 600, "ALL")  # type: ignore[no-untyped-call]  # untyped upstream
    with pytest.raises(RedisTimeoutError):
        await client.get("a")
    await asyncio.sleep(0.7)
    assert await client.echo("second") == b"second"
    for each in (client, other):
        await each.aclose()
