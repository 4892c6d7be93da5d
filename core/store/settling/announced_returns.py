"""Announced returns in PostgreSQL, with the announcements themselves as evidence, sealed."""

import time
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from core.domain.ids import ids_of_that_time, mint_ids
from core.services.settling.announced_returns import Awaited
from core.store.settling.evidence import EvidenceStore
from core.store.unit_of_work import UnitOfWork
from schemas.announced_returns import AnnouncedReturns, ReturnedView
from schemas.rails import EvidenceItem

# A payment's or a refund's reference is its job's, a collection's its own.
_KEEP: Final = """
INSERT INTO fleet.announced_returns (rail, provider_account, environment, name, reference, amount_minor, currency,
    tenant_id, intent_id, reason, provider_reason, evidence_id, due_at)
SELECT $1, $2, $3, a.name, a.reference, a.amount_minor, a.currency,
    coalesce(o.tenant_id, '00000000-0000-0000-0000-000000000000'), o.intent_id, a.reason, a.provider_reason,
    a.evidence_id, now() + $4::float8 * interval '1 second'
FROM unnest($5::text[], $6::text[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::uuid[])
    AS a(name, reference, amount_minor, currency, reason, provider_reason, evidence_id)
LEFT JOIN LATERAL (
    SELECT j.tenant_id, j.intent_id FROM fleet.jobs j
    WHERE j.reference = a.reference AND j.kind IN ('pay', 'refund')
        AND (j.rail, j.provider_account, j.environment) = ($1, $2, $3)
    UNION ALL
    SELECT c.tenant_id, c.intent_id FROM fleet.collections c
    WHERE (c.rail, c.provider_account, c.environment, c.reference) = ($1, $2, $3, a.reference)
    LIMIT 1
) o ON true
ORDER BY a.name, a.reference, a.amount_minor, a.currency
ON CONFLICT DO NOTHING RETURNING evidence_id, intent_id
"""
# The job that an announcement is about, for its evidence.
_JOBS: Final = """
SELECT intent_id, id FROM fleet.jobs
WHERE intent_id = ANY ($1::uuid[]) AND kind IN ('pay', 'refund', 'collect') AND id BETWEEN $2 AND $3
"""

# What the provider gave back in all, by what it said of our payment; of a payment in, by what was taken back from us.
_DUE: Final = """
SELECT a.rail, a.provider_account, a.environment, a.name, a.reference, a.amount_minor, a.currency, a.tenant_id,
    a.intent_id, a.provider_reason, a.evidence_id, a.alerted_at IS NOT NULL AS alerted,
    CASE WHEN a.intent_id IS NULL THEN a.amount_minor ELSE (SELECT sum(b.amount_minor)::bigint
        FROM fleet.announced_returns b WHERE b.intent_id = a.intent_id AND b.currency = a.currency) END AS announced,
    coalesce(greatest((SELECT max(coalesce((f.body->>'amount_minor')::bigint, q.amount_minor))
        FROM fleet.jobs q JOIN fleet.facts f ON f.job_id = q.id
        WHERE q.intent_id = a.intent_id AND q.currency = a.currency AND f.verdict = 'RETURNED'
            AND f.applied_at IS NOT NULL),
        (SELECT sum(p.amount_minor)::bigint FROM fleet.provider_payments p
        WHERE p.intent_id = a.intent_id AND p.kind = 'RETURN' AND p.currency = a.currency)), 0) AS booked
FROM fleet.announced_returns a WHERE a.due_at <= now() ORDER BY a.due_at LIMIT $1 FOR UPDATE OF a SKIP LOCKED
"""
# One that a person was told of is looked at for two months, for the booking that comes late.
_LOOKED_AT: Final = """
UPDATE fleet.announced_returns a SET alerted_at = CASE WHEN l.booked THEN a.alerted_at ELSE now() END,
    due_at = CASE WHEN NOT l.booked AND a.intent_id IS NOT NULL AND a.told_at > now() - interval '60 days'
        THEN now() + interval '1 hour' END
FROM unnest($1::uuid[], $2::bool[]) AS l(evidence_id, booked)
WHERE a.evidence_id = l.evidence_id AND a.due_at <= now()
"""

