"""Payments that were told of as otherwise than they ended, in PostgreSQL."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from core.services.settling.facts import Doubt, Doubted, NextAsk
from core.store.settling.jobs import JOB_COLUMNS, job_of
from core.store.unit_of_work import UnitOfWork
from schemas.collections import PaymentStatus, ProviderPayment

# Where a fact says already that it was paid, that is booked. One that was asked about before is asked about anew,
# except where it was found paid; that it came back is news in any case.
INTO_DOUBTED: Final = (
    "INSERT INTO fleet.doubted_ends (job_id, tenant_id, intent_id, rail, told_by, next_ask_at, told_of)"
)
DOUBTED_AGAIN: Final = """
ON CONFLICT (job_id) DO UPDATE SET told_by = excluded.told_by, told_at = now(), next_ask_at = excluded.next_ask_at,
        answer = NULL, question_id = NULL, told_of = excluded.told_of
    WHERE CASE excluded.told_of WHEN 'RETURNED' THEN doubted_ends.told_of = 'PAID' OR doubted_ends.next_ask_at IS NULL
        ELSE doubted_ends.next_ask_at IS NULL AND doubted_ends.answer NOT IN ('SUCCEEDED', 'RETURNED') END"""
_UNPAID: Final = """(j.closed_at IS NOT NULL AND j.outcome IS DISTINCT FROM 'SUCCEEDED'
    AND i.state IN ('FAILED', 'CANCELLED', 'EXPIRED') AND NOT EXISTS (
        SELECT FROM fleet.jobs q JOIN fleet.facts f ON f.job_id = q.id
        WHERE q.intent_id = i.id AND f.verdict IN ('SUCCEEDED', 'RETURNED') AND f.quarantine IS NULL))"""
# Kept whatever the job's state is: whoever ends it now is not seen here, nor are we by them. Nearly all of those that
# are open settle at once, and are looked at a little later for that.
_DOUBT: Final = f"""
WITH told AS (
    SELECT DISTINCT ON (j.id) j.id, j.tenant_id, j.intent_id, j.rail, j.reference, t.source, t.told_of,
        j.closed_at IS NOT NULL AS closed, {_UNPAID} AS unpaid
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
        AS t(account, environment, reference, source, told_of)
    JOIN fleet.jobs j ON j.reference = t.reference AND j.kind IN ('pay', 'refund')
    JOIN fleet.intents i ON i.id = j.intent_id
    WHERE j.rail = $1 AND j.provider_account = t.account AND j.environment = t.environment
    ORDER BY j.id, t.told_of DESC
), kept AS (
    {INTO_DOUBTED}
    SELECT id, tenant_id, intent_id, rail, source,
        CASE WHEN closed THEN now() ELSE now() + interval '2 seconds' END, told_of
    FROM told WHERE unpaid OR NOT closed OR told_of = 'RETURNED'
    {DOUBTED_AGAIN}
    RETURNING job_id
)
SELECT id, tenant_id, intent_id, reference FROM told JOIN kept ON kept.job_id = told.id
WHERE unpaid AND told_of = 'PAID'
"""  # noqa: S608 - constants

# What it was asked last is read with it: an answer, where there is one, is the outcome of the question.
_DUE: Final = f"""
SELECT {JOB_COLUMNS}, d.asks, q.outcome AS answer, q.closed_at IS NULL AND q.state <> 'DEAD' AS asked,
    d.question_id IS NULL AS anew, d.told_of, d.told_by, extract(epoch FROM now() - d.told_at)::float8 AS age_s,
    {_UNPAID} AS unpaid
FROM fleet.doubted_ends d JOIN fleet.jobs j ON j.id = d.job_id JOIN fleet.intents i ON i.id = d.intent_id
LEFT JOIN fleet.jobs q ON q.id = d.question_id
WHERE d.next_ask_at <= now() ORDER BY d.next_ask_at LIMIT $1 FOR UPDATE OF d SKIP LOCKED
"""  # noqa: S608 - a constant list of columns

_NOTE: Final = """
UPDATE fleet.doubted_ends d SET asks = d.asks + CASE WHEN n.question_id IS NULL THEN 0 ELSE 1 END,
    question_id = coalesce(n.question_id, d.question_id), answer = n.answer,
    next_ask_at = now() + n.after_s * interval '1 second'
FROM unnest($1::uuid[], $2::uuid[], $3::float8[], $4::text[]) AS n(job_id, question_id, after_s, answer)
WHERE d.job_id = n.job_id
"""
_WITHDRAW: Final = "DELETE FROM fleet.doubted_ends WHERE job_id = ANY ($1::uuid[])"


class DoubtedEndStore:
    """See `core.services.settling.facts.DoubtedEnds`."""

    async def doubt(self, uow: UnitOfWork, rail: str, told: Sequence[ProviderPayment]) -> list[Doubted]:
        """Note which payments these facts call paid or come back, unless they are booked so.

        Returns those that ended unpaid before they were called paid, where that is new, or told anew.
        """
        if not told:
            return []
        rows = await uow.connection.fetch(
            _DOUBT,
            rail,
            [fact.provider_account for fact in told],
            [fact.environment for fact in told],
            [fact.reference for fact in told],
            [fact.source for fact in told],
            ["RETURNED" if fact.status is PaymentStatus.RETURNED else "PAID" for fact in told],
        )
        return [Doubted(*row) for row in rows]

    async def due(self, uow: UnitOfWork, limit: int) -> list[Doubt]:
        """Lock and return what is to be looked at now; what another resolver holds is left to it."""
        rows = await uow.connection.fetch(_DUE, limit)
        return [
            Doubt(
                job_of(row),
                row["asks"],
                row["answer"],
                bool(row["asked"]),
                row["anew"],
                came_back=row["told_of"] == "RETURNED",
                told_by=row["told_by"],
                age_s=row["age_s"],
                unpaid=row["unpaid"],
            )
            for row in rows
        ]

    async def note(self, uow: UnitOfWork, asks: Sequence[NextAsk]) -> None:
        """Keep what was asked, when it is looked at again, and what ended."""
        if asks:
            columns: list[list[Any]] = [[each[place] for each in asks] for place in range(4)]
            await uow.connection.execute(_NOTE, *columns)

    async def withdraw(self, uow: UnitOfWork, job_ids: Sequence[UUID]) -> None:
        """Forget what was told of payments that are settled as it was told."""
        if job_ids:
            await uow.connection.execute(_WITHDRAW, job_ids)
