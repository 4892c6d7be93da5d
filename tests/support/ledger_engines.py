"""The engines that stand behind the `Ledger` port, each in the modes that it has, as the conformance suite sees them.

To certify another engine: write a class with the methods of `LedgerUnderTest` and name it in `MODES`.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, Self
from uuid import UUID

from core.domain.context import Context
from core.domain.ledger import (
    Account,
    AccountBalance,
    AccountChange,
    AccountChangeResult,
    AccountResult,
    Transfer,
    TransferResult,
)
from core.services.ledger_port import HistoryCursor, HistoryPage, LedgerReport
from core.store.database import Database, UnitOfWork
from core.store.ledger.ledger import PostgresLedger
from fleet.stack.provision import RoleUrls
from tests.support.warm_sessions import WarmDatabase, warm_connection


class LedgerUnderTest(Protocol):
    """One tenant's ledger behind the port; every call is durable when it returns. `let_expire` moves its clock."""

    tenant_id: UUID

    async def create_accounts(self, accounts: Sequence[Account]) -> Sequence[AccountResult]: ...
    async def apply(self, transfers: Sequence[Transfer]) -> Sequence[TransferResult]: ...
    async def change_account(self, account_id: UUID, change: AccountChange) -> AccountChangeResult: ...
    async def lookup_accounts(self, ids: Sequence[UUID]) -> dict[UUID, AccountBalance]: ...
    async def lookup_transfers(self, ids: Sequence[UUID]) -> dict[UUID, Transfer]: ...
    async def account_history(self, account_id: UUID, cursor: HistoryCursor | None, limit: int) -> HistoryPage: ...
    async def expire(self, limit: int) -> int: ...
    async def verify(self) -> LedgerReport: ...
    async def let_expire(self, hold_ids: Iterable[UUID]) -> None: ...


class PostgresUnderTest:
    """The PostgreSQL engine as the application's role; `joins` says who owns the transaction."""

    def __init__(self, tenant_id: UUID, urls: RoleUrls, database: Database, *, joins: bool) -> None:
        self.tenant_id = tenant_id
        self._admin_url = urls.admin
        self._database = database
        self._joins = joins
        self._context = Context(tenant_id, "test")
        self._ledger = PostgresLedger(database, self._context)

    @classmethod
    @asynccontextmanager
    async def opened(cls, tenant_id: UUID, urls: RoleUrls, *, joins: bool, connections: int) -> AsyncIterator[Self]:
        """Open the pool for the block."""
        database = await WarmDatabase.connect(urls.app, min_size=1, max_size=connections)
        try:
            yield cls(tenant_id, urls, database, joins=joins)
        finally:
            await database.close()

    @asynccontextmanager
    async def _uow(self) -> AsyncIterator[UnitOfWork | None]:
        if not self._joins:
            yield None
            return
        async with self._database.unit_of_work(self._context) as uow:
            yield uow

    async def create_accounts(self, accounts: Sequence[Account]) -> Sequence[AccountResult]:
        async with self._uow() as uow:
            return await self._ledger.create_accounts(uow, accounts)

    async def apply(self, transfers: Sequence[Transfer]) -> Sequence[TransferResult]:
        async with self._uow() as uow:
            return await self._ledger.apply(uow, transfers)

    async def change_account(self, account_id: UUID, change: AccountChange) -> AccountChangeResult:
        async with self._uow() as uow:
            return await self._ledger.change_account(uow, account_id, change)

    async def lookup_accounts(self, ids: Sequence[UUID]) -> dict[UUID, AccountBalance]:
        async with self._uow() as uow:
            return await self._ledger.lookup_accounts(uow, ids)

    async def lookup_transfers(self, ids: Sequence[UUID]) -> dict[UUID, Transfer]:
        async with self._uow() as uow:
            return await self._ledger.lookup_transfers(uow, ids)

    async def account_history(self, account_id: UUID, cursor: HistoryCursor | None, limit: int) -> HistoryPage:
        async with self._uow() as uow:
            return await self._ledger.account_history(uow, account_id, cursor, limit)

    async def expire(self, limit: int) -> int:
        async with self._uow() as uow:
            return await self._ledger.expire(uow, limit)

    async def verify(self) -> LedgerReport:
        async with self._uow() as uow:
            return await self._ledger.verify(uow)

    async def let_expire(self, hold_ids: Iterable[UUID]) -> None:
        """Move the holds' time-outs into the past: the guards of history are off for this connection alone.

        What is past already stays: a hold that expired would else seem to have done so before its time-out.
        """
        async with warm_connection(self._admin_url) as connection:
            await connection.execute("SET session_replication_role = replica")
            await connection.execute(
                "UPDATE fleet.transfers SET expires_at = now() - interval '1 second'"
                " WHERE id = ANY ($1::uuid[]) AND expires_at > now()",
                list(hold_ids),
            )


MODES = {"postgres-commits-by-itself": False, "postgres-joins-the-caller": True}
"""Mode by name: whether the engine joins the caller's transaction."""
