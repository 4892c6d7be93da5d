"""Projections in PostgreSQL: compared with the history in one snapshot, and written under the payments' own locks."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from core.services.projections import Compared, Difference, Projection
from core.store.unit_of_work import UnitOfWork

# A hold counts as pending until a resolution names it; posts and plain transfers count as posted.
_SUMS: Final = """
SELECT a.id, a.tenant_id, ARRAY[a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted] AS stored,
    ARRAY[d.pending, d.posted, c.pending, c.posted] AS history
FROM fleet.accounts a
CROSS JOIN LATERAL (
    SELECT coalesce(sum(t.amount_minor) FILTER (WHERE t.flags & 2 = 2 AND r.pending_id IS NULL), 0)::bigint AS pending,
        coalesce(sum(t.amount_minor) FILTER (WHERE t.flags & 10 = 0), 0)::bigint AS posted
    FROM fleet.transfers t LEFT JOIN fleet.transfer_resolutions r ON r.pending_id = t.id
    WHERE t.debit_account_id = a.id) d
CROSS JOIN LATERAL (
    SELECT coalesce(sum(t.amount_minor) FILTER (WHERE t.flags & 2 = 2 AND r.pending_id IS NULL), 0)::bigint AS pending,
        coalesce(sum(t.amount_minor) FILTER (WHERE t.flags & 10 = 0), 0)::bigint AS posted
    FROM fleet.transfers t LEFT JOIN fleet.transfer_resolutions r ON r.pending_id = t.id
    WHERE t.credit_account_id = a.id) c
"""
_STATES: Final = """
SELECT i.id, i.tenant_id, ARRAY[i.state, i.version::text] AS stored, ARRAY[e.state, e.seq::text] AS history
FROM fleet.intents i CROSS JOIN LATERAL (
    SELECT state, seq FROM fleet.intent_events WHERE intent_id = i.id ORDER BY seq DESC LIMIT 1) e
"""
# A history tells each balance back from the stored one: before its first movement there is nothing, else that one is
# wrong. Each movement is told by the payment that it belongs to.
_TOLD: Final = """
SELECT a.id, a.tenant_id, ARRAY[(a.credits_posted - a.debits_posted - m.moved)::text, m.known::text] AS stored,
    ARRAY['0', m.movements::text] AS history
FROM fleet.accounts a CROSS JOIN LATERAL (
    SELECT coalesce(sum(t.moved), 0) AS moved, count(*) AS movements, count(i.id) AS known
    FROM (
        SELECT user_data, -amount_minor AS moved FROM fleet.transfers WHERE debit_account_id = a.id AND flags & 10 = 0
        UNION ALL
        SELECT user_data, amount_minor FROM fleet.transfers WHERE credit_account_id = a.id AND flags & 10 = 0
    ) t LEFT JOIN fleet.intents i ON i.id = t.user_data) m
"""
_TABLES: Final = {
    Projection.ACCOUNT_BALANCE: ("fleet.accounts", _SUMS, "a.id"),
    Projection.TX_HISTORY: ("fleet.wallets", _TOLD, "a.id"),
    Projection.INTENTS: ("fleet.intents", _STATES, "i.id"),
}
_MADE_OF: Final = {Projection.TX_HISTORY: Projection.ACCOUNT_BALANCE}
"""What is stored of a projection that is not stored itself."""
_WRITES: Final = {
    Projection.ACCOUNT_BALANCE: """
UPDATE fleet.accounts a SET debits_pending = h.history[1], debits_posted = h.history[2],
    credits_pending = h.history[3], credits_posted = h.history[4]
FROM told h WHERE a.id = h.id AND h.stored <> h.history RETURNING a.id
""",
    Projection.INTENTS: """
UPDATE fleet.intents i SET state = h.history[1], version = h.history[2]::int, updated_at = now()
FROM told h WHERE i.id = h.id AND h.stored <> h.history RETURNING i.id
""",
}
_FIRST: Final = UUID(int=0)


class ProjectionStore:
    """The Histories of `core.services.projections`, under the worker role."""

    async def compare(self, uow: UnitOfWork, projection: Projection, after: UUID | None, limit: int) -> Compared:
        """Compare one page, in the order of ids."""
        table, text, column = _TABLES[projection]
        rows = await uow.connection.fetch(
            f"{text} WHERE {column} IN (SELECT id FROM {table} WHERE id > $1 ORDER BY id LIMIT $2)"  # noqa: S608
            f" ORDER BY {column}",
            after or _FIRST,
            limit,
        )
        different = tuple(
            Difference(projection, row["id"], row["tenant_id"], _text(row["stored"]), _text(row["history"]))
            for row in rows
            if row["stored"] != row["history"]
        )
        return Compared(different, len(rows), rows[-1]["id"] if len(rows) == limit else None)

    async def remake(self, uow: UnitOfWork, projection: Projection, subjects: Sequence[UUID]) -> list[UUID]:
        """Make rows anew that still differ once they are locked: a second statement sees what was waited for."""
        made = _MADE_OF.get(projection, projection)
        table, text, column = _TABLES[made]
        await uow.connection.execute(
            f"SELECT FROM {table} WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE",
            subjects,
        )
        rows = await uow.connection.fetch(
            f"WITH told AS MATERIALIZED ({text} WHERE {column} = ANY ($1::uuid[])) {_WRITES[made]}",
            subjects,
        )
        return [row["id"] for row in rows]


def _text(values: Sequence[object]) -> str:
    return "/".join(map(str, values))
