"""From POST to SETTLED at a steady rate, warm, with the cold start beside it."""

import time
from uuid import UUID

import orjson

from bench.load import Load
from bench.loop import bench_stack, settled
from bench.measurement import Measurement, at_most, shown
from bench.posts import payments, post_paced
from core.domain.context import Context
from core.store.database import Database

_SPANS = """
    SELECT e.intent_id AS id, extract(epoch FROM pg_xact_commit_timestamp(e.xmin))::double precision AS settled_at
      FROM fleet.intent_events e
     WHERE e.intent_id = ANY($1) AND e.state = 'SETTLED'
"""

_CONNECTIONS = 50


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
    """Return milliseconds from sending the request to the commit that settled it, for each intent.

    Both clocks are this machine's. Servers of your own need track_commit_timestamp.
    """
    first_id, total = UUID(int=time.time_ns() // 1_000_000 << 80), int(rate * seconds)
    # Made and signed beforehand: the client's work is no part of what is measured.
    requests = payments(load, range(first_number, first_number + total))
    answers = await post_paced(load.info.public_url, requests, rate, _CONNECTIONS)
    sent_at = {UUID(orjson.loads(body)["id"]): at for at, body in answers}
    await settled(database, first_id, total)
    async with database.unit_of_work(Context(None, "bench")) as uow:
        rows = await uow.connection.fetch(_SPANS, list(sent_at))
    return sorted((row["settled_at"] - sent_at[row["id"]]) * 1000 for row in rows)


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
