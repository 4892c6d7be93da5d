"""Jobs in PostgreSQL: set-based statements, each bounded by the range of its ids so that few partitions are met."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from core.domain.ids import ids_of_that_time
from core.domain.intents import IntentRow
from core.domain.jobs import JobRow, JobState, Waiting
from core.store.columns import lone_row, spare, spared_rows
from core.store.payments.intents import INTENT_COLUMNS, intent_of
from core.store.settling.outbox import NOTIFY_OUTBOX, job_body
from core.store.unit_of_work import UnitOfWork, Write
from schemas.operations import JobKind, OperationType

_FIELDS: Final = tuple(JobRow.__dataclass_fields__)
_ENUMS: Final = tuple(
    (_FIELDS.index(name), {member.value: member for member in kind})
    for name, kind in (("kind", JobKind), ("operation", OperationType), ("state", JobState))
)
_INTENT_AT: Final = len(_FIELDS)
JOB_COLUMNS: Final = ", ".join(f"j.{name}" for name in _FIELDS)
"""The columns of a JobRow, under the alias j."""

_INSERTED: Final = (
    *("uuid",) * 4, *("text",) * 7, "bigint", "text", "text", "timestamptz", "timestamptz", "text", "int", "text"
)  # fmt: skip


def _insert(rows: str, bodies: str, repeat: str = "") -> Write:
    return Write(
        f"""
made_jobs AS (
    INSERT INTO fleet.jobs (id, tenant_id, intent_id, target_job_id, kind, operation, rail, provider, provider_account,
        environment, reference, amount_minor, currency, payee_masked, deadline, not_before, stream, ledger_epoch,
        traceparent)
    {rows}
    {repeat}
    RETURNING id, tenant_id, rail, stream, not_before, traceparent
), queued_jobs AS (
    INSERT INTO fleet.outbox (job_id, tenant_id, rail, stream, not_before, body, traceparent)
    SELECT m.id, m.tenant_id, m.rail, m.stream, coalesce(m.not_before, now()), b.body, m.traceparent
    FROM made_jobs m {bodies}
    {repeat}
), woken_relays AS (
    SELECT pg_notify('fleet_outbox', stream) FROM (SELECT DISTINCT stream FROM made_jobs) AS streams
)
""",  # noqa: S608 - a constant
        frozenset({"jobs", "outbox"}),
        "SELECT count(*) FROM woken_relays",
    )


_BODIES: Final = "JOIN unnest($1::uuid[], $20::text[]) AS b(id, body) ON b.id = m.id"
_INSERT: Final = _insert(spared_rows(_INSERTED), _BODIES)
_INSERT_ONE: Final = _insert(lone_row(_INSERTED), "CROSS JOIN (SELECT $20::text) AS b(body)")
# Names no key, for each table has one alone: for a named one, each insertion would look through all of the partition's.
_INSERT_ONCE: Final = _insert(spared_rows(_INSERTED), _BODIES, "ON CONFLICT DO NOTHING")


async def insert_jobs(uow: UnitOfWork, jobs: Sequence[JobRow]) -> None:
    """Insert jobs and their outbox rows and wake the relay at commit. Idempotent by id: a repeat changes nothing."""
    await _insert_jobs(uow, jobs, _INSERT_ONCE)


async def insert_first_jobs(uow: UnitOfWork, jobs: Sequence[JobRow]) -> None:
    """Do as `insert_jobs` for the first jobs of intents that this transaction makes, or moves into the state for it.

    Nobody else can have made them: a key that may be there would be walked to twice for every row. Raises
    asyncpg.UniqueViolationError where one is there.
    """
    if len(jobs) == 1:
        [job] = jobs
        await uow.later(_INSERT_ONE, *_inserted(job))
    else:
        await _insert_jobs(uow, jobs, _INSERT)


async def _insert_jobs(uow: UnitOfWork, jobs: Sequence[JobRow], write: Write) -> None:
    if jobs:
        rows = map(_inserted, sorted(jobs, key=lambda job: job.id.int))
        ids, *others, bodies = map(list, zip(*rows, strict=True))
        await uow.later(write, ids, *map(spare, others), bodies)


def _inserted(job: JobRow) -> tuple[Any, ...]:
    return (
        job.id,
        job.tenant_id,
        job.intent_id,
        job.target_job_id,
        job.kind,
        job.operation,
        job.rail,
        job.provider,
        job.provider_account,
        job.environment,
        job.reference,
        job.amount_minor,
        job.currency,
        job.payee_masked,
        job.deadline,
        job.not_before,
        job.stream,
        job.ledger_epoch,
        job.traceparent,
        job_body(job),
    )


def job_of(row: Any) -> JobRow:
    """Return the job in a record that begins with JOB_COLUMNS. Raises KeyError for a word that is not ours."""
    values = list(row)[: len(_FIELDS)]
    for place, members in _ENUMS:
        values[place] = members[values[place]]
    return JobRow(*values)


_LOCK: Final = f"""
SELECT {JOB_COLUMNS} FROM fleet.jobs j WHERE j.id = ANY($1::uuid[]) AND j.id BETWEEN $2 AND $3
ORDER BY j.id FOR UPDATE OF j
"""  # noqa: S608 - a constant list of columns

# The jobs first, all of them, then their intents: the list of the second needs the whole first. A row that had to be
# waited for comes as its holder left it.
_LOCK_BOTH: Final = f"""
WITH locked_jobs AS ({_LOCK}
), locked_intents AS (
    SELECT {", ".join(INTENT_COLUMNS)} FROM fleet.intents
    WHERE id = ANY (ARRAY(SELECT intent_id FROM locked_jobs) || $4::uuid[]) AND id BETWEEN $5 AND $6
    ORDER BY id FOR NO KEY UPDATE
)
SELECT j.*, i.* FROM locked_jobs j FULL JOIN locked_intents i ON i.id = j.intent_id
"""  # noqa: S608 - constant lists of columns

_TARGETS: Final = """
SELECT id, target_job_id FROM fleet.jobs
WHERE id = ANY($1::uuid[]) AND id BETWEEN $2 AND $3 AND target_job_id IS NOT NULL
"""

# A job's id keeps its intent's time prefix: the bounds leave out the partitions of other months. What belongs to an
# intent is found by bisection, as the relay's mark finds it: each join costs a lone payment more than its row does.
_CLOSE: Final = Write(
    """
