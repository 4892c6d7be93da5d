"""Looks for what stands, a bounded page at a time, in the order of ids, which is that of time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from core.domain.stranded import Standing
from core.services.settling.completer import CounterPage, HeldAfterEnd, LimitCounter, Range, Walk
from core.store.settling.outbox import BODY_OF_ROW
from core.store.terms.overheld import overheld_page, put_right
from core.store.unit_of_work import UnitOfWork
from schemas.events import TERMINAL_STATES, IntentState
from schemas.operations import OperationType

_ENDED: Final = ", ".join(f"'{state}'" for state in sorted(TERMINAL_STATES))
_PAGE: Final = """
SELECT count(*) AS count, max(id::text)::uuid AS last FROM (
    SELECT id FROM fleet.intents WHERE id > $1 ORDER BY id LIMIT $2) page
"""
# Whatever changed within the grace is left to whoever is at it.
_STANDING: Final = """
SELECT i.id, i.tenant_id, i.operation, i.state, i.decision IS NOT NULL AS decided, i.parked_at IS NOT NULL AS marked,
    coalesce(i.deadline <= now(), false) AS late, i.direction, i.review_until IS NOT NULL AS review_ends,
    i.updated_at > now() - $3 * interval '1 second' AS fresh, j.jobs, j.open_jobs, j.unqueued, j.unchecked,
    i.state <> 'UNRESOLVED' OR EXISTS (SELECT FROM fleet.alerts a
        WHERE a.intent_id = i.id AND a.closed_at IS NULL) AS alerted,
    CASE WHEN i.operation = 'DIRECT_DEBIT' AND NOT EXISTS (SELECT FROM fleet.attempts a
        WHERE a.job_id = ANY (j.open_jobs) AND a.mode = 'SEND' AND a.negative_at IS NULL)
        THEN EXISTS (SELECT FROM fleet.mandate_debits d
        JOIN fleet.mandates m ON m.tenant_id = d.tenant_id AND m.mandate_id = d.mandate_id
        WHERE d.intent_id = i.id AND m.cancelled_at <= now() - $3 * interval '1 second') ELSE false END AS withdrawn
FROM fleet.intents i CROSS JOIN LATERAL (
    SELECT count(*) AS jobs,
        coalesce(array_agg(j.id) FILTER (WHERE j.closed_at IS NULL AND CASE j.kind WHEN 'inquire' THEN NOT EXISTS (
            SELECT FROM fleet.doubted_ends d WHERE d.question_id = j.id AND d.next_ask_at IS NOT NULL)
            ELSE true END), '{}') AS open_jobs,
        coalesce(array_agg(j.id) FILTER (WHERE j.closed_at IS NULL AND j.state = 'READY'
            AND NOT EXISTS (SELECT FROM fleet.outbox o WHERE o.job_id = j.id)), '{}') AS unqueued,
        coalesce(array_agg(j.id) FILTER (WHERE j.closed_at IS NULL AND j.state = 'WAITING'
            AND j.next_check_at IS NULL AND j.kind NOT IN ('inquire', 'cancel')
            AND j.deadline > now() + interval '1 hour'), '{}') AS unchecked
    FROM fleet.jobs j WHERE j.intent_id = i.id AND j.id >= $4) j
WHERE {which} AND (i.state NOT IN ({ended}) OR j.open_jobs <> '{}')
ORDER BY i.id
""".replace("{ended}", _ENDED)
_OF_RANGE: Final = _STANDING.replace("{which}", "i.id > $1 AND i.id <= $2")
_OF_INTENT: Final = _STANDING.replace("{which}", "i.id = $1 AND i.id = $2")
_HELD: Final = f"""
SELECT t.user_data AS intent_id, (min(t.tenant_id::text))::uuid AS tenant_id, (min(t.id::text))::uuid AS hold_id,
    i.id IS NOT NULL AS known
FROM fleet.transfers t LEFT JOIN fleet.intents i ON i.id = t.user_data
WHERE t.id > $1 AND t.id <= $2 AND t.flags & 2 = 2 AND t.created_at <= now() - $3 * interval '1 second'
    AND NOT EXISTS (SELECT FROM fleet.transfer_resolutions r WHERE r.pending_id = t.id)
    AND t.expires_at IS NULL AND (i.id IS NULL OR i.state IN ({_ENDED}))
GROUP BY t.user_data, i.id LIMIT 100
"""  # noqa: S608 - constants
_REQUEUE: Final = f"""
WITH lost AS (
    SELECT j.* FROM fleet.jobs j
    WHERE j.id = ANY ($1::uuid[]) AND j.state = 'READY' AND j.closed_at IS NULL
    ORDER BY j.id FOR NO KEY UPDATE OF j
), again AS (
    INSERT INTO fleet.outbox (job_id, round, tenant_id, rail, stream, not_before, body, traceparent)
    SELECT r.id, r.rounds, r.tenant_id, r.rail, r.stream, coalesce(r.not_before, now()), {BODY_OF_ROW}, r.traceparent
    FROM lost r WHERE NOT EXISTS (SELECT FROM fleet.outbox o WHERE o.job_id = r.id)
    ON CONFLICT DO NOTHING RETURNING stream
)
SELECT count(pg_notify('fleet_outbox', stream)) FROM (SELECT DISTINCT stream FROM again) streams
"""  # noqa: S608 - constants


# Behind what the last whole walk has not seen ended, or not seen at all; everything, where there was none.
_BEGIN: Final = """
SELECT (SELECT least(fleet.first_id_at(now() - $1 * interval '1 day')::text, fleet.first_id_at(begun_at)::text,
    oldest_open::text)::uuid FROM fleet.recovery_walks)
