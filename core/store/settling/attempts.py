"""Permits in PostgreSQL: lock the jobs, write the attempts, in two set-based statements."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from core.domain.ids import ids_of_that_time
from core.services.access.keys import HeldNonce, replayed
from core.services.settling.permits import Attempt, LockedJob
from core.services.settling.rails import RailState
from core.services.vault_port import Sealed
from core.store.database import UnitOfWork
from core.store.literals import array, text
from core.store.settling.facts import mark_negative
from core.store.settling.jobs import JOB_COLUMNS, job_of
from core.store.settling.rails import state_of, state_sql
from schemas.events import IntentState
from schemas.operations import JobKind
from schemas.permits import PermitMode

# What spends the nonce of the request that asks, in the transaction of its permits: none is given to a replay.
_SPENT: Final = """spent AS (
    INSERT INTO fleet.request_nonces (tenant_id, key_id, nonce) VALUES ($8, $9, $10)
    ON CONFLICT DO NOTHING RETURNING true
), """
_WITHDRAWN: Final = """
CASE WHEN j.operation = 'DIRECT_DEBIT' THEN EXISTS (SELECT FROM fleet.mandate_debits d
    JOIN fleet.mandates m ON m.tenant_id = d.tenant_id AND m.mandate_id = d.mandate_id
    WHERE d.intent_id = j.intent_id AND m.cancelled_at IS NOT NULL) ELSE false END AS withdrawn
"""
# The rail's state and the subjects' keys come in the same round trip: nothing here waits for a lock.
# What belongs to a job is looked up for each: OFFSET 0 keeps the planner from walking whole partitions for a join, as
# it would until statistics come where it planned while they were empty.
_LOCK: Final = f"""
WITH {{spent}}state AS ({state_sql("$4")}), locked AS (
    SELECT {JOB_COLUMNS}, {_WITHDRAWN} FROM fleet.jobs j
    WHERE j.id = ANY($1::uuid[]) AND j.id BETWEEN $2 AND $3 AND j.rail = $4
        AND ($5::uuid[] IS NULL OR j.tenant_id = ANY ($5::uuid[]))
    ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
), whole AS (
    SELECT j.*, i.state AS intent_state, i.subject_id, i.instruction, s.wrapped_key, i.lookup::text AS lookup,
        t.reference AS target_reference, t.provider_account AS target_account, t.kind AS target_kind
    FROM locked j
    CROSS JOIN LATERAL (SELECT * FROM fleet.intents WHERE id = j.intent_id AND id BETWEEN $6 AND $7 OFFSET 0) i
    LEFT JOIN LATERAL (SELECT wrapped_key FROM fleet.subjects WHERE id = i.subject_id OFFSET 0) s ON true
    LEFT JOIN LATERAL (
        SELECT reference, provider_account, kind FROM fleet.jobs
        WHERE id = j.target_job_id AND id BETWEEN $6 AND $7 OFFSET 0) t ON true
)
SELECT whole.*, state.*{{is_new}} FROM state LEFT JOIN whole ON true
"""  # noqa: S608 - a constant list of columns
_LOCK_AGAIN: Final = _LOCK.format(spent="", is_new="")
_LOCK_FIRST: Final = _LOCK.format(spent=_SPENT, is_new=", EXISTS (SELECT FROM spent) AS is_new")

_EXISTING: Final = """
SELECT id FROM fleet.jobs WHERE id = ANY($1::uuid[]) AND id BETWEEN $2 AND $3 AND rail = $4
    AND ($5::uuid[] IS NULL OR tenant_id = ANY ($5::uuid[]))
"""

_ATTEMPTS: Final = """
SELECT a.job_id, a.fence, a.mode, a.granted_at FROM unnest($1::uuid[], $2::int[]) AS n(job_id, fence)
JOIN fleet.attempts a ON a.job_id = n.job_id AND a.fence = n.fence
WHERE a.job_id BETWEEN $3 AND $4
"""

_GIVEN_AGAIN: Final = """
UPDATE fleet.jobs SET permit_request = $2 WHERE id = ANY ($1::uuid[]) AND id BETWEEN $3 AND $4
"""

# A "paid" of any job of the intent, applied or not, contradicts the negatives: then nothing is proven.
_UNSENT: Final = """
SELECT j.id FROM fleet.jobs j
WHERE j.id = ANY($1::uuid[]) AND j.id BETWEEN $2 AND $3
    AND NOT EXISTS (SELECT FROM fleet.attempts a
        WHERE a.job_id = j.id AND a.job_id BETWEEN $2 AND $3 AND a.mode = 'SEND' AND a.negative_at IS NULL)
    AND NOT EXISTS (SELECT FROM fleet.jobs q JOIN fleet.facts f ON f.job_id = q.id
        WHERE q.intent_id = j.intent_id AND q.id BETWEEN $2 AND $3 AND f.job_id BETWEEN $2 AND $3
            AND f.verdict IN ('SUCCEEDED', 'PAID', 'RETURNED'))