closed_jobs AS (
    UPDATE fleet.jobs j SET state = 'CLOSED', closed_at = now(), next_check_at = NULL,
        outcome = ($2::text[])[width_bucket(j.intent_id, $1::uuid[])]
    WHERE j.intent_id = ANY ($1::uuid[]) AND j.id BETWEEN $3 AND $4 AND j.closed_at IS NULL
    RETURNING j.id
), unsent_rows AS (
    -- A row that a relay holds is left to it: waiting here while it waits for our job would be a deadlock.
    SELECT job_id, round FROM fleet.outbox WHERE job_id = ANY (ARRAY(SELECT id FROM closed_jobs)) FOR UPDATE SKIP LOCKED
), withdrawn_rows AS (
    DELETE FROM fleet.outbox o USING unsent_rows u WHERE o.job_id = u.job_id AND o.round = u.round
    RETURNING o.job_id
)
""",
    frozenset({"jobs", "outbox"}),
    "SELECT count(*) FROM withdrawn_rows",
)

_CLOSE_THESE: Final = """
UPDATE fleet.jobs j SET state = 'CLOSED', closed_at = now(), outcome = e.outcome, next_check_at = NULL
FROM unnest($1::uuid[], $2::text[]) AS e(id, outcome)
WHERE j.id = ANY ($1::uuid[]) AND j.id = e.id AND j.id BETWEEN $3 AND $4 AND j.closed_at IS NULL
"""

_WAIT: Final = """
UPDATE fleet.jobs j SET inquiries = j.inquiries + w.asked, next_check_at = now() + w.after,
    tombstoned = j.tombstoned OR w.tombstone, outcome = coalesce(w.why, j.outcome),
    state = CASE WHEN w.why IS NULL THEN j.state ELSE 'WAITING' END