_RETURNED: Final = """
WITH booked AS (
    SELECT max(coalesce((f.body->>'amount_minor')::bigint, q.amount_minor)) AS amount_minor, max(f.received_at) AS at,
        (array_agg(f.body->>'reason' ORDER BY f.received_at DESC))[1] AS reason,
        (array_agg(f.evidence_id ORDER BY f.evidence_id IS NULL, f.received_at DESC))[1] AS evidence_id
    FROM fleet.jobs q JOIN fleet.facts f ON f.job_id = q.id
    WHERE q.intent_id = $1 AND q.id BETWEEN $2 AND $3 AND f.job_id BETWEEN $2 AND $3
        AND f.verdict = 'RETURNED' AND f.applied_at IS NOT NULL
), taken AS (
    SELECT sum(amount_minor)::bigint AS amount_minor, max(accounted_at) AS at
    FROM fleet.provider_payments WHERE intent_id = $1 AND kind = 'RETURN' AND state = 'REVERSED'
), announced AS (
    SELECT sum(amount_minor)::bigint AS amount_minor, max(told_at) AS at,
        (array_agg(reason ORDER BY told_at DESC))[1] AS reason,
        (array_agg(provider_reason ORDER BY told_at DESC))[1] AS provider_reason,
        (array_agg(evidence_id ORDER BY told_at DESC))[1] AS evidence_id
    FROM fleet.announced_returns WHERE intent_id = $1
)
SELECT coalesce(a.amount_minor, 0) AS announced_minor, a.at AS announced_at,
    coalesce(greatest(b.amount_minor, t.amount_minor), 0) AS booked_minor, coalesce(b.at, t.at) AS booked_at,
    coalesce(nullif(a.reason, ''), b.reason, '') AS reason, coalesce(a.provider_reason, '') AS provider_reason,
    coalesce(a.evidence_id, b.evidence_id) AS evidence_id
FROM booked b, taken t, announced a WHERE coalesce(a.at, b.at, t.at) IS NOT NULL
"""


async def returned_of(uow: UnitOfWork, intent_id: UUID) -> ReturnedView | None:
    """Return what came back of a payment, or is announced to; None where nothing is known of that."""
    row = await uow.connection.fetchrow(_RETURNED, intent_id, *ids_of_that_time([intent_id]))
    return None if row is None else ReturnedView(**row)


class AnnouncedStore:
    """See `core.services.settling.announced_returns.Announcements`."""

    def __init__(self, evidence: EvidenceStore) -> None:
        self._evidence = evidence

    async def keep(self, uow: UnitOfWork, rail: str, told: AnnouncedReturns) -> int:
        """Keep what is new, with what the provider wrote, and return how many that are."""
        items, ids = told.items, mint_ids(time.time_ns() // 1_000_000, len(told.items))
        new = await uow.connection.fetch(
            _KEEP,
            rail,
            told.provider_account,
            told.environment,
            told.booked_within_s,
            [each.name for each in items],
            [each.reference for each in items],
            [each.amount_minor for each in items],
            [each.currency for each in items],
            [each.reason for each in items],
            [each.provider_reason for each in items],
            ids,
        )
        if not new:
            return 0
        owners = {row["evidence_id"]: row["intent_id"] for row in new}
        jobs = await self._jobs_of(uow, sorted({each for each in owners.values() if each is not None}))
        raw = dict(zip(ids, (each.raw for each in items), strict=True))
        kept = [
            EvidenceItem(id=each, job_id=jobs.get(owner), kind="announced_return", raw=raw[each])
            for each, owner in owners.items()
        ]
        await self._evidence.insert_evidence(uow, rail, kept)
        return len(new)

    async def due(self, uow: UnitOfWork, limit: int) -> list[Awaited]:
        """Lock and return what is to be looked at now; what another resolver holds is left to it."""
        return [
            Awaited(
                key=tuple(row)[:7],
                tenant_id=row["tenant_id"],
                intent_id=row["intent_id"],
                provider_reason=row["provider_reason"],
                evidence_id=row["evidence_id"],
                announced_minor=row["announced"],
                booked_minor=row["booked"],
                alerted=row["alerted"],
            )
            for row in await uow.connection.fetch(_DUE, limit)
        ]

    async def looked_at(self, uow: UnitOfWork, looked: Sequence[Awaited]) -> None:
        """Note which are booked, and of which a person was told."""
        ids, booked = [each.evidence_id for each in looked], [each.is_booked for each in looked]
        await uow.connection.execute(_LOOKED_AT, ids, booked)

    async def _jobs_of(self, uow: UnitOfWork, intents: Sequence[UUID]) -> dict[UUID | None, UUID]:
        if not intents:
            return {}
        rows = await uow.connection.fetch(_JOBS, intents, *ids_of_that_time(intents))
        return {row["intent_id"]: row["id"] for row in rows}
