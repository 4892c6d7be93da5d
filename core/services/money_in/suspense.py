"""Suspense: what a person decides about money whose owner or reason is not known. An item is taken once.

Above what the tenant lets one key do alone, a decision is an intent that waits, held, in the review queue: the second
key's answer is `core.services.payments.reviews`'.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import mint_id
from core.domain.intents import IntentRow
from core.domain.ledger import Transfer, TransferResult
from core.domain.operations import AccountCode, accounts_of, hold_transfers, posting_transfers, system_account
from core.services.access.keys import SUSPENSE_SCOPE, Caller
from core.services.cursors import decode_cursor, encode_cursor, id_of
from core.services.ledger_port import Ledger
from core.services.on_call.audit import Act, Journal
from core.services.payments.accept import TenantPolicies
from core.services.payments.authorize import Moment, new_job
from core.services.payments.plans import adjusts_alone
from core.services.payments.refunds import PAYER_OF
from core.services.problems import Refusal, require_currency
from core.services.terms.limits import LimitBook
from core.services.terms.routes import Routes, mask_payee
from core.services.vault_port import Plain, Vault
from core.services.wallets.wallets import Wallet
from schemas.events import IntentState
from schemas.limits import LimitExceeded
from schemas.operations import COLLECTED, Direction, JobKind, OperationType
from schemas.permits import Payee
from schemas.suspense import (
    AssignRequest,
    ReturnRequest,
    SuspenseDetail,
    SuspenseItem,
    SuspensePage,
    SuspenseState,
    ToleranceRequest,
    ToleranceView,
)

TAKEN_BACK: Final = "suspense_taken_back"
_DONE: Final = frozenset({TransferResult.OK, TransferResult.EXISTS})


@dataclass(frozen=True, slots=True)
class Locked:
    """An item whose row is ours until the transaction ends."""

    item: SuspenseItem
    provider: str
    environment: str
    taken_back: bool = False
    """Whether its provider took it back, and that is not booked yet."""


class Items(Protocol):
    """Where the work list is kept."""

    async def page(
        self, uow: Any, state: SuspenseState | None, intent_id: UUID | None, after: UUID | None, limit: int
    ) -> list[SuspenseItem]: ...

    async def detail(self, uow: Any, item_id: UUID) -> SuspenseDetail | None: ...

    async def lock(self, uow: Any, item_id: UUID) -> Locked | None: ...

    async def taken_back(self, uow: Any, intent_id: UUID) -> bool: ...

    async def take(self, uow: Any, item_id: UUID, action: str, intent_id: UUID, reason: str) -> None: ...

    async def subject_keys(self, uow: Any, subjects: Sequence[UUID]) -> dict[UUID, bytes | None]: ...

    async def set_tolerance(self, uow: Any, request: ToleranceRequest) -> ToleranceView: ...

    async def tolerances(self, uow: Any) -> list[ToleranceView]: ...


class SuspensePorts(Protocol):
    """What deciding works with."""

    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...
    @property
    def suspense(self) -> Items: ...
    @property
    def wallets(self) -> Any: ...
    @property
    def intents(self) -> Any: ...
    @property
    def jobs(self) -> Any: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def limits(self) -> LimitBook: ...
    @property
    def routes(self) -> Routes: ...
    @property
    def vault(self) -> Vault: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def tenants(self) -> TenantPolicies: ...
    @property
    def review_within(self) -> timedelta: ...


async def list_items(
    ports: SuspensePorts,
    caller: Caller,
    *,
    state: SuspenseState | None,
    intent_id: UUID | None,
    cursor: str | None,
    limit: int,
) -> SuspensePage:
    """Return a page of the work list, oldest first. Raises Refusal: operation_not_permitted, cursor_malformed."""
    caller.require_operation(SUSPENSE_SCOPE)
    after = None
    if cursor is not None:
        after = id_of(decode_cursor(cursor, 1)[0])
    async with ports.unit_of_work(caller.context()) as uow:
        items = await ports.suspense.page(uow, state, intent_id, after, limit + 1)
    following = encode_cursor(str(items[limit - 1].id)) if len(items) > limit else None
    return SuspensePage(items=items[:limit], next_cursor=following)


async def show_item(ports: SuspensePorts, caller: Caller, item_id: UUID) -> SuspenseDetail:
    """Return an item with who told of it and what was decided. Raises Refusal: operation_not_permitted, not_found."""
    caller.require_operation(SUSPENSE_SCOPE)
    async with ports.unit_of_work(caller.context()) as uow:
        return await _detail(uow, ports, item_id)


async def _detail(uow: Any, ports: SuspensePorts, item_id: UUID) -> SuspenseDetail:
    found = await ports.suspense.detail(uow, item_id)
    if found is None:
        raise Refusal("not_found", "there is no such item in suspense")
    return found


async def assign_item(ports: SuspensePorts, caller: Caller, item_id: UUID, request: AssignRequest) -> SuspenseDetail:
    """Give an item's money to a wallet, by a deposit of its own: settled, or held until a second key approves.

    It takes the limits of the wallet's deposits as one that is asked for does: what does not fit rests on.
    Raises Refusal: operation_not_permitted, account_not_permitted, not_found, suspense_taken, suspense_taken_back,
    wallet_not_found, currency_mismatch, limit_exceeded, account_closed.
    """
    caller.require_operation(SUSPENSE_SCOPE)
    caller.require_account(request.wallet_id)
    async with ports.unit_of_work(caller.context()) as uow:
        locked = await _lock_open(uow, ports, item_id)
        wallet: Wallet | None = (await ports.wallets.find_wallets(uow, [request.wallet_id])).get(request.wallet_id)
        if wallet is None or wallet.tenant_id != caller.tenant_id:
            raise Refusal("wallet_not_found", "there is no such wallet", field="wallet_id")
        if wallet.currency != locked.item.currency:
            raise Refusal("currency_mismatch", f"the money is in {locked.item.currency}", field="wallet_id")
        moment = await ports.intents.moment(uow)
        intent = _intent(caller, locked, moment, OperationType.DEPOSIT, Direction.RELEASE, request.reason)
        intent.wallet_id, intent.provider_reference = wallet.id, locked.item.transaction_id
        by_two = await _let_wait(uow, ports, caller, intent, moment)
        if not by_two:
            intent.state = intent.accept_state = IntentState.SETTLED
            intent.decision = "POST"
        await _take_limits(uow, ports, intent, moment)
        await ports.intents.insert_intents(uow, [intent])
        await _take(uow, ports, item_id, "ASSIGN", intent, request.reason)
        await _apply(uow, ports, hold_transfers(intent) if by_two else posting_transfers(intent))
        return await _detail(uow, ports, item_id)


async def return_item(ports: SuspensePorts, caller: Caller, item_id: UUID, request: ReturnRequest) -> SuspenseDetail:
    """Pay an item's money back to who paid it: held out of suspense, and sent by a refund job of its rail.

    Where a second key is needed, the job is made when it approves. Where it or the provider refuses, the item is open
    again. Raises Refusal: operation_not_permitted, not_found,
    suspense_taken, suspense_taken_back, rail_unavailable (no adapter of the rail pays back).
    """
    caller.require_operation(SUSPENSE_SCOPE)
    async with ports.unit_of_work(caller.context()) as uow:
        locked = await _lock_open(uow, ports, item_id)
        item = locked.item
        terms = await ports.routes.terms_of(uow, item.rail, OperationType.REFUND)
        moment = await ports.intents.moment(uow)
        intent = _intent(caller, locked, moment, OperationType.REFUND, Direction.PAYBACK, request.reason)
        payee = Payee(type=PAYER_OF, value=item.transaction_id)
        subject = ports.vault.subject_id(intent.tenant_id, payee)
        plain = Plain(intent.id, intent.tenant_id, subject, payee, request.reason)
        keys = await ports.suspense.subject_keys(uow, [subject])
        sealed = (await ports.vault.seal_instructions(uow, [plain], keys))[intent.id]
        intent.subject_id, intent.instruction = sealed.subject_id, sealed.ciphertext
        intent.payee_type, intent.payee_masked = PAYER_OF, mask_payee(payee.value)
        intent.original_intent_id = item.intent_id
        deadline = intent.deadline = moment.now + terms.deadline
        by_two = await _let_wait(uow, ports, caller, intent, moment)
        await ports.intents.insert_intents(uow, [intent])
        if not by_two:
            job = new_job(intent, JobKind.REFUND, deadline, terms.reference_length, moment.ledger_epoch)
            await ports.jobs.insert_jobs(uow, [job])
        await _take(uow, ports, item_id, "RETURN", intent, request.reason)
        await ports.ledger.create_accounts(uow, accounts_of(intent))
        await _apply(uow, ports, hold_transfers(intent))
        return await _detail(uow, ports, item_id)


async def set_tolerance(ports: SuspensePorts, caller: Caller, request: ToleranceRequest) -> ToleranceView:
    """Say how far payments of an operation may differ. Raises Refusal: operation_not_permitted, invalid_request."""
    caller.require_operation(SUSPENSE_SCOPE)
    require_currency(request.currency)
    if request.operation not in COLLECTED:
        text = f"{request.operation} brings no money in: use one of {', '.join(sorted(COLLECTED))}"
        raise Refusal("invalid_request", text, field="operation")
    async with ports.unit_of_work(caller.context()) as uow:
        view = await ports.suspense.set_tolerance(uow, request)
        subject = f"{request.operation} {request.currency}"
        data = {"below_minor": request.below_minor, "above_minor": request.above_minor}
        act = Act(caller.tenant_id, view.set_by, "collection_tolerance_set", subject, data)
        await ports.journal.append(uow, [act])
        return view


async def list_tolerances(ports: SuspensePorts, caller: Caller) -> list[ToleranceView]:
    """Return the tenant's tolerances. Raises Refusal operation_not_permitted."""
    caller.require_operation(SUSPENSE_SCOPE)
    async with ports.unit_of_work(caller.context()) as uow:
        return await ports.suspense.tolerances(uow)


