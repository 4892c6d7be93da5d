"""One rail's provider is dead for as long as its payments can wait: the other rail neither waits nor piles up."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from statistics import median

import pytest

from schemas.streams import ADAPTERS_GROUP, jobs_stream
from tests.chaos.conftest import Fleet, check
from wire.client import connect_redis

pytestmark = [pytest.mark.chaos, pytest.mark.long]

DEAD = 30
"""Payments that are asked of the dead provider."""
DEAD_S = 12.0
"""Many times T_psp of the scaled profile, as minutes are of the usual one."""
PER_S = 4
"""Offered all the time, whether or not what came before has ended; far below what two adapters can do."""
MORE = 2 * PER_S
"""What two seconds offer, beside what a slow machine holds anyway; one that stood still would hold DEAD_S * PER_S."""


async def backlog(client: object, rail: str) -> int:
    """Return how many jobs of the rail's stream are unread or unfinished."""
    groups = await client.xinfo_groups(jobs_stream(rail))  # type: ignore[attr-defined]
    own = next(each for each in groups if each["name"] == ADAPTERS_GROUP.encode())
    return int(own["lag"] or 0) + int(own["pending"])


@dataclass(frozen=True, slots=True)
class Offered:
    """What became of payments that were offered at a fixed rate."""

    most: int
    """The largest backlog that was seen meanwhile."""
    usually: float
    """The median of how many payments were unfinished, wherever, as each was sent."""
    most_unfinished: int
    median_s: float
    """From the request to the end of the payment."""


async def offered(fleet: Fleet, client: object, for_s: float) -> Offered:
    """Send PER_S payments over PromptPay each second, waiting for none of them; then until the last has settled."""

    async def one() -> float:
        began = time.monotonic()
        run = await fleet.pay(1)
        assert run.ends["SETTLED"] == 1, run
        return time.monotonic() - began

    most, until, paying = 0, time.monotonic() + for_s, list[asyncio.Task[float]]()
    counts = list[int]()
    while time.monotonic() < until:
        paying.append(asyncio.create_task(one()))
        most = max(most, await backlog(client, "promptpay"))
        counts.append(await fleet.unfinished("promptpay"))
        await asyncio.sleep(1 / PER_S)
    return Offered(most, median(counts), max(counts), median(await asyncio.gather(*paying)))


async def test_while_one_provider_stands_still_the_others_backlog_stays_bounded_and_all_is_paid_in_the_end(
    fleet: Fleet,
) -> None:
    client = connect_redis(fleet.stack.info.redis_url, "chaos")
    dead = fleet.stack.supervisor.pids()["sbp-simulator"]
    waiting = fleet.rouble_payments(DEAD)
    await offered(fleet, client, 1)  # opens the wallets
    before = await offered(fleet, client, DEAD_S / 2)
    os.kill(dead, signal.SIGSTOP)
    try:
        held = asyncio.create_task(fleet.send(waiting))
        beside = await offered(fleet, client, DEAD_S)
        assert not held.done()
        assert await fleet.unfinished("sbp") == DEAD, "the dead provider's payments ended: nothing was shown"
        assert beside.most <= before.most + MORE, (before, beside)
        # Counted, not timed: what waits in PostgreSQL for a closed gate is in no stream, and ends late all the same.
        assert beside.usually <= before.usually + 2, (before, beside)
        assert beside.most_unfinished <= before.most_unfinished + MORE, (before, beside)
        assert beside.median_s <= 2 * before.median_s + 1, (before, beside)
    finally:
        os.kill(dead, signal.SIGCONT)
        await client.aclose()
    await check(fleet, await held, DEAD)
