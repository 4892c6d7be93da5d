"""Facts, negatives and alerts in PostgreSQL: each fact once, under its inbox key."""

from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from core.domain.ids import ids_of_that_time
from core.domain.verdicts import AttemptView, FactKey
from core.services.settling.facts import Alert, Fact, Histories
from core.store.columns import spare, spared_rows
from core.store.settling.rails import state_of, state_sql
from core.store.unit_of_work import UnitOfWork, Write
from schemas.permits import PermitMode
from schemas.results import Verdict

_ATTEMPTS: Final = """
SELECT job_id, fence, mode, granted_at, negative_at IS NOT NULL AS negative FROM fleet.attempts
WHERE job_id = ANY($1::uuid[]) AND job_id BETWEEN $2 AND $3
"""

_NEGATIVE: Final = Write(
    """
negatives AS (
    UPDATE fleet.attempts a SET negative_at = now()
    FROM unnest($1::uuid[], $2::int[]) AS n(job_id, fence)
    WHERE a.job_id = ANY ($1::uuid[]) AND a.job_id = n.job_id AND a.fence = n.fence AND a.job_id BETWEEN $3 AND $4
        AND a.negative_at IS NULL
    RETURNING a.job_id
)
""",
    frozenset({"attempts"}),
    "SELECT count(*) FROM negatives",
)

# One row: what is found comes as columns of arrays.
_HISTORIES: Final = f"""
SELECT state.*, a.*, f.* FROM ({state_sql("$1")}) AS state, (
    SELECT array_agg(job_id) AS a_jobs, array_agg(fence) AS a_fences, array_agg(mode) AS a_modes,
        array_agg(granted_at) AS a_times, array_agg(negative_at IS NOT NULL) AS a_negatives
    FROM fleet.attempts WHERE job_id = ANY ($2::uuid[]) AND job_id BETWEEN $3 AND $4
) AS a, (
    SELECT array_agg(job_id) AS f_jobs, array_agg(fence) AS f_fences, array_agg(verdict) AS f_verdicts,
        array_agg(money_hash) AS f_hashes
    FROM fleet.facts WHERE job_id = ANY ($5::uuid[]) AND job_id BETWEEN $6 AND $7
) AS f
"""  # noqa: S608 - a constant

# Found through the intent's jobs: facts are kept in the order of jobs and have no index of their own by intent.
_POSITIVE: Final = """
SELECT DISTINCT f.intent_id FROM fleet.jobs j JOIN fleet.facts f ON f.job_id = j.id
WHERE j.intent_id = ANY($1::uuid[]) AND j.id BETWEEN $2 AND $3 AND f.job_id BETWEEN $2 AND $3
    AND f.applied_at IS NULL AND f.verdict IN ('SUCCEEDED', 'PAID', 'RETURNED')
"""

_INSERTED: Final = ("uuid", "int", "text", "bytea", "uuid", "uuid", "text", "jsonb", "uuid", "text")


def _insert(repeat: str) -> Write:
    return Write(
        f"""
made_facts AS (
    INSERT INTO fleet.facts (job_id, fence, verdict, money_hash, tenant_id, intent_id, rail, body, evidence_id,
        applied_at, quarantine)
    SELECT f.job_id, f.fence, f.verdict, f.money_hash, f.tenant_id, f.intent_id, f.rail, f.body, f.evidence_id,
        CASE WHEN f.quarantine IS NULL THEN now() END, f.quarantine
    FROM ({spared_rows(_INSERTED)})
        AS f(job_id, fence, verdict, money_hash, tenant_id, intent_id, rail, body, evidence_id, quarantine)
    {repeat} RETURNING job_id
)
""",  # noqa: S608 - a constant
        frozenset({"facts"}),
        "SELECT count(*) FROM made_facts",
    )


_INSERT_ONCE: Final = _insert("ON CONFLICT (job_id, fence, verdict, money_hash) DO NOTHING")
# Nearly all. What may be there is looked for before each row, and each row is written as tentative and then as meant.
_INSERT_NEW: Final = _insert("")

TOLD_AGAIN: Final = """
    ON CONFLICT (id) DO UPDATE SET closed_at = NULL, closed_by = NULL, closed_because = '', proposed_by = NULL,
        proposed_at = NULL WHERE alerts.closed_at IS NOT NULL
"""
"""The end of an INSERT of alerts. What is told again after somebody closed it is open again: no later fact about money
goes by in silence."""

_ALERT: Final = f"""
INSERT INTO fleet.alerts (id, tenant_id, severity, kind, intent_id, job_id, detail)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::uuid[], $7::text[])
{TOLD_AGAIN}"""  # noqa: S608 - a constant


