"""Projections: what is stored beside the history because reading it is faster, compared with it and made from it again.

Stored are what each account holds (from the transfers), and where each intent stands (from its events). A wallet's
history is read from the transfers themselves; what of it is stored is the balance that it is told back from. An account
that is gone is made again, as what its wallet, or the payments that moved money there, say that it was.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.account_names import name_account
from core.domain.intents import IntentRow
from core.domain.ledger import Account, AccountFlags
from core.domain.operations import AccountCode

UnitOfWorkFactory = Callable[[], AbstractAsyncContextManager[Any]]


class Projection(StrEnum):
    """What is stored beside the history."""

    ACCOUNT_BALANCE = "account_balance"
    """fleet.accounts, from transfers and their resolutions: held and posted, debits and credits."""
    TX_HISTORY = "tx_history"
    """What wallets' histories show: each balance from nothing on, and for each movement the payment that it was."""
    INTENTS = "intents"
    """State and version of fleet.intents, from intent_events."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that says something else than the history; amounts are minor units."""

    projection: Projection
    subject: UUID
    tenant_id: UUID
    stored: str
    history: str


@dataclass(frozen=True, slots=True)
class Compared:
    """One page: what differs in it, and where the next one begins; None after the last."""

    differences: tuple[Difference, ...]
    checked: int
    after: UUID | None


MISSING: Final = "missing"
"""What is stored of a row that is not there."""
UNKNOWN: Final = "unknown"
"""What a missing account was for, where neither a wallet nor a payment says so: no program can make it again."""


@dataclass(frozen=True, slots=True)
class MissingAccount:
    """An account that a wallet or transfers name, and that is not there."""

    id: UUID
    tenant_id: UUID
    ledger: int
    wallet_flags: AccountFlags | None
    """Of a wallet's, what its events made of it; None of the tenant's own."""
    may_overdraw: bool
    """Whether the tenant last let this account of liquidity be overdrawn."""
    intents: tuple[IntentRow, ...]
    """Some payments that moved money there."""
    provider_accounts: tuple[str, ...]

    def account(self) -> Account | None:
        """Return it as it was, without what it holds; None where nothing says what it was for."""
        if self.wallet_flags is not None:
            return Account(self.id, self.tenant_id, self.ledger, AccountCode.WALLET, self.wallet_flags)
        found = name_account(self.id, self.tenant_id, self.ledger, self.intents, self.provider_accounts)
        if found is not None and found.code == AccountCode.LIQUIDITY and self.may_overdraw:
            return replace(found, flags=found.flags & ~AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS)
        return found


class Histories(Protocol):
    """Compares pages of a projection with the history, and makes rows anew."""

    async def compare(self, uow: Any, projection: Projection, after: UUID | None, limit: int) -> Compared:
        """Compare one page in one statement, hence in one snapshot: payments that arrive make no difference."""
        ...

    async def remake(self, uow: Any, projection: Projection, subjects: Sequence[UUID]) -> list[UUID]:
        """Lock rows as payments do, and make those anew that still differ; return them."""
        ...

    async def missing_accounts(self, uow: Any, after: UUID | None, limit: int) -> list[MissingAccount]:
        """Return accounts that are named and not there, in the order of ids."""
        ...

    async def make_accounts(self, uow: Any, accounts: Sequence[Account]) -> list[UUID]:
        """Make accounts with what their transfers sum to; return those that were not there after all."""
        ...


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a run found, and which rows it made anew."""

    checked: int
    differences: tuple[Difference, ...]
    remade: tuple[UUID, ...]


async def rebuild(
    histories: Histories,
    unit_of_work: UnitOfWorkFactory,
    projections: Sequence[Projection],
    *,
    write: bool,
    limit: int = 1000,
) -> Rebuilt:
    """Compare projections page by page; with `write` make what differs or is missing anew, a page in a transaction.

    Exact while payments arrive: a row is judged again under the lock that every payment takes before it moves it.
    """
    checked, found, remade = 0, list[Difference](), list[UUID]()
    if Projection.ACCOUNT_BALANCE in projections:
        missing, made = await _make_missing(histories, unit_of_work, write=write, limit=limit)
        found, remade = found + missing, remade + made
    for projection in projections:
        after: UUID | None = None
        while True:
            async with unit_of_work() as uow:
                page = await histories.compare(uow, projection, after, limit)
            checked += page.checked
            found += page.differences
            if write and page.differences:
                async with unit_of_work() as uow:
                    remade += await histories.remake(uow, projection, [each.subject for each in page.differences])
            after = page.after
            if after is None:
                break
    return Rebuilt(checked, tuple(found), tuple(remade))


async def _make_missing(
    histories: Histories, unit_of_work: UnitOfWorkFactory, *, write: bool, limit: int
) -> tuple[list[Difference], list[UUID]]:
    """Find accounts that are gone; with `write` make those again of which it is known what they were for."""
    found, made = list[Difference](), list[UUID]()
    after: UUID | None = None
    while True:
        async with unit_of_work() as uow:
            page = await histories.missing_accounts(uow, after, limit)
            accounts = [(each, each.account()) for each in page]
            for each, account in accounts:
                what = UNKNOWN if account is None else AccountCode(account.code).name.lower()
                found.append(Difference(Projection.ACCOUNT_BALANCE, each.id, each.tenant_id, MISSING, what))
            known = [account for _, account in accounts if account is not None]
            if write and known:
                made += await histories.make_accounts(uow, known)
        if len(page) < limit:
            return found, made
        after = page[-1].id
