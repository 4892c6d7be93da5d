"""Payments that ended unpaid and were told of as paid afterwards, in PostgreSQL."""

from collections.abc import Sequence
from typing import Any, Final

from core.services.settling.facts import Doubt, Doubted, NextAsk
from core.store.settling.jobs import JOB_COLUMNS, job_of
from core.store.unit_of_work import UnitOfWork
from schemas.collections import ProviderPayment

# Where a fact says already that it was paid, that is booked. One that was asked about before is asked about anew,
# except where it was found paid.
INTO_DOUBTED: Final = "INSERT INTO fleet.doubted_ends (job_id, tenant_id, intent_id, rail, told_by, next_ask_at)"
DOUBTED_AGAIN: Final = """
ON CONFLICT (job_id) DO UPDATE SET told_by = excluded.told_by, told_at = now(), next_ask_at = now(), answer = NULL,
        question_id = NULL
    WHERE doubted_ends.next_ask_at IS NULL AND doubted_ends.answer NOT IN ('SUCCEEDED', 'RETURNED')"""
_UNPAID: Final = """i.state IN ('FAILED', 'CANCELLED', 'EXPIRED') AND NOT EXISTS (
        SELECT FROM fleet.jobs q JOIN fleet.facts f ON f.job_id = q.id
        WHERE q.intent_id = i.id AND f.verdict IN ('SUCCEEDED', 'RETURNED') AND f.quarantine IS NULL)"""
_DOUBT: Final = f"""
{INTO_DOUBTED}
SELECT DISTINCT ON (j.id) j.id, j.tenant_id, j.intent_id, j.rail, t.source, now()
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS t(account, environment, reference, source)
JOIN fleet.jobs j ON j.reference = t.reference AND j.closed_at IS NOT NULL AND j.kind IN ('pay', 'refund')
    AND j.outcome <> 'SUCCEEDED'
JOIN fleet.intents i ON i.id = j.intent_id
WHERE j.rail = $1 AND j.provider_account = t.account AND j.environment = t.environment AND {_UNPAID}
{DOUBTED_AGAIN}
RETURNING job_id, tenant_id, intent_id, (SELECT reference FROM fleet.jobs WHERE id = job_id) AS reference
"""  # noqa: S608 - constants

# What it was asked last is read with it: an answer, where there is one, is the outcome of the question.
_DUE: Final = f"""
SELECT {JOB_COLUMNS}, d.asks, q.outcome AS answer, q.closed_at IS NULL AND q.state <> 'DEAD' AS asked,
    d.question_id IS NULL AS anew
FROM fleet.doubted_ends d JOIN fleet.jobs j ON j.id = d.job_id LEFT JOIN fleet.jobs q ON q.id = d.question_id
WHERE d.next_ask_at <= now() ORDER BY d.next_ask_at LIMIT $1 FOR UPDATE OF d SKIP LOCKED
"""  # noqa: S608 - a constant list of columns

_NOTE: Final = """
UPDATE fleet.doubted_ends d SET asks = d.asks + CASE WHEN n.question_id IS NULL THEN 0 ELSE 1 END,
    question_id = coalesce(n.question_id, d.question_id), answer = n.answer,
    next_ask_at = now() + n.after_s * interval '1 second'
FROM unnest($1::uuid[], $2::uuid[], $3::float8[], $4::text[]) AS n(job_id, question_id, after_s, answer)
WHERE d.job_id = n.job_id
"""


class DoubtedEndStore:
    """See `core.services.settling.facts.DoubtedEnds`."""

    async def doubt(self, uow: UnitOfWork, rail: str, told: Sequence[ProviderPayment]) -> list[Doubted]:
        """Note which payments that ended unpaid these facts call paid; return those that are new, or told of anew."""
        if not told:
            return []
        rows = await uow.connection.fetch(
            _DOUBT,
            rail,
            [fact.provider_account for fact in told],
            [fact.environment for fact in told],
            [fact.reference for fact in told],
            [fact.source for fact in told],
        )
        return [Doubted(*row) for row in rows]

    async def due(self, uow: UnitOfWork, limit: int) -> list[Doubt]:
        """Lock and return what is to be looked at now; what another resolver holds is left to it."""
        rows = await uow.connection.fetch(_DUE, limit)
        return [Doubt(job_of(row), row["asks"], row["answer"], bool(row["asked"]), row["anew"]) for row in rows]

    async def note(self, uow: UnitOfWork, asks: Sequence[NextAsk]) -> None:
        """Keep what was asked, when it is looked at again, and what ended."""
        if asks:
            columns: list[list[Any]] = [[each[place] for each in asks] for place in range(4)]
            await uow.connection.execute(_NOTE, *columns)
