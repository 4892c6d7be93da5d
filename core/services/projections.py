"""Projections: what is stored beside the history because reading it is faster, compared with it and made from it again.

Stored are what each account holds (from the transfers), and where each intent stands (from its events). A wallet's
history is read from the transfers themselves; what of it is stored is the balance that it is told back from.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

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


class Histories(Protocol):
    """Compares pages of a projection with the history, and makes rows anew."""

    async def compare(self, uow: Any, projection: Projection, after: UUID | None, limit: int) -> Compared:
        """Compare one page in one statement, hence in one snapshot: payments that arrive make no difference."""
        ...

    async def remake(self, uow: Any, projection: Projection, subjects: Sequence[UUID]) -> list[UUID]:
        """Lock rows as payments do, and make those anew that still differ; return them."""
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
    """Compare projections page by page; with `write` make what differs anew, a page in a transaction.

    Exact while payments arrive: a row is judged again under the lock that every payment takes before it moves it.
    """
    checked, found, remade = 0, list[Difference](), list[UUID]()
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
