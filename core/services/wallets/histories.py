"""Histories: what moved a wallet's money, newest first, with the balance after each; and its balance at a moment."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.intents import IntentRow
from core.domain.registry import TransferCode
from core.services.access.keys import Caller
from core.services.cursors import decode_cursor, encode_cursor, malformed_cursor
from core.services.ledger_port import HistoryCursor, HistoryEntry, Ledger
from core.services.problems import Refusal
from core.services.wallets.wallets import Wallet, find_wallet
from schemas.api import EntryKind, WalletEntry, WalletHistory
from schemas.events import IntentState
from schemas.operations import OperationType
from schemas.wallets import EntrySign, WalletBalanceAt

_SCANNED: Final = 5_000
"""How many entries one page looks through for those that are asked for."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_ID: Final = UUID(int=0)


class Wallets(Protocol):
    """Finds wallets of the tenant."""

    async def find_wallets(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, Wallet]: ...


class Intents(Protocol):
    """Tells what a movement was for."""

    async def load_intents(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, IntentRow]: ...


class HistoryPorts(Protocol):
    """What histories are read from."""

    @property
    def ledger(self) -> Ledger: ...
    @property
    def wallets(self) -> Wallets: ...
    @property
    def intents(self) -> Intents: ...
    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries are asked for: from `begin` to just before `end`, and all that is given must hold."""

    begin: datetime | None = None
    end: datetime | None = None
    operation: OperationType | None = None
    state: IntentState | None = None
    sign: EntrySign | None = None
    counterparty_wallet_id: UUID | None = None
    comment: str | None = None

    def takes(self, entry: HistoryEntry, view: WalletEntry) -> bool:
        """Whether the entry is asked for, its time aside."""
        transfer = entry.transfer
        return (
            (self.operation is None or view.operation == self.operation)
            and (self.state is None or view.state == self.state)
            and (self.sign is None or (self.sign is EntrySign.CREDIT) == (entry.delta_minor > 0))
            and self.counterparty_wallet_id in (None, transfer.debit_account_id, transfer.credit_account_id)
            and (self.comment is None or self.comment.casefold() in view.comment.casefold())
        )


async def read_history(
    ports: HistoryPorts,
    caller: Caller,
    wallet_id: UUID,
    wanted: EntryFilter,
    cursor: str | None,
    limit: int,
    maybe_old: Callable[[Context], AbstractAsyncContextManager[Any]] | None = None,
) -> WalletHistory:
    """Return posted entries, newest first, each with the balance after it, whatever was filtered out between.

    Pages never change by what comes later. Where few entries are asked for, a page may be short, or empty, and still
    have a next one: it has looked through 5,000. Raises Refusal: account_not_permitted, not_found, cursor_malformed.
    """
    caller.require_account(wallet_id)
    before = None if cursor is None else _read_cursor(cursor)
    if before is None and wanted.end is not None:
        at = min(wanted.end, await settled_past(ports, caller, wallet_id))
    else:
        at = None
    # A first page may be a little old. A page behind a cursor is not read where less may be known than was shown.
    opened = maybe_old if maybe_old is not None and before is None and at is None else ports.unit_of_work
    async with opened(caller.context()) as uow:
        await find_wallet(uow, ports.wallets, wallet_id)
        if at is not None:
            before = HistoryCursor(at, _FIRST_ID, (await ports.ledger.balance_at(uow, wallet_id, at)).posted_minor)
        return await _filled_page(uow, ports, wallet_id, wanted, before, limit)


async def _filled_page(
    uow: Any, ports: HistoryPorts, wallet_id: UUID, wanted: EntryFilter, before: HistoryCursor | None, limit: int
) -> WalletHistory:
    items: list[WalletEntry] = []
    shown = before
    left = _SCANNED
    while left > 0:
        page = await ports.ledger.account_history(uow, wallet_id, before, min(left, max(limit + 1, 100)))
        left -= len(page.entries)
        views = await entry_views(uow, ports, page.entries)
        for entry, view in zip(page.entries, views, strict=True):
            if wanted.begin is not None and entry.at < wanted.begin:
                return WalletHistory(items=items, next_cursor=None)
            if not wanted.takes(entry, view):
                continue
            if len(items) == limit:
                return WalletHistory(items=items, next_cursor=_write_cursor(shown))
            items.append(view)
            shown = HistoryCursor(entry.at, entry.transfer.id, entry.balance_minor - entry.delta_minor)
        before = page.next_cursor
        if before is None:
            break
    return WalletHistory(items=items, next_cursor=_write_cursor(before))


async def settled_past(ports: HistoryPorts, caller: Caller, wallet_id: UUID) -> datetime:
    """Return a moment before which the wallet's past is settled; payments wait for this one short transaction."""
    async with ports.unit_of_work(caller.context()) as uow:
        return await ports.ledger.settle_past(uow, wallet_id)


