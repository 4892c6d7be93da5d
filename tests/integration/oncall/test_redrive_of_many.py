"""A redrive of 10,000 letters by the worker as it is run, on real servers: each job once, in flat memory."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from core.services.settling.settle_by_hand import approve
from fleet.stack.provision import RoleUrls
from schemas.streams import ADAPTERS_GROUP, jobs_stream
from tests.integration.oncall.conftest import bury
from tests.integration.oncall.test_redrives import FAST, ask, person, shown
from tests.integration.permits.conftest import RAIL, World, pay_job

ROOT = Path(__file__).parents[3]
JOBS = jobs_stream(RAIL)
LETTERS, WARM = 10_000, 1000
GROWTH_MAX_KIB = 16 * 1024
"""How much a worker may grow between the letter number WARM and the last: less than what 9,000 kept jobs take."""
SECONDS_MAX = 90


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_each_of_10000_letters_goes_once_through_a_worker_that_does_not_grow(
    world: World, fresh_database: RoleUrls, fresh_redis: str
) -> None:
    jobs = {pay_job(intent) for intent in await _dead(world)}
    view = await ask(world, **FAST, stop_at_percent=100)
    assert (view.state, view.total) == ("AWAITING_APPROVAL", LETTERS)
    await approve(world.core.worker_ports, person(world, "ben"), view.id, "seen")
    async with _worker(world, fresh_database, fresh_redis) as worker, Redis.from_url(fresh_redis) as streams:
        async with asyncio.timeout(SECONDS_MAX):
            seen, grown_kib = await _read_all(world.admin, streams, worker)
            while True:
                done = await shown(world, view.id)
                if done.state != "RUNNING":
                    break
                await asyncio.sleep(0.1)
        # Nothing comes a second time either, now that the redrive has ended.
        assert await streams.xreadgroup(ADAPTERS_GROUP, "late", {JOBS: ">"}, count=1) in ([], {})
    assert (done.state, done.total, done.progress.succeeded) == ("DONE", LETTERS, LETTERS)
    assert set(seen) == jobs
    assert set(seen.values()) == {1}
    rounds = await world.admin.fetch("SELECT rounds, count(*) AS jobs FROM fleet.jobs GROUP BY rounds")
    assert {row["rounds"]: row["jobs"] for row in rounds} == {1: LETTERS}
    assert grown_kib < GROWTH_MAX_KIB


async def _dead(world: World) -> list[UUID]:
    """Make payments whose jobs died before any permit, as `bury` gives up; return the intents."""
    wallet = await world.wallet(LETTERS * 100)
    intents: list[UUID] = []
    for _ in range(0, LETTERS, 500):
        made = await asyncio.gather(*(world.pay(wallet) for _ in range(500)))
        await bury(world, *made)
        intents += made
    # What their first round left: a relay that ran would have taken these before they died.
    await world.admin.execute("DELETE FROM fleet.outbox")
    await world.admin.execute("ANALYZE fleet.jobs, fleet.intents, fleet.dead_letters")
    return intents


@asynccontextmanager
async def _worker(world: World, urls: RoleUrls, redis_url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run all of the core that works by itself."""
    settings = {
        "DATABASE_URL": urls.app, "DATABASE_WORKER_URL": urls.worker, "REDIS_URL": redis_url, "FLEET_RAILS": RAIL,
        "FLEET_MASTER_KEY": world.core.settings.master_key.get_secret_value(),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "core", "relay", "settler", "resolver", cwd=ROOT, env=os.environ | settings
    )
    try:
        yield process
    finally:
        process.terminate()
        assert await process.wait() == 0


async def _read_all(
    admin: asyncpg.Connection, streams: Any, worker: asyncio.subprocess.Process
) -> tuple[Counter[UUID], int]:
    """Take every job from the stream as an adapter does, and let it be answered; return each, and the growth in KiB."""
    seen: Counter[UUID] = Counter()
    warm_kib = most_kib = 0
    while len(seen) < LETTERS:
        try:
            found = await streams.xreadgroup(ADAPTERS_GROUP, "reader", {JOBS: ">"}, count=500, block=200)
        except ResponseError:  # The worker has not made the group yet.
            await asyncio.sleep(0.1)
            continue
        entries = found[0][1] if found else []
        took = [UUID(fields[b"id"].decode()) for _, fields in entries]
        if took:
            await streams.xack(JOBS, ADAPTERS_GROUP, *(entry for entry, _ in entries))
            await admin.execute("UPDATE fleet.jobs SET state = 'WAITING' WHERE id = ANY ($1)", took)
        seen.update(took)
        if len(seen) >= WARM:
            most_kib = max(most_kib, _rss_kib(worker.pid))
            warm_kib = warm_kib or most_kib
    return seen, most_kib - warm_kib


def _rss_kib(pid: int) -> int:
    """Return the memory that a process holds, as the system counts it."""
    return psutil.Process(pid).memory_info().rss // 1024
