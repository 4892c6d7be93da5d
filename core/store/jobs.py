"""Jobs in PostgreSQL: set-based statements, each bounded by the range of its ids so that few partitions are met."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from core.domain.jobs import JobRow, JobState
from core.store.database import UnitOfWork
from core.store.outbox import NOTIFY_OUTBOX, job_body
from schemas.operations import JobKind, OperationType

_FIELDS: Final = tuple(JobRow.__dataclass_fields__)
_ENUMS: Final[dict[str, Any]] = {"kind": JobKind, "operation": OperationType, "state": JobState}
JOB_COLUMNS: Final = ", ".join(f"j.{name}" for name in _FIELDS)
"""The columns of a JobRow, under the alias j."""

_INSERT: Final = """
WITH made AS (
    INSERT INTO fleet.jobs (id, tenant_id, intent_id, target_job_id, kind, operation, rail, provider, provider_account,
        environment, reference, amount_minor, currency, payee_masked, deadline, not_before, stream, ledger_epoch,
        traceparent)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[],
        $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::text[], $14::text[],
        $15::timestamptz[], $16::timestamptz[], $17::text[], $18::int[], $19::text[])
    ON CONFLICT (id) DO NOTHING
    RETURNING id, tenant_id, rail, stream, not_before, traceparent
), queued AS (
    INSERT INTO fleet.outbox (job_id, tenant_id, rail, stream, not_before, body, traceparent)
    SELECT m.id, m.tenant_id, m.rail, m.stream, coalesce(m.not_before, now()), b.body, m.traceparent
    FROM made m JOIN unnest($1::uuid[], $20::text[]) AS b(id, body) ON b.id = m.id
    ON CONFLICT (job_id) DO NOTHING
)
SELECT id FROM made
"""


async def insert_jobs(uow: UnitOfWork, jobs: Sequence[JobRow]) -> list[UUID]:
    """Insert jobs and their outbox rows and wake the relay at commit. Return the ids that were new.

    Idempotent by id: a repeat changes nothing.
    """
    if not jobs:
        return []
    rows = sorted(jobs, key=lambda job: job.id.int)
    found = await uow.connection.fetch(
        _INSERT,
        [job.id for job in rows],
        [job.tenant_id for job in rows],
        [job.intent_id for job in rows],
        [job.target_job_id for job in rows],
        [job.kind for job in rows],
        [job.operation for job in rows],
        [job.rail for job in rows],
        [job.provider for job in rows],
        [job.provider_account for job in rows],
        [job.environment for job in rows],
        [job.reference for job in rows],
        [job.amount_minor for job in rows],
        [job.currency for job in rows],
        [job.payee_masked for job in rows],
        [job.deadline for job in rows],
        [job.not_before for job in rows],
        [job.stream for job in rows],
        [job.ledger_epoch for job in rows],
        [job.traceparent for job in rows],
        [job_body(job) for job in rows],
    )
    await uow.connection.execute(NOTIFY_OUTBOX)
    return [row["id"] for row in found]


def job_of(row: Any) -> JobRow:
    """Return the job in a record that has the columns of JOB_COLUMNS."""
    return JobRow(**{name: _ENUMS[name](row[name]) if name in _ENUMS else row[name] for name in _FIELDS})
