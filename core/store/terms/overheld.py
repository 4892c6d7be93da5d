"""Limits that hold what no open payment has at them: looked for a page at a time, put right by what they differ."""

from collections.abc import Sequence
from datetime import date
from typing import Final
from uuid import UUID

from core.services.settling.completer import CounterPage, LimitCounter
from core.store.unit_of_work import UnitOfWork
from schemas.events import TERMINAL_STATES

_ENDED: Final = ", ".join(f"'{state}'" for state in sorted(TERMINAL_STATES))
_FIRST: Final = LimitCounter(UUID(int=0), "", date.min, UUID(int=0))
# Whatever is open has an open job, waits for a review or is parked: work in hand, and not history, is what this reads.
_PAGE: Final = f"""
WITH page AS (
    SELECT u.* FROM fleet.limit_usage u WHERE (u.limit_id, u.subject, u.period) > ($1, $2 COLLATE "C", $3)
    ORDER BY u.limit_id, u.subject, u.period LIMIT $4
), open_intents AS (
    SELECT intent_id AS id FROM fleet.jobs WHERE closed_at IS NULL
    UNION SELECT id FROM fleet.intents WHERE review_until IS NOT NULL
    UNION SELECT id FROM fleet.intents WHERE parked_at IS NOT NULL
), parts AS (
    SELECT (h.part->>0)::uuid AS limit_id, h.part->>1 AS subject, (h.part->>2)::date AS period,
        sum((h.part->>3)::bigint) AS minor, sum((h.part->>4)::integer) AS number
    FROM open_intents o JOIN fleet.intents i ON i.id = o.id
    CROSS JOIN jsonb_array_elements(i.limits->'held') AS h(part)
    WHERE EXISTS (SELECT FROM page p WHERE p.held_minor > 0 OR p.held_count > 0)
        AND i.limits ? 'held' AND i.state NOT IN ({_ENDED}) AND (h.part->>3)::bigint > 0
    GROUP BY 1, 2, 3
)
SELECT p.limit_id, p.subject, p.period, p.tenant_id,
    (p.held_minor, p.held_count) <> (coalesce(s.minor, 0), coalesce(s.number, 0)) AS differs
FROM page p LEFT JOIN parts s ON s.limit_id = p.limit_id AND s.subject = p.subject COLLATE "C" AND s.period = p.period
ORDER BY p.limit_id, p.subject, p.period
"""  # noqa: S608 - a constant
_IN_TURN: Final = """
SELECT pg_advisory_xact_lock(hashtextextended('fleet.overheld:' || $1::uuid || ':' || $2 || ':' || $3::date, 0))
"""
# A payment changes its counter and what it holds in one transaction, so one snapshot shows by how much a counter is
# wrong, and that stays true whatever payments do while the open ones are added up: the difference is put right, and the
# counter is locked for that moment alone. Every open payment counts here, also one that has no job: what may have been
# held in this period began at most so long before it.
_PUT_RIGHT: Final = f"""
WITH seen AS (
    SELECT held_minor, held_count FROM fleet.limit_usage
    WHERE limit_id = $1 AND subject = $2 COLLATE "C" AND period = $3
), sums AS (
    SELECT coalesce(sum((h.part->>3)::bigint), 0) AS minor, coalesce(sum((h.part->>4)::integer), 0) AS number
    FROM fleet.intents i CROSS JOIN jsonb_array_elements(i.limits->'held') AS h(part)
    WHERE i.tenant_id = $4 AND i.id >= fleet.first_id_at($3::date - interval '45 days') AND i.limits ? 'held'
        AND i.state NOT IN ({_ENDED}) AND (h.part->>0)::uuid = $1 AND h.part->>1 = $2 AND (h.part->>2)::date = $3
        AND (h.part->>3)::bigint > 0
), wrong AS MATERIALIZED (
    SELECT s.minor - w.held_minor AS minor, s.number - w.held_count AS number FROM seen w, sums s
)
UPDATE fleet.limit_usage u SET held_minor = u.held_minor + w.minor, held_count = u.held_count + w.number FROM wrong w
WHERE u.limit_id = $1 AND u.subject = $2 COLLATE "C" AND u.period = $3 AND (w.minor, w.number) <> (0, 0)
"""  # noqa: S608 - a constant


async def overheld_page(uow: UnitOfWork, after: LimitCounter | None, limit: int) -> CounterPage:
    """Return the counters of one page that hold something else than the open payments have at them."""
    behind = after or _FIRST
    rows = await uow.connection.fetch(_PAGE, behind.limit_id, behind.subject, behind.period, limit)
    counters = [LimitCounter(row["limit_id"], row["subject"], row["period"], row["tenant_id"]) for row in rows]
    differing: Sequence[LimitCounter] = [each for each, row in zip(counters, rows, strict=True) if row["differs"]]
    return CounterPage(tuple(differing), counters[-1] if len(counters) == limit else None)


async def put_right(uow: UnitOfWork, counter: LimitCounter) -> bool:
    """Let a counter hold what the open payments have at it; False where it does."""
    key = (counter.limit_id, counter.subject, counter.period)
    # Two that put the same counter right would do it twice; payments do not wait for either.
    await uow.connection.execute(_IN_TURN, *key)
    done: str = await uow.connection.execute(_PUT_RIGHT, *key, counter.tenant_id)
    return done.endswith("1")
