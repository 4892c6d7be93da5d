"""Losing what need not be kept: old rows of a closed list, and whole months of events. What is about money stays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from core.services.on_call.audit import Act, Journal

SYSTEM_TENANT: Final = UUID(int=0)
EVENTS: Final = "events"
DEFAULT_KEEP: Final[Mapping[str, timedelta]] = {
    "nonces": timedelta(minutes=10),
    "outbox": timedelta(days=7),
    "quotes": timedelta(days=30),
    "sessions": timedelta(days=7),
    "webhooks": timedelta(days=30),
    "alerts": timedelta(days=400),
    "dead_letters": timedelta(days=400),
    "evidence": timedelta(days=1826),
    "paid_transactions": timedelta(days=1826),
    EVENTS: timedelta(days=1826),
}
"""How long each kind is kept where nothing else is said; the database has floors of its own."""


def ages_of(texts: Iterable[str]) -> dict[str, timedelta]:
    """Return how long each kind is kept: the usual, but for what `KIND=DAYS` says. Raises ValueError."""
    ages = dict(DEFAULT_KEEP)
    for text in texts:
        kind, _, days = text.partition("=")
        if kind not in ages or not (days.isascii() and days.isdigit() and len(days) < 6):
            raise ValueError(f"{text!r}: write KIND=DAYS, KIND one of {', '.join(ages)}")
        ages[kind] = timedelta(days=int(days))
    return ages


UnitOfWorkFactory = Callable[[], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Month:
    """A month of events, as 202611; `kept_because` is empty where it may go."""

    month: str
    kept_because: str


class Losing(Protocol):
    """What the database offers; each call is set-based, and refuses what is not on its own list."""

    async def now(self, uow: Any) -> datetime: ...
    async def count(self, uow: Any, kind: str, before: datetime, most: int) -> int: ...
    async def lose(self, uow: Any, kind: str, before: datetime, most: int) -> int: ...
    async def old_months(self, uow: Any, before: datetime) -> list[Month]: ...
    async def lose_month(self, uow: Any, month: str, before: datetime) -> bool:
        """Drop a month; False where payments under way kept the table from us just now."""
        ...


@dataclass(frozen=True, slots=True)
class Purged:
    """One kind: rows that went, or would go; months of events that went, would go, or stay and why."""

    kind: str
    before: datetime
    rows: int = 0
    months: Sequence[str] = ()
    kept: Sequence[Month] = ()


@dataclass(frozen=True, slots=True)
class Purger:
    """Loses what is old, a batch a transaction: memory stays flat, and a run that was killed is just run again."""

    store: Losing
    journal: Journal
    unit_of_work: UnitOfWorkFactory
    actor: str
    batch: int = 5000

    async def run(self, keep: Mapping[str, timedelta], *, lose: bool) -> list[Purged]:
        """Purge each kind that `keep` names, in its order; without `lose` only count.

        What went is in the audit journal in the transaction that lost the last of it; what a killed run lost is told
        by its entry of the beginning. Raises the database's refusal for a kind or an age that it does not give.
        """
        async with self.unit_of_work() as uow:
            now = await self.store.now(uow)
        found = []
        for kind, age in keep.items():
            before = now - age
            if kind == EVENTS:
                found.append(await self._months(before, lose=lose))
            elif lose:
                found.append(await self._rows(kind, before))
            else:
                async with self.unit_of_work() as uow:
                    found.append(Purged(kind, before, await self.store.count(uow, kind, before, 2**31 - 1)))
        return found

    async def _rows(self, kind: str, before: datetime) -> Purged:
        total, began = 0, False
        while True:
            async with self.unit_of_work() as uow:
                lost = await self.store.lose(uow, kind, before, self.batch)
                total += lost
                if lost < self.batch:
                    if total:
                        await self._tell(uow, "purged", kind, {"before": before, "rows": total})
                    return Purged(kind, before, total)
                if not began:
                    began = True
                    await self._tell(uow, "purge_began", kind, {"before": before})

    async def _months(self, before: datetime, *, lose: bool) -> Purged:
        async with self.unit_of_work() as uow:
            old = await self.store.old_months(uow, before)
        months, kept = [], [each for each in old if each.kept_because]
        for each in old:
            if each.kept_because:
                continue
            if lose and not await self._lose_month(each.month, before):
                kept.append(Month(each.month, "payments are under way on the table: run again"))
                continue
            months.append(each.month)
        return Purged(EVENTS, before, months=months, kept=kept)

    async def _lose_month(self, month: str, before: datetime, tries: int = 20) -> bool:
        for _ in range(tries):
            async with self.unit_of_work() as uow:
                if await self.store.lose_month(uow, month, before):
                    await self._tell(uow, "purged", EVENTS, {"before": before, "month": month})
                    return True
        return False

    async def _tell(self, uow: Any, action: str, subject: str, data: Mapping[str, Any]) -> None:
        await self.journal.append(uow, [Act(SYSTEM_TENANT, self.actor, action, subject, data)])