FROM unnest($1::uuid[], $2::interval[], $3::int[], $4::bool[], $5::text[]) AS w(id, after, asked, tombstone, why)
WHERE j.id = ANY ($1::uuid[]) AND j.id = w.id AND j.id BETWEEN $6 AND $7 AND j.closed_at IS NULL
"""

# The next round: the relay may not have committed its note about the last one yet, see 0006_rounds.sql.
_REQUEUE: Final = """
WITH ready AS (
    UPDATE fleet.jobs j SET state = 'READY', not_before = now() + w.after, failures = j.failures + 1,
        rounds = j.rounds + 1, next_check_at = NULL
    FROM unnest($1::uuid[], $2::interval[]) AS w(id, after)
    WHERE j.id = ANY ($1::uuid[]) AND j.id = w.id AND j.id BETWEEN $4 AND $5 AND j.closed_at IS NULL
    RETURNING j.id, j.rounds, j.tenant_id, j.rail, j.stream, j.not_before, j.traceparent
)
INSERT INTO fleet.outbox (job_id, round, tenant_id, rail, stream, not_before, body, traceparent)
SELECT r.id, r.rounds, r.tenant_id, r.rail, r.stream, r.not_before, b.body, r.traceparent
FROM ready r JOIN unnest($1::uuid[], $3::text[]) AS b(id, body) ON b.id = r.id
"""

# Two walks of two small indexes: an OR would read every open job each second, however many wait for a paused rail.
_DUE: Final = f"""
WITH checked AS (
    SELECT {JOB_COLUMNS} FROM fleet.jobs j
    WHERE j.next_check_at <= now() AND j.closed_at IS NULL AND j.kind NOT IN ('inquire', 'cancel')
    ORDER BY j.next_check_at LIMIT $1 FOR UPDATE OF j SKIP LOCKED
), late AS (
    SELECT {JOB_COLUMNS} FROM fleet.jobs j
    WHERE j.deadline <= now() AND j.next_check_at IS NULL AND j.closed_at IS NULL
        AND j.kind NOT IN ('inquire', 'cancel')
    ORDER BY j.deadline LIMIT $1 - (SELECT count(*) FROM checked) FOR UPDATE OF j SKIP LOCKED
)
SELECT * FROM checked UNION ALL SELECT * FROM late
"""  # noqa: S608 - a constant list of columns


_RESERVE: Final = """
UPDATE fleet.void_minutes SET voided = voided + $1, refused = refused + $2 WHERE minute = date_trunc('minute', now())
"""


async def reserve_voids(uow: UnitOfWork, wanted: int, per_minute: int) -> tuple[int, bool]:
    """Return how many automatic voids this minute still allows, of all resolvers, and whether it refuses the first."""
    await uow.connection.execute(
        "INSERT INTO fleet.void_minutes (minute) VALUES (date_trunc('minute', now())) ON CONFLICT DO NOTHING"
    )
    row = await uow.connection.fetchrow(
        "SELECT voided, refused FROM fleet.void_minutes WHERE minute = date_trunc('minute', now()) FOR UPDATE"
    )
    voided, before = (row["voided"], row["refused"]) if row is not None else (0, 0)
    granted = max(0, min(wanted, per_minute - voided))
    await uow.connection.execute(_RESERVE, granted, wanted - granted)
    return granted, before == 0 and granted < wanted


async def lock_jobs(uow: UnitOfWork, ids: Sequence[UUID]) -> dict[UUID, JobRow]:
    """Lock jobs in id order, waiting for their holders, and return those that exist."""
    if not ids:
        return {}
    rows = await uow.connection.fetch(_LOCK, ids, min(ids), max(ids))
    return {row["id"]: job_of(row) for row in rows}


async def lock_jobs_and_intents(
    uow: UnitOfWork, ids: Sequence[UUID], more_intents: Sequence[UUID]
) -> tuple[dict[UUID, JobRow], dict[UUID, IntentRow]]:
    """Lock jobs in id order, then their intents and `more_intents` in theirs; return those that exist."""
    everything = [*ids, *more_intents]
    if not everything:
        return {}, {}
    rows = await uow.connection.fetch(
        _LOCK_BOTH,
        ids,
        min(ids, default=None),
        max(ids, default=None),
        more_intents,
        *ids_of_that_time(everything),
    )
    intents = {row[_INTENT_AT]: row for row in rows if row[_INTENT_AT] is not None}
    return (
        {row[0]: job_of(row) for row in rows if row[0] is not None},
        {intent_id: intent_of(row[_INTENT_AT:]) for intent_id, row in intents.items()},
    )


async def due_jobs(uow: UnitOfWork, limit: int) -> list[JobRow]:
    """Lock and return open jobs whose check or deadline is due; what another resolver holds is left to it."""
    return [job_of(row) for row in await uow.connection.fetch(_DUE, limit)]


async def targets_of(uow: UnitOfWork, ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Return the payment that each inquiry or cancel is about."""
    if not ids:
        return {}
    rows = await uow.connection.fetch(_TARGETS, ids, min(ids), max(ids))
    return {row["id"]: row["target_job_id"] for row in rows}


