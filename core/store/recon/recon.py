"""Reconciliation in PostgreSQL: reads pages of intents with their books, keeps breaks."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID

from core.domain.ids import id_time_ms, ids_of_that_time
from core.domain.intents import IntentRow
from core.domain.reconciliation import Booked, Break, BreakKind, Told
from core.services.recon.recon import Books
from core.store.database import UnitOfWork
from core.store.payments.intents import INTENT_COLUMNS, intent_of
from core.store.settling.facts import TOLD_AGAIN
from schemas.recon import BreakState, BreakView

_PAGE: Final = f"""
SELECT {", ".join(INTENT_COLUMNS)} FROM fleet.intents
WHERE ($1::uuid IS NULL OR id > $1) AND ($2::timestamptz IS NULL OR id >= fleet.first_id_at($2))
    AND ($4::timestamptz IS NULL OR id < fleet.first_id_at($4)) ORDER BY id LIMIT $3
"""  # noqa: S608 - a constant list of columns
_BOOKED: Final = """
SELECT id, debit_account_id, credit_account_id, amount_minor, flags FROM fleet.transfers
WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2 AND $3
"""
_RESOLVED: Final = """
SELECT pending_id FROM fleet.transfer_resolutions WHERE pending_id = ANY ($1::uuid[]) AND pending_id BETWEEN $2 AND $3
"""
# What was dropped with its month, as docs/retention.md has it, tells nothing, and so contradicts nothing.
_TOLD: Final = """
SELECT intent_id, count(*) AS events, max(seq) AS seq, (array_agg(state ORDER BY seq DESC))[1] AS state
FROM fleet.intent_events WHERE intent_id = ANY ($1::uuid[]) AND intent_id BETWEEN $2 AND $3 GROUP BY intent_id
UNION ALL
SELECT id, version, version, state FROM fleet.intents
WHERE id = ANY ($1::uuid[]) AND id < (SELECT upto FROM fleet.lost_months WHERE table_name = 'intent_events'
        ORDER BY month DESC LIMIT 1)
    AND NOT EXISTS (SELECT FROM fleet.intent_events WHERE intent_id = intents.id)
"""
_HOMELESS: Final = """
SELECT t.id, t.tenant_id, t.amount_minor FROM fleet.transfers t
LEFT JOIN fleet.transfer_resolutions r ON r.pending_id = t.id
LEFT JOIN fleet.intents i ON i.id = t.user_data
WHERE t.flags & 2 = 2 AND t.expires_at IS NULL AND r.pending_id IS NULL AND i.id IS NULL
    AND ($1::timestamptz IS NULL OR t.id >= fleet.first_id_at($1))
    AND ($2::timestamptz IS NULL OR t.id < fleet.first_id_at($2))
"""
OPEN_AGAIN: Final = """(b.state = 'GONE'
            OR b.state = 'RESOLVED' AND (b.amount_minor, b.detail) <> (excluded.amount_minor, excluded.detail))"""
"""A break that came back, or that was put right as something else than it is now."""
_RECORD: Final = f"""
WITH kept AS (
    INSERT INTO fleet.breaks AS b (id, tenant_id, kind, subject_id, amount_minor, currency, detail)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::bigint[], $6::text[], $7::text[])
    ON CONFLICT (id) DO UPDATE SET last_seen_at = now(), detail = excluded.detail, amount_minor = excluded.amount_minor,
        state = CASE WHEN {OPEN_AGAIN} THEN 'OPEN' ELSE b.state END,
        ended_at = CASE WHEN {OPEN_AGAIN} THEN NULL ELSE b.ended_at END
    RETURNING id, tenant_id, kind, detail, state, xmax = 0 AS is_new
), told AS (
    INSERT INTO fleet.alerts (id, tenant_id, severity, kind, detail)
    SELECT id, tenant_id, 'page', 'reconciliation_break', kind || ': ' || detail FROM kept WHERE state = 'OPEN'
    {TOLD_AGAIN}
)
SELECT count(*) FILTER (WHERE is_new) FROM kept
"""  # noqa: S608 - a constant
_END: Final = """
UPDATE fleet.breaks SET state = 'GONE', ended_at = now()
WHERE state IN ('OPEN', 'PROPOSED') AND id <> ALL ($1::uuid[])
    AND (kind = ANY ($2::text[]) OR ('ledger' = ANY ($2::text[]) AND kind LIKE 'ledger\\_%'))
