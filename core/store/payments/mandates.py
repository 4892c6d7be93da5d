"""Mandates in PostgreSQL, and which debit drew on which."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from core.domain.mandates import Mandate
from core.store.unit_of_work import UnitOfWork, Write
from schemas.events import TERMINAL_STATES
from schemas.mandates import MandateDebit, MandateKind, SequenceType

_DEBITS_SHOWN: Final = 100
_COLUMNS: Final = (
    "tenant_id, mandate_id, wallet_id, kind, signed_on, valid_from, valid_until, max_amount_minor, debtor,"
    " account_masked, created_by, created_at, cancelled_at"
)
_SELECT: Final = f"SELECT {_COLUMNS}, now() AS now FROM fleet.mandates WHERE tenant_id = $1"  # noqa: S608 - a constant
# A debit that failed drew on nothing.
_DRAWN: Final = """
SELECT d.mandate_id, array_agg(DISTINCT d.sequence) AS drawn
FROM fleet.mandate_debits d JOIN fleet.intents i ON i.id = d.intent_id
WHERE d.tenant_id = $1 AND d.mandate_id = ANY ($2::text[]) AND i.state NOT IN ('FAILED', 'CANCELLED', 'EXPIRED')
GROUP BY d.mandate_id
"""
_DEBITS: Final = """
SELECT d.intent_id, d.sequence, i.state
FROM fleet.mandate_debits d JOIN fleet.intents i ON i.id = d.intent_id
WHERE d.tenant_id = $1 AND d.mandate_id = $2 ORDER BY d.intent_id DESC LIMIT $3
"""
_OPEN: Final = """
SELECT d.intent_id FROM fleet.mandate_debits d JOIN fleet.intents i ON i.id = d.intent_id
WHERE d.tenant_id = $1 AND d.mandate_id = $2 AND i.state <> ALL ($3::text[]) ORDER BY d.intent_id
"""
_DRAW: Final = Write(
    """
drawn_mandates AS (
    INSERT INTO fleet.mandate_debits (tenant_id, mandate_id, intent_id, sequence)
    SELECT $1, * FROM unnest($2::text[], $3::uuid[], $4::text[]) RETURNING intent_id
)
""",
    frozenset({"mandate_debits"}),
    "SELECT count(*) FROM drawn_mandates",
)


class MandateStore:
    """The mandates of the unit of work's tenant."""

    async def insert(self, uow: UnitOfWork, mandate: Mandate) -> bool:
        """Keep a new one; False where its id is taken."""
        made = await uow.connection.fetchval(
            "INSERT INTO fleet.mandates (tenant_id, mandate_id, wallet_id, kind, signed_on, valid_from, valid_until,"
            " max_amount_minor, debtor, account_masked, created_by)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
            " ON CONFLICT (tenant_id, mandate_id) DO NOTHING RETURNING mandate_id",
            mandate.tenant_id,
            mandate.mandate_id,
            mandate.wallet_id,
            mandate.kind,
            mandate.signed_on,
            mandate.valid_from,
            mandate.valid_until,
            mandate.max_amount_minor,
            mandate.debtor,
            mandate.account_masked,
            mandate.created_by,
        )
        return made is not None

    async def lock(self, uow: UnitOfWork, ids: Sequence[str]) -> tuple[dict[str, Mandate], datetime | None]:
        """Return those that exist, locked in id order until the end, and the moment; None where none was found."""
        rows = await uow.connection.fetch(
            f"{_SELECT} AND mandate_id = ANY ($2::text[]) ORDER BY mandate_id FOR NO KEY UPDATE",
            uow.context.tenant_id,
            ids,
        )
        # After the lock, in a statement of its own: it sees what others drew before they let the lock go.
        return await self._with_drawn(uow, rows), rows[0]["now"] if rows else None

    async def find(self, uow: UnitOfWork, mandate_id: str) -> tuple[Mandate, list[MandateDebit]] | None:
        """Return a mandate and its newest debits, newest first."""
        tenant_id = uow.context.tenant_id
        rows = await uow.connection.fetch(f"{_SELECT} AND mandate_id = $2", tenant_id, mandate_id)
        if not rows:
            return None
        debits = await uow.connection.fetch(_DEBITS, tenant_id, mandate_id, _DEBITS_SHOWN)
        mandates = await self._with_drawn(uow, rows)
        return mandates[mandate_id], [MandateDebit.model_validate(dict(row)) for row in debits]

    async def page(self, uow: UnitOfWork, wallets: Sequence[UUID] | None, after: str, limit: int) -> list[Mandate]:
        """Return up to `limit` mandates behind an id, of these wallets where given, in the order of ids."""
        rows = await uow.connection.fetch(
            f"{_SELECT} AND mandate_id > $2 AND ($3::uuid[] IS NULL OR wallet_id = ANY ($3)) ORDER BY mandate_id"
            " LIMIT $4",
            uow.context.tenant_id,
            after,
            wallets,
            limit,
        )
        return list((await self._with_drawn(uow, rows)).values())

    async def cancel(self, uow: UnitOfWork, mandate_id: str) -> None:
        """Note that nothing more is pulled under it."""
        await uow.connection.execute(
            "UPDATE fleet.mandates SET cancelled_at = now() WHERE tenant_id = $1 AND mandate_id = $2",
            uow.context.tenant_id,
            mandate_id,
        )

    async def open_debits(self, uow: UnitOfWork, mandate_id: str) -> list[UUID]:
        """Return its debits that have not ended, oldest first."""
        rows = await uow.connection.fetch(_OPEN, uow.context.tenant_id, mandate_id, sorted(TERMINAL_STATES))
        return [row["intent_id"] for row in rows]

    async def draw(self, uow: UnitOfWork, debits: Mapping[UUID, tuple[str, SequenceType]]) -> None:
        """Note under which mandate each intent draws, and as which debit of it."""
        ids, sequences = zip(*debits.values(), strict=True)
        await uow.later(_DRAW, uow.context.tenant_id, list(ids), list(debits), list(sequences), expected=len(debits))

    async def _with_drawn(self, uow: UnitOfWork, rows: Sequence[asyncpg.Record]) -> dict[str, Mandate]:
        ids = [row["mandate_id"] for row in rows]
        found = await uow.connection.fetch(_DRAWN, uow.context.tenant_id, ids) if ids else []
        drawn = {row["mandate_id"]: {SequenceType(each) for each in row["drawn"]} for row in found}
        return {row["mandate_id"]: _mandate(row, drawn.get(row["mandate_id"], set())) for row in rows}


def _mandate(row: asyncpg.Record, drawn: set[SequenceType]) -> Mandate:
    kept = {name: value for name, value in row.items() if name != "now"}
    return Mandate(**{**kept, "kind": MandateKind(row["kind"])}, drawn=drawn)
