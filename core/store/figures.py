"""Figures about waiting work, read when somebody looks."""

from typing import Final

from core.store.database import Database

_FIGURES: Final = """
SELECT 'outbox_depth' AS figure, stream AS label, count(*)::float8 AS value FROM fleet.outbox GROUP BY stream
UNION ALL
SELECT 'outbox_age', stream, greatest(0, extract(epoch FROM now() - min(not_before)))::float8
FROM fleet.outbox GROUP BY stream
UNION ALL
SELECT 'parked', '', count(*)::float8 FROM fleet.intents WHERE parked_at IS NOT NULL AND state = 'UNRESOLVED'
UNION ALL
SELECT 'parked_age', '', coalesce(extract(epoch FROM now() - min(parked_at)), 0)::float8
FROM fleet.intents WHERE parked_at IS NOT NULL AND state = 'UNRESOLVED'
UNION ALL
SELECT 'in_review', '', count(*)::float8 FROM fleet.intents WHERE review_until IS NOT NULL
UNION ALL
SELECT 'alerts_open', severity, count(*)::float8 FROM fleet.alerts WHERE closed_at IS NULL GROUP BY severity
UNION ALL
SELECT 'dead_letters_open', rail, count(*)::float8 FROM fleet.dead_letters WHERE state = 'OPEN' GROUP BY rail
UNION ALL
SELECT 'entries_parked', stream, count(*)::float8 FROM fleet.parked_entries WHERE readded_at IS NULL GROUP BY stream
"""


async def read_figures(database: Database) -> list[tuple[str, str, float]]:
    """Return (figure, label, value) of everything that waits; ages are in seconds."""
    async with database.acquire() as connection:
        return [(row["figure"], row["label"], row["value"]) for row in await connection.fetch(_FIGURES)]
