"""Statements: a wallet's entries of a period between its opening and closing balance, page by page in flat memory.

What lies before a settled moment never changes: each page is a short transaction of its own, and a client that reads
slowly holds up nobody.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from core.services.access.keys import Caller
from core.services.ledger_port import HistoryCursor
from core.services.problems import Refusal
from core.services.wallets.histories import HistoryPorts, entry_views, settled_past
from core.services.wallets.wallets import find_wallet
from schemas.api import EntryKind, WalletEntry
from schemas.operations import OperationType
from schemas.statements import StatementFees, StatementHead, StatementTail, StatementTotal

_PAGE: Final = 1000
WELL_PAST: Final = timedelta(minutes=2)
"""What a standby that is read at all has long replayed."""
_LAST_ID: Final = UUID(int=2**128 - 1)


@dataclass(slots=True)
class _Sum:
    entries: int = 0
    credit_minor: int = 0
    debit_minor: int = 0

    def add(self, amount_minor: int) -> None:
        self.entries += 1
        self.credit_minor += max(amount_minor, 0)
        self.debit_minor += max(-amount_minor, 0)


@dataclass(slots=True)
class Statement:
    """A statement that is being read: `head`, then `pages` to their end, then `tail`."""

    ports: HistoryPorts
    caller: Caller
    head: StatementHead
    _totals: dict[OperationType | None, _Sum] = field(default_factory=dict)
    _fees: _Sum = field(default_factory=_Sum)
    _balance_minor: int = 0

    async def pages(self) -> AsyncIterator[list[WalletEntry]]:
        """Yield the entries, oldest first, up to 1,000 at a time."""
        self._balance_minor = self.head.opening_balance_minor
        # Just before the period: its first moment is part of it.
        before = self.head.begin - timedelta(microseconds=1)
        after = HistoryCursor(before, _LAST_ID, self._balance_minor)
        while True:
            async with self.ports.unit_of_work(self.caller.context()) as uow:
                wallet, end = self.head.wallet_id, self.head.end
                entries = await self.ports.ledger.entries_after(uow, wallet, after, end, _PAGE)
                views = await entry_views(uow, self.ports, entries)
            for view in views:
                self._count(view)
            if views:
                yield views
            if len(entries) < _PAGE:
                return
            last = entries[-1]
            after = HistoryCursor(last.at, last.transfer.id, last.balance_minor)

    def _count(self, view: WalletEntry) -> None:
        self._balance_minor = view.balance_minor
        is_fee = view.kind is EntryKind.FEE
        (self._fees if is_fee else self._totals.setdefault(view.operation, _Sum())).add(view.amount_minor)

    def tail(self) -> StatementTail:
        """Return the totals and the closing balance, once all pages were read."""
        totals = [
            StatementTotal(operation=name, entries=each.entries, credit_minor=each.credit_minor,
                           debit_minor=each.debit_minor)
            for name, each in sorted(self._totals.items(), key=lambda item: item[0] or "")
        ]  # fmt: skip
        fees = StatementFees(
            entries=self._fees.entries, credit_minor=self._fees.credit_minor, debit_minor=self._fees.debit_minor
        )
        return StatementTail(totals=totals, fees=fees, closing_balance_minor=self._balance_minor)


async def open_statement(
    ports: HistoryPorts,
    caller: Caller,
    wallet_id: UUID,
    first_day: date | None,
    last_day: date | None,
    timezone: str,
    maybe_old: HistoryPorts | None = None,
) -> Statement:
    """Begin a statement of whole days of a timezone: by default from the first of the month to today.

    A day that is not over ends at the moment of asking. Raises Refusal: account_not_permitted, not_found,
    invalid_request, moment_not_past.
    """
    caller.require_account(wallet_id)
    settled = await settled_past(ports, caller, wallet_id)
    zone = ZoneInfo(timezone)
    last_day = last_day or settled.astimezone(zone).date()
    first_day = first_day or last_day.replace(day=1)
    if last_day < first_day:
        raise Refusal("invalid_request", "to: the last day is before the first", field="to")
    begin, end = _midnight(first_day, zone), min(_midnight(last_day + timedelta(days=1), zone), settled)
    if begin > settled:
        raise Refusal("moment_not_past", "the first day has not come: ask for an earlier one", field="from")
    async with ports.unit_of_work(caller.context()) as uow:
        wallet = await find_wallet(uow, ports.wallets, wallet_id)
        opening = await ports.ledger.balance_at(uow, wallet_id, begin)
    head = StatementHead(
        wallet_id=wallet.id,
        owner=wallet.owner,
        external_id=wallet.external_id,
        currency=wallet.currency,
        timezone=timezone,
        first_day=first_day,
        last_day=last_day,
        begin=begin,
        end=end,
        opening_balance_minor=opening.posted_minor,
    )
    # What is well past is on a standby too, and a long statement is written at its expense.
    long_past = maybe_old is not None and settled - end > WELL_PAST
    return Statement(maybe_old if maybe_old is not None and long_past else ports, caller, head)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone)