async def _lock_open(uow: Any, ports: SuspensePorts, item_id: UUID) -> Locked:
    """Lock the item: whoever decides about it at the same time waits here, and finds it taken."""
    locked = await ports.suspense.lock(uow, item_id)
    if locked is None:
        raise Refusal("not_found", "there is no such item in suspense")
    if locked.item.state is not SuspenseState.OPEN:
        raise Refusal("suspense_taken", f"the item is {locked.item.state} already, by intent {locked.item.taken_by}")
    if locked.taken_back:
        raise Refusal(TAKEN_BACK, "the provider took the payment back: within seconds that is booked here, too")
    return locked


async def _let_wait(uow: Any, ports: SuspensePorts, caller: Caller, intent: IntentRow, moment: Moment) -> bool:
    """Let what one key may not do alone wait for another, and return whether it does."""
    if adjusts_alone(caller) or intent.amount_minor <= await ports.tenants.adjusts_alone_minor(uow, caller.tenant_id):
        return False
    intent.state = intent.accept_state = IntentState.REVIEW
    intent.requires_monitoring = True
    intent.deadline = intent.review_until = moment.now + ports.review_within
    return True


async def _take_limits(uow: Any, ports: SuspensePorts, intent: IntentRow, moment: Moment) -> None:
    """Take what the deposit needs of its wallet's limits, counters before accounts, as everywhere."""
    desk = await ports.limits.open(uow, [intent], moment.now)
    if desk is None:
        return
    if (text := desk.admit(intent)) is not None:
        exceeded = LimitExceeded.model_validate((intent.limits or {})["exceeded"])
        remedy = "let the money rest until then, raise the limit, or pay it back"
        raise Refusal("limit_exceeded", f"{text}: {remedy}", field="wallet_id", limit=exceeded)
    await desk.write(uow, [(intent, IntentState(intent.state))])


