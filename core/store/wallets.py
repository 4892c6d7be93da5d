"""Wallets in PostgreSQL: whose they are and what they are called; their balances are the ledger's."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from core.services.wallets import Wallet
from core.store.database import UnitOfWork

_SELECT: Final = "SELECT id, tenant_id, owner, currency, external_id, created_at FROM fleet.wallets"


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


def _wallet(row: asyncpg.Record) -> Wallet:
    return Wallet(**dict(row))
