"""The outbox: jobs on their way into a stream, written in the transaction that made them due."""

from datetime import UTC
from typing import Final

import orjson

from core.domain.jobs import JobRow

OUTBOX_CHANNEL: Final = "fleet_outbox"
NOTIFY_OUTBOX: Final = "SELECT pg_notify('fleet_outbox', stream) FROM unnest($1::text[]) AS stream"
"""Wakes the relays of these streams at commit."""
BODY_OF_ROW: Final = """jsonb_build_object('job_id', r.id, 'tenant_id', r.tenant_id, 'intent_id', r.intent_id,
        'rail', r.rail, 'provider', r.provider, 'operation', r.operation, 'kind', r.kind,
        'amount_minor', r.amount_minor, 'currency', r.currency, 'payee_masked', r.payee_masked,
        'deadline', to_char(r.deadline AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'))::text"""
"""What `job_body` writes, of a row `r` of jobs, for statements that queue what they have just made ready."""

PUT_BACK: Final = """
UPDATE fleet.outbox o SET not_before = coalesce(j.not_before, o.created_at) FROM fleet.jobs j
WHERE o.rail = $1 AND j.id = o.job_id AND j.fence = 0 AND ($2 = '*' OR j.operation = $2)
    AND o.not_before > coalesce(j.not_before, o.created_at)
"""
"""Lets what a pause of an operation put off be due when it was."""


def paused_row(pauses: str) -> str:
    """Return whether one of `pauses` holds the row `o` of the outbox: nothing was sent for it, and nothing is to be."""
    # No EXISTS, which the planner may turn round: it would look at every job there is.
    return f"""coalesce((SELECT true FROM fleet.jobs j, {pauses} p
        WHERE j.id = o.job_id AND j.fence = 0 AND j.kind NOT IN ('inquire', 'cancel')
            AND p.rail = j.rail AND p.operation IN ('*', j.operation) LIMIT 1), false)"""  # noqa: S608 - a table's name


def job_body(job: JobRow) -> str:
    """Return the Job contract as JSON text: routing, amount and a masked payee."""
    return orjson.dumps(
        {
            "job_id": job.id,
            "tenant_id": job.tenant_id,
            "intent_id": job.intent_id,
            "rail": job.rail,
            "provider": job.provider,
            "operation": job.operation,
            "kind": job.kind,
            "amount_minor": job.amount_minor,
            "currency": job.currency,
            "payee_masked": job.payee_masked,
            # All six places, as the statement above writes them: the same job has the same body whoever queues it.
            "deadline": job.deadline.astimezone(UTC).isoformat(timespec="microseconds"),
        },
        default=str,  # ids that asyncpg read are of a UUID class of its own, which orjson does not know
    ).decode()
