"""The whole loop: from POST to SETTLED, with an adapter process whose provider answers at once, on this machine."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import aiohttp

from bench.load import Load
from bench.measurement import Measurement, at_least, shown
from bench.posts import payments, post_all
from core.domain.context import Context
from core.store.database import Database
from fleet.stack.profile import STANDARD
from fleet.stack.stack import Stack, StackPlan, running

# The newest are settled last: an index read from its end answers at once until nearly all are done.
_NEWEST_OPEN = """SELECT id FROM fleet.intents WHERE id >= $1 AND operation = 'PAYOUT' AND state <> 'SETTLED'
                  ORDER BY id DESC LIMIT 1"""
_COUNT = """SELECT count(*) FROM fleet.intents WHERE operation = 'PAYOUT' AND id >= $1 AND state = 'SETTLED'"""
_STUCK_S = 60
_MOST_PER_S = 3_000


@asynccontextmanager
async def bench_stack(adapters: int = 1) -> AsyncIterator[tuple[Stack, Load, Database]]:
    """Run a stack with the no-op rail, and a funded client."""
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as home:
        # As many payments in flight as the provider, which answers at once, lets pass.
        wide = {"FLEET_BATCH": "1000", "FLEET_CONCURRENCY": "1000"}
        plan = StackPlan(
            Path(home),
            profile=STANDARD,
            rails={"noop": adapters},
            adapter_env=wide,
            # Latency counts to the commit that settles.
            postgres={"track_commit_timestamp": "on"},
        )
        async with running(plan) as stack:
            database = await Database.connect(stack.info.database_url, max_size=1, application_name="bench")
            connector = aiohttp.TCPConnector(limit=200)
            async with aiohttp.ClientSession(connector=connector) as http:
                load = Load(stack.info, http)
                await load.open_wallet()
                yield stack, load, database
            await database.close()


async def run(total: int = 100_000) -> list[Measurement]:
    """Measure the batch API through to settled over `total` intents, then single POSTs over 50 connections."""
    async with bench_stack() as (_, load, database):
        await load.pay_many(2_000, 500, 2)  # warm
        await settled(database, UUID(int=0), 2_000)
        await load.open_wallet()
        first, started = UUID(int=time.time_ns() // 1_000_000 << 80), time.monotonic()
        await load.pay_many(total, 500, 4)
        accepted_s = time.monotonic() - started
        await settled(database, first, total)
        settled_s = time.monotonic() - started
        single = await _single(load)
    return [
        shown(f"batch API, accepted over {total:,}", total / accepted_s, "intents/s"),
        at_least(f"whole loop, accepted to settled over {total:,}", total / settled_s, "intents/s", 3_000),
        at_least("single POSTs over 50 connections", single, "intents/s", 1_200),
    ]


async def settled(database: Database, first: UUID, wanted: int) -> None:
    """Wait until `wanted` payouts from `first` on are settled. Raises TimeoutError when nothing moves any more."""
    before, looked_at = -1, time.monotonic()
    while True:
        async with database.unit_of_work(Context(None, "bench")) as uow:
            waiting = await uow.connection.fetchval(_NEWEST_OPEN, first) is not None
            late = time.monotonic() - looked_at > _STUCK_S
            if not waiting or late:
                done = await uow.connection.fetchval(_COUNT, first)
                if done >= wanted:
                    return
                if late and done == before:
                    raise TimeoutError(f"{done} of {wanted} settled, and nothing moves")
                before, looked_at = done, time.monotonic()
        await asyncio.sleep(0.3)


async def _single(load: Load, seconds: float = 8.0, connections: int = 50) -> float:
    # More than can be answered, made before the clock runs: the client's work is no part of what is measured.
    requests = payments(load, range(int(seconds * _MOST_PER_S)))
    return await post_all(load.info.public_url, requests, connections, seconds)
