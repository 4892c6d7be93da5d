"""Figures about waiting work, read at the observer's pace and never by a scrape."""

from typing import Final

from core.store.database import Database
from core.store.settling.outbox import paused_row

_FIGURES: Final = f"""
WITH waiting AS (
    SELECT o.stream, count(*)::float8 AS depth,
        greatest(0, extract(epoch FROM now() - min(o.not_before) FILTER (WHERE o.not_before <= now()
            AND NOT ((SELECT EXISTS (SELECT FROM fleet.rail_pauses)) AND {paused_row("fleet.rail_pauses")})
        )))::float8 AS age
    FROM fleet.outbox o GROUP BY o.stream
), held AS (
    SELECT rail, count(*)::float8 AS holds, extract(epoch FROM now() - min(created_at))::float8 AS age
    FROM fleet.jobs WHERE closed_at IS NULL AND kind IN ('pay', 'refund') GROUP BY rail
), broken AS (
    SELECT kind, count(*)::float8 AS breaks, extract(epoch FROM now() - min(first_seen_at))::float8 AS age
    FROM fleet.breaks WHERE state IN ('OPEN', 'PROPOSED') GROUP BY kind
), awaited AS (
    -- A register is expected where the account ever had one, or where a comparison missed it.
    SELECT d.rail, count(*)::float8 AS days, extract(epoch FROM now() - min(d.wanted_at))::float8 AS age
    FROM fleet.register_days d
    WHERE (d.fetched_at IS NULL OR d.fetched_at < d.wanted_at) AND d.business_day > current_date - 14
        AND (EXISTS (SELECT FROM fleet.register_files f WHERE f.rail = d.rail
                AND f.provider_account = d.provider_account AND f.environment = d.environment)
            OR EXISTS (SELECT FROM fleet.breaks b WHERE b.kind = 'register_absent' AND b.state IN ('OPEN', 'PROPOSED')
                AND b.rail = d.rail AND b.provider_account = d.provider_account AND b.environment = d.environment
                AND b.business_day = d.business_day))
    GROUP BY d.rail
)
SELECT 'outbox_depth' AS figure, stream AS label, '' AS second, depth AS value FROM waiting
UNION ALL
SELECT 'outbox_age', stream, '', age FROM waiting
UNION ALL
SELECT 'holds', rail, '', holds FROM held
UNION ALL
SELECT 'hold_age', rail, '', age FROM held
UNION ALL
SELECT 'parked', '', '', count(*)::float8 FROM fleet.intents WHERE parked_at IS NOT NULL AND state = 'UNRESOLVED'
UNION ALL
SELECT 'parked_age', '', '', coalesce(extract(epoch FROM now() - min(parked_at)), 0)::float8
FROM fleet.intents WHERE parked_at IS NOT NULL AND state = 'UNRESOLVED'
UNION ALL
SELECT 'in_review', '', '', count(*)::float8 FROM fleet.intents WHERE review_until IS NOT NULL
UNION ALL
SELECT 'alerts_open', severity, kind, count(*)::float8 FROM fleet.alerts WHERE closed_at IS NULL
GROUP BY severity, kind
UNION ALL
SELECT 'dead_letters_open', rail, '', count(*)::float8 FROM fleet.dead_letters WHERE state = 'OPEN' GROUP BY rail
UNION ALL
SELECT 'dead_letter_age', rail, '', extract(epoch FROM now() - min(received_at))::float8
FROM fleet.dead_letters WHERE state = 'OPEN' GROUP BY rail
UNION ALL
SELECT 'entries_parked', stream, '', count(*)::float8 FROM fleet.parked_entries WHERE readded_at IS NULL GROUP BY stream
UNION ALL
SELECT 'rail_paused', rail, '', 1 FROM fleet.rail_pauses WHERE operation = '*'
UNION ALL
SELECT 'rail_waiting', rail, cause, extract(epoch FROM now() - min(began_at))::float8
FROM fleet.rail_waits WHERE holds_until > now() GROUP BY rail, cause
UNION ALL
SELECT 'registers_awaited', rail, '', days FROM awaited
UNION ALL
SELECT 'registers_awaited_age', rail, '', age FROM awaited
UNION ALL
SELECT 'breaks_open', kind, '', breaks FROM broken
UNION ALL
SELECT 'break_age', kind, '', age FROM broken
UNION ALL
SELECT 'database_bytes', '', '', pg_database_size(current_database())::float8
"""  # noqa: S608 - a constant

# Every debit has its credit, in each ledger: any difference is money out of nothing.
_IMBALANCE: Final = """
SELECT 'imbalance' AS figure, ledger::text AS label, '' AS second,
    (abs(sum(debits_pending) - sum(credits_pending)) + abs(sum(debits_posted) - sum(credits_posted)))::float8 AS value
FROM fleet.accounts GROUP BY ledger
"""

Figure = tuple[str, str, str, float]
"""A figure's name, its labels (empty where it has fewer) and its value; ages are in seconds."""


async def read_figures(database: Database) -> list[Figure]:
    """Return everything that waits."""
    return await _read(database, _FIGURES)


async def read_imbalance(database: Database) -> list[Figure]:
    """Return how much each ledger is out of balance: 0, or somebody has to be woken. It reads every account."""
    return await _read(database, _IMBALANCE)


async def _read(database: Database, statement: str) -> list[Figure]:
    async with database.acquire() as connection:
        rows = await connection.fetch(statement)
    return [(row["figure"], row["label"], row["second"], row["value"]) for row in rows]
