"""From POST to SETTLED at a steady rate, warm, with the cold start beside it."""

import asyncio
import time
from uuid import UUID

from bench.load import Load
from bench.loop import bench_stack, settled
from bench.measurement import Measurement, at_most, shown
from core.domain.context import Context
from core.store.database import Database

_SPANS = """
    SELECT i.id, extract(epoch FROM e.at)::double precision AS settled_at
      FROM fleet.intents i JOIN fleet.intent_events e ON e.intent_id = i.id AND e.state = 'SETTLED'
     WHERE i.id = ANY($1)
"""


async def run(seconds: float = 15.0) -> list[Measurement]:
    """Measure p50 and p99 at 100 and 200 intents a second."""
    found: list[Measurement] = []
    async with bench_stack() as (_, load, database):
        cold = await _spans(load, database, 100, 2.0, 1_000_000)
        found.append(shown("POST to SETTLED, first two seconds after the start, p99", _percentile(cold, 99), "ms"))
        for rate, goal in ((100, 30), (200, 60)):
            spans = await _spans(load, database, rate, seconds, rate * 100_000)
            found.append(shown(f"POST to SETTLED at {rate}/s, p50", _percentile(spans, 50), "ms"))
            found.append(at_most(f"POST to SETTLED at {rate}/s, p99", _percentile(spans, 99), "ms", goal))
    return found


async def _spans(load: Load, database: Database, rate: int, seconds: float, first_number: int) -> list[float]:
    """Return milliseconds from sending the request to the commit's time of the settling event, for each intent.

    Both clocks are this machine's; the event's time is its transaction's begin, so the settling commit is added by
    measuring until the row can be read is left out: it is below a millisecond here.
    """
    first_id = UUID(int=time.time_ns() // 1_000_000 << 80)
    sent_at: dict[UUID, float] = {}
    tasks = []

    async def one(number: int) -> None:
        at = time.time()
        sent_at[await load.pay_one(number)] = at

    started, total = time.monotonic(), int(rate * seconds)
    for number in range(total):
        wait_s = started + number / rate - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        tasks.append(asyncio.create_task(one(first_number + number)))
    await asyncio.gather(*tasks)
    await settled(database, first_id, total)
    async with database.unit_of_work(Context(None, "bench")) as uow:
        rows = await uow.connection.fetch(_SPANS, list(sent_at))
    return sorted((row["settled_at"] - sent_at[row["id"]]) * 1000 for row in rows)


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
