"""The shape of every background loop: one step again and again, with backoff, until it is cancelled."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial

from wire.pulse import PULSE, Beat

log = logging.getLogger(__name__)

SIGN_OF_LIFE_S = 60.0
"""Well under what counts as stalled (wire.pulse)."""


async def forever(name: str, step: Callable[[], Awaitable[float]], *, slow: bool = False) -> None:
    """Run `step` until cancelled; it returns how many seconds to wait before the next.

    A `slow` step may take longer than what counts as stalled: whoever gives it has bounded it.

    Any error is logged when it begins and when it ends, and retried after a jittered, growing wait: a loop that
    died of an unforeseen error would be a fault that nobody sees.
    """
    beat = PULSE.start(name.removeprefix("the "))
    try:
        await _turn(name, partial(_alive, step, beat) if slow else step, beat)
    finally:
        PULSE.end(beat)


async def _turn(name: str, step: Callable[[], Awaitable[float]], beat: Beat) -> None:
    failures = 0
    while True:
        beat.beat()
        try:
            wait_s = await step()
        except Exception as error:  # noqa: BLE001 - it is logged, and the loop must outlive it
            failures += 1
            if failures == 1:
                log.warning("%s fails: %s: %s", name, type(error).__name__, error)
            wait_s = random.uniform(0.5, 1.0) * min(5.0, 0.1 * 2 ** min(failures, 6))  # noqa: S311 - jitter
        else:
            if failures:
                log.warning("%s works again after %d failures", name, failures)
            failures = 0
        await _rest(wait_s, beat)


async def _alive(step: Callable[[], Awaitable[float]], beat: Beat) -> float:
    """Run a step with a sign of life now and then; cancelled with it."""
    signs = asyncio.create_task(_beat(beat))
    try:
        return await step()
    finally:
        signs.cancel()


async def _beat(beat: Beat) -> None:
    while True:
        await asyncio.sleep(SIGN_OF_LIFE_S)
        beat.beat()


async def _rest(wait_s: float, beat: Beat) -> None:
    """Wait, with a sign of life now and then: a loop that has its time until tomorrow is not one that hangs."""
    while wait_s > SIGN_OF_LIFE_S:
        await asyncio.sleep(SIGN_OF_LIFE_S)
        wait_s -= SIGN_OF_LIFE_S
        beat.beat()
    await asyncio.sleep(wait_s)