async def close_jobs_of(uow: UnitOfWork, outcomes: Sequence[tuple[UUID, str]]) -> None:
    """Close every open job of the intents and take it out of the outbox; (intent id, outcome) each."""
    if not outcomes:
        return
    ordered = sorted(outcomes, key=lambda each: each[0].int)
    ids = [intent_id for intent_id, _ in ordered]
    await uow.later(_CLOSE, ids, [outcome for _, outcome in ordered], *ids_of_that_time(ids))


async def close_jobs(uow: UnitOfWork, outcomes: Sequence[tuple[UUID, str]]) -> None:
    """Close jobs that did their work while their intent goes on; (job id, outcome) each."""
    if not outcomes:
        return
    ids = [job_id for job_id, _ in outcomes]
    await uow.connection.execute(_CLOSE_THESE, ids, [outcome for _, outcome in outcomes], min(ids), max(ids))


async def wait_jobs(uow: UnitOfWork, waits: Sequence[Waiting]) -> None:
    """Hand jobs to the resolver until their next check."""
    if not waits:
        return
    ids = [wait.job_id for wait in waits]
    await uow.connection.execute(
        _WAIT,
        ids,
        [timedelta(seconds=wait.after_s) for wait in waits],
        [int(wait.asked) for wait in waits],
        [wait.tombstone for wait in waits],
        [wait.why for wait in waits],
        min(ids),
        max(ids),
    )


async def requeue_jobs(uow: UnitOfWork, jobs: Sequence[tuple[JobRow, float]]) -> None:
    """Put open jobs into the outbox again, under the same id, after so many seconds; counts a failure each."""
    if not jobs:
        return
    ids = [job.id for job, _ in jobs]
    delays = [timedelta(seconds=after_s) for _, after_s in jobs]
    await uow.connection.execute(_REQUEUE, ids, delays, [job_body(job) for job, _ in jobs], min(ids), max(ids))
    await uow.connection.execute(NOTIFY_OUTBOX, sorted({job.stream for job, _ in jobs}))


async def ask_now(uow: UnitOfWork, intent_id: UUID) -> int:
    """Let the resolver ask the provider about an open payment at once; return how many of its jobs waited for that."""
    done: str = await uow.connection.execute(
        "UPDATE fleet.jobs SET next_check_at = now() WHERE intent_id = $1 AND closed_at IS NULL"
        " AND next_check_at IS NOT NULL AND kind NOT IN ('inquire', 'cancel')",
        intent_id,
    )
    return int(done.rsplit(" ", 1)[1])