"""
_VIEW: Final = """
SELECT *, floor(extract(epoch FROM coalesce(ended_at, now()) - first_seen_at))::bigint AS age_s FROM fleet.breaks
"""


class ReconStore:
    """See `core.services.recon.recon.Reconciler`."""

    async def freeze(self, uow: UnitOfWork) -> None:
        """See one moment until the transaction ends."""
        await uow.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    async def alone(self, uow: UnitOfWork, what: str, longest_s: int) -> bool:
        """Whether nobody else does it, until the transaction ends; no statement of it may then take any longer."""
        await uow.connection.execute("SELECT set_config('statement_timeout', $1, true)", f"{longest_s}s")
        taken: bool = await uow.connection.fetchval(
            "SELECT pg_try_advisory_xact_lock(hashtextextended('fleet.recon:' || $1, 0))", what
        )
        return taken

    async def oldest(self, uow: UnitOfWork) -> datetime | None:
        """Return when the first intent was accepted; None where there is none."""
        first: UUID | None = await uow.connection.fetchval("SELECT id FROM fleet.intents ORDER BY id LIMIT 1")
        return None if first is None else datetime.fromtimestamp(id_time_ms(first) / 1000, UTC)

    async def walk(
        self, uow: UnitOfWork, since: datetime | None, page: int, until: datetime | None = None
    ) -> AsyncIterator[list[IntentRow]]:
        """Read intents in id order."""
        last: UUID | None = None
        while rows := await uow.connection.fetch(_PAGE, last, since, page, until):
            yield [intent_of(row) for row in rows]
            last = rows[-1]["id"]

    async def books(self, uow: UnitOfWork, intents: Sequence[UUID], transfers: Sequence[UUID]) -> Books:
        """Return transfers and resolutions by their ids, and what the intents' events say."""
        if not intents or not transfers:
            return Books({}, set(), {})
        bounds = (min(transfers), max(transfers))
        booked = await uow.connection.fetch(_BOOKED, transfers, *bounds)
        resolved = await uow.connection.fetch(_RESOLVED, transfers, *bounds)
        told = await uow.connection.fetch(_TOLD, intents, *ids_of_that_time(intents))
        return Books(
            {row["id"]: Booked(*row) for row in booked},
            {row["pending_id"] for row in resolved},
            {row["intent_id"]: Told(row["events"], row["seq"], row["state"]) for row in told},
        )

    async def homeless_holds(
        self, uow: UnitOfWork, since: datetime | None, until: datetime | None = None
    ) -> list[Break]:
        """Return holds that no intent knows."""
        return [
            Break(BreakKind.ORPHAN_HOLD.value, row["tenant_id"], row["id"], "a hold of no intent", row["amount_minor"])
            for row in await uow.connection.fetch(_HOMELESS, since, until)
        ]

    async def record(self, uow: UnitOfWork, breaks: Sequence[Break]) -> int:
        """Keep breaks, each once, and alert about new ones; return how many are new."""
        if not breaks:
            return 0
        rows = {each.id: each for each in breaks}
        columns = [
            (x.id, x.tenant_id, x.kind, x.subject_id, x.amount_minor, x.currency, x.detail) for x in rows.values()
        ]
        return int(await uow.connection.fetchval(_RECORD, *(list(column) for column in zip(*columns, strict=True))))

    async def end_missing(self, uow: UnitOfWork, kinds: Sequence[str], seen: Sequence[UUID]) -> int:
        """End the open breaks of these kinds that a full run did not see; return how many."""
        done: str = await uow.connection.execute(_END, list(seen), list(kinds))
        return int(done.rsplit(" ", 1)[1])

    async def page(
        self,
        uow: UnitOfWork,
        tenant_id: UUID | None,
        state: BreakState | None,
        kind: str | None,
        limit: int,
        rail: str | None = None,
        day: date | None = None,
        after: tuple[datetime, UUID] | None = None,
    ) -> list[BreakView]:
        """Return breaks, the oldest first; `after` is when the last one of a page was first seen, and its id."""
        rows = await uow.connection.fetch(
            _VIEW + " WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR state = $2)"
            " AND ($3::text IS NULL OR kind = $3) AND ($5::text IS NULL OR rail = $5)"
            " AND ($6::date IS NULL OR business_day = $6)"
            " AND ($7::timestamptz IS NULL OR (first_seen_at, id) > ($7, $8::uuid))"
            " ORDER BY first_seen_at, id LIMIT $4",
            tenant_id,
            state,
            kind,
            limit,
            rail,
            day,
            *(after or (None, None)),
        )
        return [BreakView(**dict(row)) for row in rows]

    async def between(self, uow: UnitOfWork, begin: datetime, end: datetime, limit: int) -> list[BreakView]:
        """Return the breaks of every tenant that were open at some time of a period, the oldest first."""
        where = " WHERE first_seen_at < $2 AND (ended_at IS NULL OR ended_at >= $1) ORDER BY first_seen_at, id LIMIT $3"
        return [BreakView(**dict(row)) for row in await uow.connection.fetch(_VIEW + where, begin, end, limit)]

    async def find(self, uow: UnitOfWork, break_id: UUID, tenant_id: UUID | None) -> BreakView | None:
        """Return one break, locked; None where there is none of this tenant."""
        row = await uow.connection.fetchrow(
            _VIEW + " WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) FOR UPDATE", break_id, tenant_id
        )
        return None if row is None else BreakView(**dict(row))

    async def puts_another_right(self, uow: UnitOfWork, entry: UUID, break_id: UUID) -> bool:
        """Whether a payment is already the entry of another break than this one."""
        found: bool = await uow.connection.fetchval(
            "SELECT EXISTS (SELECT FROM fleet.breaks"
            " WHERE entry_intent_id = $1 AND id <> $2 AND state IN ('PROPOSED', 'RESOLVED'))",
            entry,
            break_id,
        )
        return found

    async def change(self, uow: UnitOfWork, break_id: UUID, **changed: Any) -> None:
        """Set fields; `now` for a time is the database's."""
        sets: list[str] = []
        arguments: list[Any] = [break_id]
        for name, value in changed.items():
            if value == "now":
                sets.append(f"{name} = now()")
                continue
            arguments.append(value)
            sets.append(f"{name} = ${len(arguments)}")
        await uow.connection.execute(f"UPDATE fleet.breaks SET {', '.join(sets)} WHERE id = $1", *arguments)  # noqa: S608