async def _take(uow: Any, ports: SuspensePorts, item_id: UUID, action: str, intent: IntentRow, reason: str) -> None:
    await ports.suspense.take(uow, item_id, action, intent.id, reason)
    data = {"intent_id": str(intent.id), "amount_minor": intent.amount_minor, "state": intent.state, "reason": reason}
    actor = str(uow.context.actor)
    act = Act(intent.tenant_id, actor, f"suspense_{action.lower()}", f"suspense:{item_id}", data)
    await ports.journal.append(uow, [act])


def _intent(
    caller: Caller, locked: Locked, moment: Moment, operation: OperationType, direction: Direction, reason: str
) -> IntentRow:
    item = locked.item
    at: datetime = moment.now
    return IntentRow(
        id=mint_id(time.time_ns() // 1_000_000),
        tenant_id=caller.tenant_id,
        service_key_id=caller.key_id,
        operation=operation,
        state=IntentState.AUTHORIZED,
        accept_state=IntentState.AUTHORIZED,
        # Nobody's wallet is meant: the account of the tenant's that gives it stands there.
        wallet_id=system_account(caller.tenant_id, item.currency, AccountCode.SUSPENSE).id,
        amount_minor=item.amount_minor,
        currency=item.currency,
        rail=item.rail,
        provider=locked.provider,
        provider_account=item.provider_account,
        environment=locked.environment,
        direction=direction,
        ledger_epoch=moment.ledger_epoch,
        comment=reason,
        created_at=at,
        updated_at=at,
    )


async def _apply(uow: Any, ports: SuspensePorts, transfers: Sequence[Transfer]) -> None:
    refused = [answer for answer in await ports.ledger.apply(uow, transfers) if answer not in _DONE]
    if TransferResult.CREDIT_ACCOUNT_ALREADY_CLOSED in refused:
        raise Refusal("account_closed", "the wallet is closed: choose another one", field="wallet_id")
    if refused:
        raise RuntimeError(f"the ledger answered {', '.join(refused)} to money that rests in suspense")