async def attempts_of(uow: UnitOfWork, job_ids: Sequence[UUID]) -> dict[UUID, dict[int, AttemptView]]:
    """Return the permits of each job by fence."""
    found: dict[UUID, dict[int, AttemptView]] = {job_id: {} for job_id in job_ids}
    if not job_ids:
        return found
    for row in await uow.connection.fetch(_ATTEMPTS, job_ids, min(job_ids), max(job_ids)):
        view = AttemptView(row["fence"], PermitMode(row["mode"]), row["granted_at"], row["negative"])
        found[row["job_id"]][row["fence"]] = view
    return found


async def mark_negative(uow: UnitOfWork, fences: Sequence[tuple[UUID, int]]) -> None:
    """Keep that these permits are proven unpaid."""
    if not fences:
        return
    ids = [job_id for job_id, _ in fences]
    await uow.later(_NEGATIVE, ids, [fence for _, fence in fences], min(ids), max(ids))


async def histories_of(uow: UnitOfWork, rail: str, payments: Sequence[UUID], executed: Sequence[UUID]) -> Histories:
    """Return what the facts of a batch are judged by: permits of the payments, facts of the executed jobs."""
    bounds = [bound for ids in (payments, executed) for bound in (min(ids, default=None), max(ids, default=None))]
    row = await uow.connection.fetchrow(_HISTORIES, rail, payments, *bounds[:2], executed, *bounds[2:])
    state = await state_of(uow, rail, row)
    attempts: dict[UUID, dict[int, AttemptView]] = {job_id: {} for job_id in payments}
    for job_id, fence, mode, granted_at, negative in _rows(
        row, "a_jobs", "a_fences", "a_modes", "a_times", "a_negatives"
    ):
        attempts[job_id][fence] = AttemptView(fence, PermitMode(mode), granted_at, negative)
    known: dict[FactKey, set[bytes]] = {}
    for job_id, fence, verdict, hashed in _rows(row, "f_jobs", "f_fences", "f_verdicts", "f_hashes"):
        known.setdefault((job_id, fence, Verdict(verdict)), set()).add(hashed)
    return Histories(state, attempts, known)


def _rows(row: Any, *columns: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(row[column] or () for column in columns), strict=True)


async def unapplied_positives(uow: UnitOfWork, intent_ids: Sequence[UUID]) -> set[UUID]:
    """Return the intents for which a fact says "paid" that was not applied."""
    if not intent_ids:
        return set()
    found = await uow.connection.fetch(_POSITIVE, intent_ids, *ids_of_that_time(intent_ids))
    return {row["intent_id"] for row in found}


async def insert_facts(uow: UnitOfWork, facts: Sequence[Fact]) -> None:
    """Keep facts, applied or quarantined; a repeat changes nothing, unless all are said to be new."""
    if not facts:
        return
    await uow.later(
        _INSERT_NEW if all(fact.is_new for fact in facts) else _INSERT_ONCE,
        [fact.result.job_id for fact in facts],
        spare([fact.result.fence for fact in facts]),
        spare([fact.result.verdict for fact in facts]),
        spare([fact.money_hash for fact in facts]),
        spare([fact.tenant_id for fact in facts]),
        spare([fact.intent_id for fact in facts]),
        spare([fact.result.rail for fact in facts]),
        spare([fact.body for fact in facts]),
        spare([fact.result.evidence_id for fact in facts]),
        spare([fact.quarantine for fact in facts]),
    )


_APPLIED: Final = """
UPDATE fleet.facts SET applied_at = now(), quarantine = NULL
WHERE job_id = $1 AND fence = $2 AND verdict = $3 AND money_hash = $4 AND applied_at IS NULL
"""


async def apply_fact(uow: UnitOfWork, fact: Fact) -> None:
    """Note that a fact that was kept unapplied counts now."""
    result = fact.result
    await uow.connection.execute(_APPLIED, result.job_id, result.fence, result.verdict, fact.money_hash)


async def raise_alerts(uow: UnitOfWork, alerts: Sequence[Alert]) -> None:
    """Keep alerts; the same subject and kind is one alert."""
    if not alerts:
        return
    await uow.connection.execute(
        _ALERT,
        [alert.id for alert in alerts],
        [alert.tenant_id for alert in alerts],
        [alert.severity for alert in alerts],
        [alert.kind for alert in alerts],
        [alert.intent_id for alert in alerts],
        [alert.job_id for alert in alerts],
        [alert.detail for alert in alerts],
    )


_MADE_GOOD: Final = """
UPDATE fleet.alerts SET closed_at = now(), closed_by = 'core', closed_because = $3
WHERE intent_id = ANY ($1::uuid[]) AND kind = $2 AND closed_at IS NULL
"""


async def close_alerts(uow: UnitOfWork, intent_ids: Sequence[UUID], kind: str, because: str) -> None:
    """Close the alerts of a kind about payments: what they told of is made good. The database names the kinds that
    the core may close (0171_parked_payments_that_ended.sql).
    """
    await uow.connection.execute(_MADE_GOOD, intent_ids, kind, because)