"""


async def lock_jobs(
    uow: UnitOfWork,
    rail: str,
    ids: Sequence[UUID],
    tenants: frozenset[UUID] | None = None,
    nonce: HeldNonce | None = None,
) -> tuple[RailState, dict[UUID, LockedJob]]:
    """Lock the rail's jobs, of these tenants if any are named, in id order, and spend the nonce.

    What another transaction holds is left out, never waited for. Raises Refusal `replayed_nonce`.
    """
    asked = (ids, min(ids), max(ids), rail, tenants, *ids_of_that_time(ids))
    if nonce is None:
        rows = await uow.connection.fetch(_LOCK_AGAIN, *asked)
    else:
        rows = await uow.connection.fetch(_LOCK_FIRST, *asked, nonce.tenant_id, nonce.key_id, nonce.text)
        if not rows[0]["is_new"]:
            nonce.is_spent = True
            raise replayed()
    state = await state_of(uow, rail, rows[0] if rows else None)
    return state, {row["id"]: _locked(row) for row in rows if row["id"] is not None}


def _locked(row: Any) -> LockedJob:
    return LockedJob(
        job_of(row),
        IntentState(row["intent_state"]),
        Sealed(row["intent_id"], row["subject_id"], row["instruction"], row["wrapped_key"]),
        row["lookup"],
        row["target_reference"],
        row["target_account"],
        JobKind(row["target_kind"]) if row["target_kind"] else None,
        row["withdrawn"],
    )


async def existing_jobs(
    uow: UnitOfWork, rail: str, ids: Sequence[UUID], tenants: frozenset[UUID] | None = None
) -> set[UUID]:
    """Return which of the ids are jobs of the rail, locked or not."""
    rows = await uow.connection.fetch(_EXISTING, ids, min(ids), max(ids), rail, tenants)
    return {row["id"] for row in rows}


async def attempts_of(uow: UnitOfWork, fences: Mapping[UUID, int]) -> dict[UUID, Attempt]:
    """Return these permits, one of each job."""
    ids = sorted(fences)
    rows = await uow.connection.fetch(_ATTEMPTS, ids, [fences[job_id] for job_id in ids], ids[0], ids[-1])
    return {row["job_id"]: Attempt(row["fence"], PermitMode(row["mode"]), row["granted_at"]) for row in rows}


async def given_again(uow: UnitOfWork, ids: Sequence[UUID], request_id: UUID) -> None:
    """Note which sending the last permits of these jobs went to: one between them that comes late is the older."""
    await uow.connection.execute(_GIVEN_AGAIN, ids, request_id, min(ids), max(ids))


async def note_unread(uow: UnitOfWork, fences: Mapping[UUID, int]) -> None:
    """Note that these permits never reached who asked for them: nothing was sent under any."""
    await mark_negative(uow, list(fences.items()))


async def unsent_jobs(uow: UnitOfWork, ids: Sequence[UUID]) -> set[UUID]:
    """Return those whose every permit to send has a definite negative, with no fact that says "paid"."""
    rows = await uow.connection.fetch(_UNSENT, ids, *ids_of_that_time(ids))
    return {row["id"] for row in rows}


async def write_attempts(
    uow: UnitOfWork,
    permits: Mapping[UUID, tuple[PermitMode, int]],
    *,
    request_id: UUID,
    incarnation: UUID,
    service_key_id: str,
    busy: timedelta,
) -> None:
    """Raise the fences of locked jobs to these, and write the attempts, with the commit.

    The commit fails where a fence is not the next one of its job.
    """
    granted = sorted(permits.items(), key=lambda each: each[0].int)
    uow.with_commit(
        "fleet.write_permits",
        array(job_id for job_id, _ in granted),
        array(fence for _, (_, fence) in granted),
        array(mode for _, (mode, _) in granted),
        text(request_id),
        text(incarnation),
        text(f"{busy.total_seconds()} s"),
        text(service_key_id),
    )
