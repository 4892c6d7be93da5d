"""The port to a ledger engine. Any engine that passes tests/conformance/ledger may stand behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
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


class LedgerUnavailableError(RuntimeError):
    """The engine could not decide (an id belongs to another tenant, or races did not end); nothing was written."""


class TrustMisplacedError(RuntimeError):
    """A transfer, or what limits count of it, was not taken that the unit of work took for it; nothing was written."""


class LedgerUnitOfWork(Protocol):
    """An open transaction of the caller; what it offers beyond its context is between it and the engine."""

    @property
    def context(self) -> Context: ...


@dataclass(frozen=True, slots=True)
class HistoryCursor:
    """Where the next page begins: before this movement, with this posted balance."""

    at: datetime
    transfer_id: UUID
    balance_minor: int


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One posted movement; `delta_minor` is positive for a credit, `balance_minor` is the balance after it."""

    transfer: Transfer
    delta_minor: int
    balance_minor: int
    at: datetime


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Movements, newest first; `next_cursor` is None on the last page."""

    entries: Sequence[HistoryEntry]
    next_cursor: HistoryCursor | None


@dataclass(frozen=True, slots=True)
class BalanceAt:
    """What an account owned and what of it was held, in minor units, just before a moment."""

    posted_minor: int
    held_minor: int


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One thing that the proof found wrong; `subject_id` is an account, a transfer or None for a ledger."""

    kind: str
    subject_id: UUID | None
    detail: str


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """The result of `verify`: it holds when there is no discrepancy."""

    accounts: int
    transfers: int
    pending_minor: int
    discrepancies: Sequence[Discrepancy]

    @property
    def holds(self) -> bool:
        """Whether the ledger is proven."""
        return not self.discrepancies


class Ledger(Protocol):
    """Accounts and transfers. Idempotent by id; promises nothing about the caller's transaction.

    With a unit of work an engine may join it; with None it commits by itself before it answers, under the
    context that it was built with. Results are aligned with the input.
    """

    async def create_accounts(
        self, uow: LedgerUnitOfWork | None, accounts: Sequence[Account]
    ) -> Sequence[AccountResult]: ...

    async def apply(self, uow: LedgerUnitOfWork | None, transfers: Sequence[Transfer]) -> Sequence[TransferResult]:
        """Apply the batch in order; each chain as one. A failed transfer or chain leaves the others be."""
        ...

    async def change_account(
        self, uow: LedgerUnitOfWork | None, account_id: UUID, change: AccountChange
    ) -> AccountChangeResult:
        """Freeze, unfreeze or close an account, in order with every transfer on it."""
        ...

    async def lookup_accounts(
        self, uow: LedgerUnitOfWork | None, ids: Sequence[UUID]
    ) -> dict[UUID, AccountBalance]: ...

    async def lookup_transfers(self, uow: LedgerUnitOfWork | None, ids: Sequence[UUID]) -> dict[UUID, Transfer]: ...

    async def account_history(
        self, uow: LedgerUnitOfWork | None, account_id: UUID, cursor: HistoryCursor | None, limit: int
    ) -> HistoryPage:
        """Return up to `limit` posted movements before the cursor, newest first. Pages never change afterwards."""
        ...

    async def settle_past(self, uow: LedgerUnitOfWork | None, account_id: UUID) -> datetime:
        """Return a moment before which nothing will be added to the account any more.

        It waits for the transfers under way on the account, and holds them up until the unit of work ends: give it one
        of its own.
        """
        ...

    async def balance_at(self, uow: LedgerUnitOfWork | None, account_id: UUID, at: datetime) -> BalanceAt:
        """Return the account's balances just before a settled moment. An account that is not there had nothing."""
        ...

    async def entries_after(
        self, uow: LedgerUnitOfWork | None, account_id: UUID, after: HistoryCursor, until: datetime, limit: int
    ) -> Sequence[HistoryEntry]:
        """Return up to `limit` posted movements after the cursor and before a settled moment, oldest first."""
        ...

    async def expire(self, uow: LedgerUnitOfWork | None, limit: int) -> int:
        """Release up to `limit` holds whose time-out has passed by the engine's clock; return how many."""
        ...

    async def verify(self, uow: LedgerUnitOfWork | None) -> LedgerReport:
        """Prove every balance from the transfers alone, in one pass over a single snapshot."""
        ...
