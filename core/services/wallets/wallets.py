"""Wallets: an owner's account in one currency, its balance and its history."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import time_ns
from typing import Any, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import mint_id
from core.domain.ledger import AccountBalance, AccountFlags, AccountResult
from core.domain.operations import wallet_account
from core.services.access.keys import WALLETS_SCOPE, Caller
from core.services.cursors import decode_cursor, encode_cursor, id_of
from core.services.ledger_port import Ledger
from core.services.problems import Refusal, require_currency
from core.services.terms.quotas import Quotas
from schemas.api import WalletPage, WalletRequest, WalletView
from schemas.limits import QuotaObject
from schemas.wallets import WalletStatus


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
    async def wallets_of(
        self, uow: Any, owner: str | None, ids: Sequence[UUID] | None, after: UUID, limit: int
    ) -> list[Wallet]:
        """Return up to `limit` wallets of the owner, or of all, in the order of ids; of `ids` alone where given."""
        ...


class WalletService:
    """Creates and shows the wallets of the caller's tenant."""

    def __init__(
        self,
        unit_of_work: Callable[[Context], AbstractAsyncContextManager[Any]],
        wallets: WalletStore,
        ledger: Ledger,
        quotas: Quotas,
    ) -> None:
        self._unit_of_work, self._wallets, self._ledger = unit_of_work, wallets, ledger
        self._quotas = quotas

    async def create(self, caller: Caller, request: WalletRequest) -> tuple[WalletView, bool]:
        """Open a wallet; with an external id a repeat gives the same one. Return it and whether it is new.

        Raises Refusal: operation_not_permitted, on_behalf_of_differs, unknown_currency, external_id_taken,
        limit_exceeded.
        """
        caller.require_operation(WALLETS_SCOPE)
        if caller.acting is not None and request.owner != caller.acting.user:
            text = "a key that acts for a user opens that user's wallets alone"
            raise Refusal("on_behalf_of_differs", text, field="owner")
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
                return wallet_view(wallet, AccountBalance(account)), True
            return await self._same_wallet(uow, request), False

    async def _same_wallet(self, uow: Any, request: WalletRequest) -> WalletView:
        found = await self._wallets.find_by_external_id(uow, request.external_id or "")
        if found is None or (found.owner, found.currency) != (request.owner, request.currency):
            text = "this external id names a wallet of another owner or currency"
            raise Refusal("external_id_taken", text, field="external_id")
        return wallet_view(found, (await self._ledger.lookup_accounts(uow, [found.id]))[found.id])

    async def get(self, caller: Caller, wallet_id: UUID) -> WalletView:
        """Return a wallet with its balances. Raises Refusal: not_found, account_not_permitted."""
        caller.require_account(wallet_id)
        async with self._unit_of_work(caller.context()) as uow:
            wallet = await find_wallet(uow, self._wallets, wallet_id)
            return wallet_view(wallet, (await self._ledger.lookup_accounts(uow, [wallet_id]))[wallet_id])

    async def named(self, caller: Caller, external_id: str) -> WalletPage:
        """Return the wallet with the client's own id, or none; a key that does not cover it sees none."""
        async with self._unit_of_work(caller.context()) as uow:
            found = await self._wallets.find_by_external_id(uow, external_id)
            seen = found is not None and (caller.accounts is None or found.id in caller.accounts)
            return WalletPage(items=await self._views(uow, [found] if found is not None and seen else []))

    async def owned(self, caller: Caller, owner: str | None, cursor: str | None, limit: int) -> WalletPage:
        """Return an owner's wallets, of every currency, or everybody's, oldest first; those that the key covers.

        Raises Refusal `cursor_malformed`.
        """
        after = UUID(int=0)
        if cursor is not None:
            after = id_of(decode_cursor(cursor, 1)[0])
        covered = None if caller.accounts is None else list(caller.accounts)
        async with self._unit_of_work(caller.context()) as uow:
            found = await self._wallets.wallets_of(uow, owner, covered, after, limit + 1)
            items = await self._views(uow, found[:limit])
        more = len(found) > limit
        return WalletPage(items=items, next_cursor=encode_cursor(str(items[-1].id)) if more else None)

    async def _views(self, uow: Any, wallets: Sequence[Wallet]) -> list[WalletView]:
        balances = await self._ledger.lookup_accounts(uow, [wallet.id for wallet in wallets])
        return [wallet_view(wallet, balances[wallet.id]) for wallet in wallets]


class _Finder(Protocol):
    async def find_wallets(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, Wallet]: ...


async def find_wallet(uow: Any, wallets: _Finder, wallet_id: UUID) -> Wallet:
    """Return the tenant's wallet. Raises Refusal `not_found`."""
    found = (await wallets.find_wallets(uow, [wallet_id])).get(wallet_id)
    if found is None:
        raise Refusal("not_found", "there is no such wallet")
    return found


def status_of(flags: AccountFlags) -> WalletStatus:
    """Return the state that the ledger's flags are."""
    if flags & AccountFlags.CLOSED:
        return WalletStatus.CLOSED
    return WalletStatus.FROZEN if flags & AccountFlags.FROZEN else WalletStatus.ACTIVE


def wallet_view(wallet: Wallet, balance: AccountBalance) -> WalletView:
    """Return the wallet as the API shows it."""
    return WalletView(
        id=wallet.id,
        owner=wallet.owner,
        currency=wallet.currency,
        external_id=wallet.external_id,
        status=status_of(balance.account.flags),
        posted_minor=balance.posted_minor,
        held_minor=balance.debits_pending_minor,
        available_minor=balance.available_minor,
        created_at=wallet.created_at,
    )
