"""One rail's provider is dead for as long as its payments can wait: the other rail neither waits nor piles up."""

import asyncio
import os
import signal
import time

import pytest

from schemas.streams import ADAPTERS_GROUP, jobs_stream
from tests.chaos.conftest import Fleet, check
from wire.client import connect_redis

pytestmark = [pytest.mark.chaos, pytest.mark.long]

DEAD_S = 12.0
"""Many times T_psp of the scaled profile, as minutes are of the usual one."""
BOUND = 20


async def backlog(client: object, rail: str) -> int:
    """Return how many jobs of the rail's stream are unread or unfinished."""
    groups = await client.xinfo_groups(jobs_stream(rail))  # type: ignore[attr-defined]
    own = next(each for each in groups if each["name"] == ADAPTERS_GROUP.encode())
    return int(own["lag"] or 0) + int(own["pending"])


async def test_while_one_provider_stands_still_the_others_backlog_stays_bounded_and_all_is_paid_in_the_end(
    fleet: Fleet,
) -> None:
    client = connect_redis(fleet.stack.info.redis_url, "chaos")
    dead = fleet.stack.supervisor.pids()["sbp-simulator"]
    waiting = fleet.rouble_payments(30)
    os.kill(dead, signal.SIGSTOP)
    try:
        held = asyncio.create_task(fleet.send(waiting))
        began, rounds, most = time.monotonic(), 0, 0
        while time.monotonic() - began < DEAD_S:
            run = await fleet.pay(10)
            assert run.ends["SETTLED"] == 10, run
            rounds, most = rounds + 1, max(most, await backlog(client, "promptpay"))
        assert (rounds >= 3, most <= BOUND) == (True, True), (rounds, most)
        assert not held.done()
    finally:
        os.kill(dead, signal.SIGCONT)
        await client.aclose()
    await check(fleet, await held, 30)
