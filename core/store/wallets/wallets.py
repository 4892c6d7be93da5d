"""Wallets in PostgreSQL: whose they are and what they are called; their balances are the ledger's."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from core.services.wallets.wallets import Wallet
from core.store.database import UnitOfWork
from schemas.wallets import WalletEvent, WalletEventType

_SELECT: Final = "SELECT id, tenant_id, owner, currency, external_id, created_at FROM fleet.wallets"
_ADD_EVENT: Final = """
INSERT INTO fleet.wallet_events (wallet_id, seq, tenant_id, type, actor, reason, data, at)
SELECT $1, count(*) + 1, $2, $3, $4, $5, $6::jsonb, clock_timestamp()
FROM fleet.wallet_events WHERE wallet_id = $1
"""


class WalletStore:
    """The wallets of the unit of work's tenant."""

    async def insert_wallet(self, uow: UnitOfWork, wallet: Wallet) -> bool:
        """Insert; False where the external id is taken."""
        made = await uow.connection.fetchval(
            "INSERT INTO fleet.wallets (id, tenant_id, owner, currency, external_id, created_at)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, external_id) DO NOTHING RETURNING id",
            wallet.id,
            wallet.tenant_id,
            wallet.owner,
            wallet.currency,
            wallet.external_id,
            wallet.created_at,
        )
        return made is not None

    async def find_wallets(self, uow: UnitOfWork, ids: Sequence[UUID]) -> dict[UUID, Wallet]:
        """Return those that exist."""
        rows = await uow.connection.fetch(
            f"{_SELECT} WHERE tenant_id = $1 AND id = ANY ($2::uuid[])", uow.context.tenant_id, ids
        )
        return {row["id"]: _wallet(row) for row in rows}

    async def find_by_external_id(self, uow: UnitOfWork, external_id: str) -> Wallet | None:
        """Return the wallet of the client's own id."""
        row = await uow.connection.fetchrow(
            f"{_SELECT} WHERE tenant_id = $1 AND external_id = $2", uow.context.tenant_id, external_id
        )
        return None if row is None else _wallet(row)

    async def wallets_of(
        self, uow: UnitOfWork, owner: str | None, ids: Sequence[UUID] | None, after: UUID, limit: int
    ) -> list[Wallet]:
        """Return up to `limit` wallets of the owner, or of all, in the order of ids; of `ids` alone where given."""
        rows = await uow.connection.fetch(
            f"{_SELECT} WHERE tenant_id = $1 AND ($2::text IS NULL OR owner = $2) AND id > $3"
            " AND ($4::uuid[] IS NULL OR id = ANY ($4))"
            " ORDER BY id LIMIT $5",
            uow.context.tenant_id,
            owner,
            after,
            ids,
            limit,
        )
        return [_wallet(row) for row in rows]

    async def owned_by(self, uow: UnitOfWork, owner: str) -> frozenset[UUID]:
        """Return the ids of all the owner's wallets."""
        rows = await uow.connection.fetch(
            "SELECT id FROM fleet.wallets WHERE tenant_id = $1 AND owner = $2", uow.context.tenant_id, owner
        )
        return frozenset(row["id"] for row in rows)

    async def set_external_id(
        self, uow: UnitOfWork, wallet_id: UUID, external_id: str | None
    ) -> tuple[bool, str | None]:
        """Lock the wallet and set its external id; return whether that one was free, and the id before.

        Where it was not, the transaction is lost.
        """
        tenant_id = uow.context.tenant_id
        before = await uow.connection.fetchval(
            "SELECT external_id FROM fleet.wallets WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE",
            tenant_id, wallet_id,
        )  # fmt: skip
        if before == external_id:
            return True, before
        try:
            await uow.connection.execute(
                "UPDATE fleet.wallets SET external_id = $3 WHERE tenant_id = $1 AND id = $2",
                tenant_id,
                wallet_id,
                external_id,
            )
        except asyncpg.UniqueViolationError:
            return False, before
        return True, before

    async def add_event(
        self, uow: UnitOfWork, wallet_id: UUID, kind: WalletEventType, reason: str, data: Mapping[str, Any]
    ) -> None:
        """Append an event, under the wallet's lock: numbers have no gaps and no twins."""
        await uow.connection.execute(
            "SELECT FROM fleet.wallets WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE",
            uow.context.tenant_id,
            wallet_id,
        )
        await uow.connection.execute(_ADD_EVENT, wallet_id, uow.context.tenant_id, kind, uow.context.actor, reason,
            orjson.dumps(data).decode())  # fmt: skip

    async def events_of(self, uow: UnitOfWork, wallet_id: UUID) -> list[WalletEvent]:
        """Return the wallet's events, oldest first."""
        rows = await uow.connection.fetch(
            "SELECT seq, type, actor, reason, data, at FROM fleet.wallet_events"
            " WHERE tenant_id = $1 AND wallet_id = $2 ORDER BY seq",
            uow.context.tenant_id, wallet_id,
        )  # fmt: skip
        return [WalletEvent.model_validate(dict(row) | {"data": orjson.loads(row["data"])}) for row in rows]


def _wallet(row: asyncpg.Record) -> Wallet:
    return Wallet(**dict(row))