"""
_KEEP_WALK: Final = """
INSERT INTO fleet.recovery_walks (begun_at, ended_at, scanned, oldest_open) VALUES ($1, now(), $2, $3)
ON CONFLICT (is_last) DO UPDATE SET begun_at = excluded.begun_at, ended_at = excluded.ended_at,
    scanned = excluded.scanned, oldest_open = excluded.oldest_open
"""


class StrandedStore:
    """Reads under the worker role, which sees every tenant."""

    async def next_range(self, uow: UnitOfWork, after: UUID | None, lookback_days: int, limit: int) -> Range:
        """Return the next page of ids behind `after`; without one, behind the oldest that may stand."""
        if after is None:
            begin = await uow.connection.fetchval(_BEGIN, lookback_days)
            after = UUID(int=max(0, begin.int - 1)) if begin is not None else UUID(int=0)
        (row,) = await uow.connection.fetch(_PAGE, after, limit)
        if row["count"] < limit:
            newest = await uow.connection.fetchval("SELECT fleet.first_id_at(now() + interval '1 minute')")
            return Range(after, newest, row["count"], is_last=True)
        return Range(after, row["last"], row["count"], is_last=False)

    async def standing(self, uow: UnitOfWork, ids: Range, grace_s: float) -> tuple[list[Standing], UUID | None]:
        """Return the intents of a range that are open, or ended with open jobs, and the oldest open one.

        What changed within the grace is left out: somebody is at it.
        """
        rows = await uow.connection.fetch(_OF_RANGE, ids.after, ids.upto, grace_s, ids.lowest)
        oldest = next((row["id"] for row in rows if not IntentState(row["state"]).is_terminal), None)
        return [_standing(row) for row in rows if not row["fresh"]], oldest

    async def standing_of(self, uow: UnitOfWork, intent_id: UUID) -> Standing | None:
        """Return one intent as it stands now; None where it does not."""
        rows = await uow.connection.fetch(_OF_INTENT, intent_id, intent_id, 0, UUID(int=intent_id.int >> 80 << 80))
        return _standing(rows[0]) if rows else None

    async def held_after_end(self, uow: UnitOfWork, ids: Range, grace_s: float) -> list[HeldAfterEnd]:
        """Return what is held in a range for intents that have ended, or do not exist."""
        rows = await uow.connection.fetch(_HELD, ids.lowest, ids.upto, grace_s)
        return [HeldAfterEnd(row["intent_id"], row["tenant_id"], row["hold_id"], row["known"]) for row in rows]

    async def begin_walk(self, uow: UnitOfWork) -> datetime:
        """Return the database's time."""
        now: datetime = await uow.connection.fetchval("SELECT now()")
        return now

    async def keep_walk(self, uow: UnitOfWork, walk: Walk) -> datetime:
        """Keep that a walk has come to its end; return when."""
        await uow.connection.execute(_KEEP_WALK, walk.begun_at, walk.scanned, walk.oldest_open)
        ended: datetime = await uow.connection.fetchval("SELECT now()")
        return ended

    async def overheld(self, uow: UnitOfWork, after: LimitCounter | None, limit: int) -> CounterPage:
        """Return the limits of one page that hold something else than the open payments have at them."""
        return await overheld_page(uow, after, limit)

    async def put_right(self, uow: UnitOfWork, counter: LimitCounter) -> bool:
        """Let a limit hold what the open payments have at it; False where it does."""
        return await put_right(uow, counter)

    async def end_review(self, uow: UnitOfWork, intent_id: UUID) -> None:
        """Let the wait of an intent in REVIEW end at its deadline, or now where it has none."""
        await uow.connection.execute(
            "UPDATE fleet.intents SET review_until = coalesce(deadline, now())"
            " WHERE id = $1 AND state = 'REVIEW' AND review_until IS NULL",
            intent_id,
        )

    async def requeue_ready(self, uow: UnitOfWork, job_ids: Sequence[UUID]) -> None:
        """Write the outbox rows of ready jobs that have none, and wake the relays."""
        await uow.connection.execute(_REQUEUE, job_ids)

    async def check_now(self, uow: UnitOfWork, job_ids: Sequence[UUID]) -> None:
        """Make waiting jobs the resolver's next."""
        await uow.connection.execute(
            "UPDATE fleet.jobs SET next_check_at = now() WHERE id = ANY ($1::uuid[]) AND closed_at IS NULL"
            " AND state = 'WAITING' AND next_check_at IS NULL",
            job_ids,
        )

    async def mark_parked(self, uow: UnitOfWork, intent_id: UUID) -> None:
        """Mark an UNRESOLVED intent as waiting for a person."""
        await uow.connection.execute(
            "UPDATE fleet.intents SET parked_at = coalesce(parked_at, now()) WHERE id = $1 AND state = 'UNRESOLVED'",
            intent_id,
        )


def _standing(row: Any) -> Standing:
    return Standing(
        intent_id=row["id"],
        tenant_id=row["tenant_id"],
        operation=OperationType(row["operation"]),
        state=IntentState(row["state"]),
        decided=row["decided"],
        late=row["late"],
        direction=row["direction"],
        review_ends=row["review_ends"],
        marked=row["marked"],
        alerted=row["alerted"],
        jobs=row["jobs"],
        open_jobs=tuple(row["open_jobs"]),
        unqueued=tuple(row["unqueued"]),
        unchecked=tuple(row["unchecked"]),
        withdrawn=row["withdrawn"],
    )