async def read_balance_at(ports: HistoryPorts, caller: Caller, wallet_id: UUID, at: datetime | None) -> WalletBalanceAt:
    """Return what the wallet owned, and what of it was held, just before a moment, or now.

    Raises Refusal: account_not_permitted, not_found, moment_not_past.
    """
    caller.require_account(wallet_id)
    settled = await settled_past(ports, caller, wallet_id)
    at = settled if at is None else at
    if at > settled:
        raise Refusal("moment_not_past", "this moment has not come: ask for an earlier one", field="at")
    async with ports.unit_of_work(caller.context()) as uow:
        wallet = await find_wallet(uow, ports.wallets, wallet_id)
        found = await ports.ledger.balance_at(uow, wallet_id, at)
    return WalletBalanceAt(
        wallet_id=wallet.id,
        currency=wallet.currency,
        at=at,
        posted_minor=found.posted_minor,
        held_minor=found.held_minor,
        available_minor=found.posted_minor - found.held_minor,
    )


async def entry_views(uow: Any, ports: HistoryPorts, entries: Sequence[HistoryEntry]) -> list[WalletEntry]:
    """Return entries as the API shows them, with what was paid and between whom."""
    moved = [entry.transfer for entry in entries]
    sides = {side for each in moved for side in (each.debit_account_id, each.credit_account_id)}
    wallets = await ports.wallets.find_wallets(uow, sorted(sides))
    causes = {each.user_data for each in moved if each.user_data is not None}
    intents = await ports.intents.load_intents(uow, sorted(causes))
    return [_view(entry, wallets, intents) for entry in entries]


def _view(entry: HistoryEntry, wallets: Mapping[UUID, Wallet], intents: Mapping[UUID, IntentRow]) -> WalletEntry:
    transfer = entry.transfer
    intent = intents.get(transfer.user_data) if transfer.user_data is not None else None
    payer, payee = wallets.get(transfer.debit_account_id), wallets.get(transfer.credit_account_id)
    outside = intent.payee_masked if intent is not None and transfer.code == TransferCode.PRINCIPAL else None
    return WalletEntry(
        transfer_id=transfer.id,
        intent_id=transfer.user_data,
        amount_minor=entry.delta_minor,
        balance_minor=entry.balance_minor,
        operation=OperationType(intent.operation) if intent is not None else None,
        from_name=payer.owner if payer is not None else "",
        to_name=payee.owner if payee is not None else outside or "",
        comment=intent.comment if intent is not None else "",
        kind=EntryKind[TransferCode(transfer.code).name],
        state=IntentState(intent.state) if intent is not None else None,
        at=entry.at,
    )


def _write_cursor(cursor: HistoryCursor | None) -> str | None:
    if cursor is None:
        return None
    at_us = (cursor.at - _EPOCH) // timedelta(microseconds=1)
    return encode_cursor(str(at_us), str(cursor.transfer_id), str(cursor.balance_minor))


def _read_cursor(text: str) -> HistoryCursor:
    at_us, transfer_id, balance = decode_cursor(text, 3)
    try:
        return HistoryCursor(_EPOCH + timedelta(microseconds=int(at_us)), UUID(transfer_id), int(balance))
    except (ValueError, OverflowError) as error:
        raise malformed_cursor() from error
