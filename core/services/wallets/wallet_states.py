"""Freeze, unfreeze, close and rename wallets: each change once, with who and why, in order with the money's."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.ledger import AccountChange, AccountChangeResult
from core.services.access.keys import WALLET_STATES_SCOPE, WALLETS_SCOPE, Caller
from core.services.ledger_port import Ledger
from core.services.problems import Refusal
from core.services.wallets.wallets import Wallet, find_wallet, wallet_view
from schemas.api import WalletView
from schemas.wallets import ExternalIdRequest, WalletEvent, WalletEventList, WalletEventType

_EVENTS: Final = {
    AccountChange.FREEZE: WalletEventType.FROZEN,
    AccountChange.UNFREEZE: WalletEventType.UNFROZEN,
    AccountChange.CLOSE: WalletEventType.CLOSED,
}
_REFUSED: Final = {
    AccountChangeResult.ACCOUNT_HAS_HOLDS: ("account_not_empty", "payments of this wallet are under way: let them end"),
    AccountChangeResult.ACCOUNT_HAS_BALANCE: ("account_not_empty", "the wallet has money: pay it out first"),
}


class ChangedWallets(Protocol):
    """Where wallets and their events are kept."""

    async def find_wallets(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, Wallet]: ...
    async def set_external_id(self, uow: Any, wallet_id: UUID, external_id: str | None) -> tuple[bool, str | None]:
        """Lock the wallet and set its external id; return whether that one was free, and the id before."""
        ...

    async def add_event(
        self, uow: Any, wallet_id: UUID, kind: WalletEventType, reason: str, data: Mapping[str, Any]
    ) -> None: ...
    async def events_of(self, uow: Any, wallet_id: UUID) -> list[WalletEvent]: ...


class WalletPorts(Protocol):
    """What the changes work with."""

    @property
    def ledger(self) -> Ledger: ...
    @property
    def wallets(self) -> ChangedWallets: ...
    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...


async def change_wallet(
    ports: WalletPorts, caller: Caller, wallet_id: UUID, change: AccountChange, reason: str
) -> WalletView:
    """Change the wallet's state and return it; a repeat changes nothing and tells nothing.

    After a freeze has committed no payment takes from the wallet; what was held before may end either way. Closing
    is final. Raises Refusal: operation_not_permitted, account_not_permitted, not_found, account_closed,
    account_not_empty.
    """
    caller.require_operation(WALLET_STATES_SCOPE)
    caller.require_account(wallet_id)
    async with ports.unit_of_work(caller.context()) as uow:
        wallet = await find_wallet(uow, ports.wallets, wallet_id)
        answer = await ports.ledger.change_account(uow, wallet_id, change)
        if answer is AccountChangeResult.ACCOUNT_ALREADY_CLOSED and change is not AccountChange.CLOSE:
            raise Refusal("account_closed", "a closed wallet stays closed: open another one")
        if answer in _REFUSED:
            raise Refusal(*_REFUSED[answer])
        if answer is AccountChangeResult.OK:
            await ports.wallets.add_event(uow, wallet_id, _EVENTS[change], reason, {})
        return wallet_view(wallet, (await ports.ledger.lookup_accounts(uow, [wallet_id]))[wallet_id])


async def set_external_id(
    ports: WalletPorts, caller: Caller, wallet_id: UUID, request: ExternalIdRequest
) -> WalletView:
    """Attach, replace or take away the client's own id of a wallet.

    Raises Refusal: operation_not_permitted, account_not_permitted, not_found, external_id_taken.
    """
    caller.require_operation(WALLETS_SCOPE)
    caller.require_account(wallet_id)
    async with ports.unit_of_work(caller.context()) as uow:
        await find_wallet(uow, ports.wallets, wallet_id)
        is_free, before = await ports.wallets.set_external_id(uow, wallet_id, request.external_id)
        if not is_free:
            raise Refusal("external_id_taken", "another wallet has this external id", field="external_id")
        if before != request.external_id:
            data = {"before": before, "after": request.external_id}
            await ports.wallets.add_event(uow, wallet_id, WalletEventType.EXTERNAL_ID_SET, request.reason, data)
        wallet = await find_wallet(uow, ports.wallets, wallet_id)
        return wallet_view(wallet, (await ports.ledger.lookup_accounts(uow, [wallet_id]))[wallet_id])


async def list_events(ports: WalletPorts, caller: Caller, wallet_id: UUID) -> WalletEventList:
    """Return what changed the wallet, oldest first. Raises Refusal: not_found, account_not_permitted."""
    caller.require_account(wallet_id)
    async with ports.unit_of_work(caller.context()) as uow:
        await find_wallet(uow, ports.wallets, wallet_id)
        return WalletEventList(items=await ports.wallets.events_of(uow, wallet_id))
