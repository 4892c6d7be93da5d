"""Wallets: an owner's account in one currency, its balance and its history."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time_ns
from typing import Any, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import id_time_ms, mint_id
from core.domain.intents import IntentRow
from core.domain.ledger import AccountBalance, AccountResult
from core.domain.operations import TransferCode, wallet_account
from core.services.cursors import decode_cursor, encode_cursor
from core.services.keys import WALLETS_SCOPE, Caller
from core.services.ledger_port import HistoryCursor, HistoryEntry, Ledger
from core.services.problems import Refusal, require_currency
from core.services.quotas import Quotas
from schemas.api import WalletEntry, WalletHistory, WalletRequest, WalletView
from schemas.limits import QuotaObject
from schemas.operations import OperationType


@dataclass(frozen=True, slots=True)
class Wallet:
    """A wallet; its id is its ledger account's."""

    id: UUID
    tenant_id: UUID
    owner: str
    currency: str
    external_id: str | None
    created_at: datetime


class WalletStore(Protocol):
    """Where wallets are kept."""

    async def insert_wallet(self, uow: Any, wallet: Wallet) -> bool: ...
    async def find_wallets(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, Wallet]: ...
    async def find_by_external_id(self, uow: Any, external_id: str) -> Wallet | None: ...


class Intents(Protocol):
    """Tells what a movement was for."""

    async def load_intents(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, IntentRow]: ...


class WalletService:
    """Creates and shows the wallets of the caller's tenant."""

    def __init__(
        self,
        unit_of_work: Callable[[Context], AbstractAsyncContextManager[Any]],
        wallets: WalletStore,
        ledger: Ledger,
        intents: Intents,
        quotas: Quotas,
    ) -> None:
        self._unit_of_work, self._wallets, self._ledger = unit_of_work, wallets, ledger
        self._intents, self._quotas = intents, quotas

    async def create(self, caller: Caller, request: WalletRequest) -> tuple[WalletView, bool]:
        """Open a wallet; with an external id a repeat gives the same one. Return it and whether it is new.

        Raises Refusal: operation_not_permitted, unknown_currency, external_id_taken, limit_exceeded.
        """
        caller.require_operation(WALLETS_SCOPE)
        require_currency(request.currency)
        now_ms = time_ns() // 1_000_000
        created_at = datetime.fromtimestamp(now_ms // 1000, UTC)
        wallet = Wallet(
            mint_id(now_ms), caller.tenant_id, request.owner, request.currency, request.external_id, created_at
        )
        async with self._unit_of_work(caller.context()) as uow:
            if await self._wallets.insert_wallet(uow, wallet):
                account = wallet_account(wallet.id, wallet.tenant_id, wallet.currency)
                answer = (await self._ledger.create_accounts(uow, [account]))[0]
                if answer is not AccountResult.OK:
                    raise RuntimeError(f"the ledger answered {answer} to a new wallet")
                await self._quotas.check(uow, wallet.tenant_id, QuotaObject.WALLETS)
                return _view(wallet, AccountBalance(account)), True
            return await self._same_wallet(uow, request), False

    async def _same_wallet(self, uow: Any, request: WalletRequest) -> WalletView:
        found = await self._wallets.find_by_external_id(uow, request.external_id or "")
        if found is None or (found.owner, found.currency) != (request.owner, request.currency):
            text = "this external id names a wallet of another owner or currency"
            raise Refusal("external_id_taken", text, field="external_id")
        return _view(found, (await self._ledger.lookup_accounts(uow, [found.id]))[found.id])

    async def get(self, caller: Caller, wallet_id: UUID) -> WalletView:
        """Return a wallet with its balances. Raises Refusal: not_found, account_not_permitted."""
        caller.require_account(wallet_id)
        async with self._unit_of_work(caller.context()) as uow:
            wallet = await self._find(uow, wallet_id)
            return _view(wallet, (await self._ledger.lookup_accounts(uow, [wallet_id]))[wallet_id])

    async def history(self, caller: Caller, wallet_id: UUID, cursor: str | None, limit: int) -> WalletHistory:
        """Return posted entries, newest first, each with the balance after it."""
        caller.require_account(wallet_id)
        after = None
        if cursor is not None:
            transfer_id, balance = decode_cursor(cursor, 2)
            try:
                after = HistoryCursor(UUID(transfer_id), int(balance))
            except ValueError as error:
                raise Refusal("cursor_malformed", "use next_cursor as it was given", field="cursor") from error
        async with self._unit_of_work(caller.context()) as uow:
            await self._find(uow, wallet_id)
            page = await self._ledger.account_history(uow, wallet_id, after, limit)
            moved = [entry.transfer for entry in page.entries]
            sides = {side for each in moved for side in (each.debit_account_id, each.credit_account_id)}
            wallets = await self._wallets.find_wallets(uow, sorted(sides))
            causes = {each.user_data for each in moved if each.user_data is not None}
            intents = await self._intents.load_intents(uow, sorted(causes))
        following = page.next_cursor
        return WalletHistory(
            items=[_entry(entry, wallets, intents) for entry in page.entries],
            next_cursor=encode_cursor(str(following.transfer_id), str(following.balance_minor)) if following else None,
        )

    async def _find(self, uow: Any, wallet_id: UUID) -> Wallet:
        found = (await self._wallets.find_wallets(uow, [wallet_id])).get(wallet_id)
        if found is None:
            raise Refusal("not_found", "there is no such wallet")
        return found


def _view(wallet: Wallet, balance: AccountBalance) -> WalletView:
    return WalletView(
        id=wallet.id,
        owner=wallet.owner,
        currency=wallet.currency,
        external_id=wallet.external_id,
        posted_minor=balance.posted_minor,
        held_minor=balance.debits_pending_minor,
        available_minor=balance.available_minor,
        created_at=wallet.created_at,
    )


def _entry(entry: HistoryEntry, wallets: Mapping[UUID, Wallet], intents: Mapping[UUID, IntentRow]) -> WalletEntry:
    transfer = entry.transfer
    intent = intents.get(transfer.user_data) if transfer.user_data is not None else None
    payer, payee = wallets.get(transfer.debit_account_id), wallets.get(transfer.credit_account_id)
    outside = intent.payee_masked if intent is not None and transfer.code == TransferCode.PRINCIPAL else None
    return WalletEntry(
        transfer_id=entry.transfer.id,
        intent_id=entry.transfer.user_data,
        amount_minor=entry.delta_minor,
        balance_minor=entry.balance_minor,
        operation=OperationType(intent.operation) if intent is not None else None,
        from_name=payer.owner if payer is not None else "",
        to_name=payee.owner if payee is not None else outside or "",
        at=datetime.fromtimestamp(id_time_ms(entry.transfer.id) // 1000, UTC),
    )
