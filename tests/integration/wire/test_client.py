"""The client against a real server: what it must never do to the task that uses it."""

import asyncio

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
    await client.aclose()
