"""Waiting for what a test needs to see, and telling a broken promise from a machine that stood still."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

PATIENCE_S = 40.0
"""How long a test waits for what must come: long enough for a machine that is busy with something else."""


async def until(true: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Return once `true()` holds. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not true():  # noqa: ASYNC110 - bounded by the time-out
            await asyncio.sleep(0.01)


async def until_async(true: Callable[[], Awaitable[object]], timeout_s: float = PATIENCE_S) -> None:
    """Return once `await true()` holds. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not await true():  # noqa: ASYNC110 - bounded by the time-out
            await asyncio.sleep(0.01)


@dataclass
class Stalls:
    """The longest time in which this process or the server that it asked did nothing."""

    longest_s: float = 0.0


@asynccontextmanager
async def watching_for_stalls(ask_server: Callable[[], Awaitable[object]]) -> AsyncIterator[Stalls]:
    """Measure, beside what is done inside, how long this process and the server stand still at most."""
    seen = Stalls()

    async def watch() -> None:
        before = time.monotonic()
        while True:
            await ask_server()
            await asyncio.sleep(0.01)
            now = time.monotonic()
            seen.longest_s, before = max(seen.longest_s, now - before), now

    watcher = asyncio.create_task(watch())
    try:
        yield seen
        await asyncio.sleep(0.02)
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


async def unless_stalled(
    trial: Callable[[], Awaitable[None]], ask_server: Callable[[], Awaitable[object]], most_s: float, trials: int = 10
) -> None:
    """Run a trial whose promise holds only while nothing stands still for `most_s`; repeat it where something did.

    Raises the trial's AssertionError if everything ran, or if every one of the trials was disturbed.
    """
    for left in reversed(range(trials)):
        async with watching_for_stalls(ask_server) as stalls:
            try:
                await trial()
            except AssertionError:
                await asyncio.sleep(0.02)
                if not left or stalls.longest_s < most_s:
                    raise
            else:
                return
