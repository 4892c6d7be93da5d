"""Reviews: an intent that asks for monitoring waits, held, until another key than its maker's decides or it expires."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.collections import Payment
from core.domain.context import Context
from core.domain.ids import derive_id
from core.domain.intents import IntentRow, Move
from core.domain.jobs import JobRow
from core.domain.ledger import AccountFlags
from core.domain.operations import accounts_of, legs_of
from core.domain.registry import OPERATIONS
from core.services.access.keys import REVIEW_SCOPE, Caller
from core.services.money_in.collection_booking import Booking, rest_transfer
from core.services.on_call.audit import Act, Journal
from core.services.payments.authorize import AuthorizePorts, Moment, new_job
from core.services.payments.read_intents import visible
from core.services.problems import Refusal
from core.services.settling.close_job import ClosePorts, Ending, end_intents, is_held
from core.services.settling.settle import UnitOfWorkFactory
from schemas.api import ReviewDecision, ReviewRequest
from schemas.events import IntentState
from schemas.operations import Direction, JobKind, OperationType
from wire.failpoints import failpoint

_APPROVED: Final = "review_approved"
_REJECTED: Final = "review_rejected"
_REFUSED: Final = {
    "wallet_closed": ("account_closed", "the wallet is closed"),
    "fee_wallet_closed": ("account_closed", "a wallet that a fee goes to is closed"),
    "wallet_frozen": ("account_frozen", "the wallet is frozen, and a fee would leave it"),
    "fees_not_covered": ("fee_exceeds_amount", "the fees are more than what came and what the wallet has"),
}
"""Why money that came cannot be given to its wallet now; it rests until it can, or goes to suspense by a rejection."""
_OUT_OF_SUSPENSE: Final = frozenset({Direction.PAYBACK, Direction.RELEASE})
_EVENTS: Final = {ReviewDecision.APPROVE: _APPROVED, ReviewDecision.REJECT: _REJECTED}


class ReviewedIntents(Protocol):
    """What reviewing needs of the intents' store."""

    async def moment(self, uow: Any) -> Moment: ...
    async def load_intents(self, uow: Any, ids: Sequence[UUID], *, lock: bool = False) -> dict[UUID, IntentRow]: ...
    async def move_intents(self, uow: Any, moves: Sequence[Move]) -> set[UUID]: ...
    async def move_locked_intents(self, uow: Any, moves: Sequence[Move]) -> None: ...
    async def has_event(self, uow: Any, intent_id: UUID, kind: str, actor: str) -> bool: ...
    async def lock_unreviewed(self, uow: Any, limit: int) -> list[UUID]:
        """Lock intents whose review has not come in time, but those that another transaction has locked."""
        ...


class Taken(Protocol):
    """Where it is known what an intent took out of suspense."""

    async def taken_back(self, uow: Any, intent_id: UUID) -> bool: ...


class Paid(Protocol):
    """Where payments in are kept."""

    async def open(self, uow: Any, jobs: Sequence[JobRow]) -> None: ...
    async def reviewed(self, uow: Any, intent_id: UUID) -> Payment | None: ...


class ReviewPorts(AuthorizePorts, ClosePorts, Protocol):
    """What reviewing works with."""

    @property
    def jobs(self) -> Any: ...
    @property
    def intents(self) -> ReviewedIntents: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def suspense(self) -> Taken: ...
    @property
    def collections(self) -> Paid: ...
    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...


async def decide_review(ports: ReviewPorts, caller: Caller, intent_id: UUID, request: ReviewRequest) -> IntentRow:
    """Approve, which dispatches or settles, or reject, which voids; the same decision again returns the intent.

    A collection that waits was paid: approved, its wallet gets the money; rejected, that is open in suspense.

    Raises Refusal: operation_not_permitted, not_found, review_own_intent, wrong_state, already_sent, account_frozen,
    account_closed, fee_exceeds_amount, suspense_taken_back.
    """
    caller.require_operation(REVIEW_SCOPE)
    async with ports.unit_of_work(caller.context()) as uow:
        # Jobs before intents, everywhere.
        await ports.jobs.lock_jobs(uow, [derive_id(intent_id, "job", JobKind.LOOKUP)])
        intent = visible(await ports.intents.load_intents(uow, [intent_id], lock=True), intent_id, caller)
        if intent.service_key_id == caller.key_id:
            text = "the key that asked for a payment may not decide about it: use another one"
            raise Refusal("review_own_intent", text)
        event = _EVENTS[request.decision]
        if intent.state != IntentState.REVIEW:
            if await ports.intents.has_event(uow, intent_id, event, caller.context().actor):
                return intent
            raise Refusal("wrong_state", f"the intent is {intent.state}: only REVIEW can be decided")
        moment = await ports.intents.moment(uow)
        if intent.review_until is not None and intent.review_until <= moment.now:
            raise Refusal("wrong_state", "the review has expired: ask for the payment anew")
        if await _doubted(uow, ports, intent):
            raise Refusal("already_sent", "the database was restored: the payment may have been sent before that")
        data = {"reason": request.reason} if request.reason else {}
        if request.decision is ReviewDecision.APPROVE:
            await _require_thawed(uow, ports, intent)
            await _require_there(uow, ports, intent)
            await _approve(uow, ports, intent, moment, data)
        else:
            await end_intents(uow, ports, [_rejected(intent, request.reason, data)])
        decided = (await ports.intents.load_intents(uow, [intent_id]))[intent_id]
        # Last of all locks: the journal's.
        act = Act(intent.tenant_id, caller.context().actor, event, f"intent:{intent_id}", data)
        await ports.journal.append(uow, [act])
        failpoint("review.before_commit")
    failpoint("review.after_commit")
    return decided


async def _doubted(uow: Any, ports: ClosePorts, intent: IntentRow) -> bool:
    """Whether a restore may have lost that the intent was approved, and so sent."""
    if intent.rail is None:
        return False
    state = await ports.rails.rail_state(uow, intent.rail)
    return bool(intent.ledger_epoch < state.ledger_epoch and not state.epoch_cleared)


async def _require_thawed(uow: Any, ports: ReviewPorts, intent: IntentRow) -> None:
    # The ledger lets what was held before a freeze end either way; here nothing has decided yet that it should.
    payers = await ports.ledger.lookup_accounts(uow, sorted({leg.debit_account_id for leg in legs_of(intent)}))
    if any(payer.account.flags & AccountFlags.FROZEN for payer in payers.values()):
        raise Refusal("account_frozen", "the wallet that pays is frozen: reject the payment, or unfreeze it first")


async def _require_there(uow: Any, ports: ReviewPorts, intent: IntentRow) -> None:
    # Nothing is on its way before a second key says so: what the provider took back is given to nobody.
    rests = intent.awaits_money or intent.direction in _OUT_OF_SUSPENSE
    if rests and await ports.suspense.taken_back(uow, intent.id):
        text = "the provider took the payment back meanwhile: reject this, and the money leaves suspense as it did"
        raise Refusal("suspense_taken_back", text)


async def _credit(uow: Any, ports: ReviewPorts, intent: IntentRow, moment: Moment, data: dict[str, str]) -> None:
    """Give the wallet what came for its collection, out of suspense, with the fees in the same chain."""
    payment = await ports.collections.reviewed(uow, intent.id)
    if payment is None:
        raise Refusal("wrong_state", "no payment waits for the decision")
    receivers = {leg.account.wallet_id for leg in intent.fee_legs if leg.account.wallet_id is not None}
    wallets = await ports.ledger.lookup_accounts(uow, sorted({intent.wallet_id} | receivers))
    booking = Booking(intent.rail or "", intent.provider or "", moment.now, wallets)
    if reason := booking.refused(intent, payment.amount_minor):
        code, text = _REFUSED[reason]
        raise Refusal(code, f"{text}: put that right first, or reject the payment")
    await ports.ledger.create_accounts(uow, sorted(accounts_of(intent), key=lambda account: account.id))
    qualifier = f"{intent.provider}:{intent.provider_account}:{intent.environment}"
    move = Move(intent.id, IntentState.SETTLED, _APPROVED, data=data, decision="POST")
    released = rest_transfer(payment, qualifier, None, back=True)
    await end_intents(uow, ports, [Ending.of(intent, move, _APPROVED)], [released])


async def _approve(uow: Any, ports: ReviewPorts, intent: IntentRow, moment: Moment, data: dict[str, str]) -> None:
    if intent.awaits_money:
        await _credit(uow, ports, intent, moment, data)
        return
    kind = OPERATIONS[OperationType(intent.operation)].job_kind_of(intent.direction)
    if kind is None or intent.rail is None:
        move = Move(intent.id, IntentState.SETTLED, _APPROVED, data=data, decision="POST")
        await end_intents(uow, ports, [Ending.of(intent, move, _APPROVED)])
        return
    terms = await ports.routes.terms_of(uow, intent.rail, intent.operation)
    deadline = moment.now + terms.deadline
    job = new_job(intent, kind, deadline, terms.reference_length, intent.ledger_epoch)
    await ports.jobs.insert_jobs(uow, [job])
    await ports.intents.move_locked_intents(
        uow, [Move(intent.id, IntentState.AUTHORIZED, _APPROVED, data=data, deadline=deadline)]
    )


def _rejected(intent: IntentRow, reason: str, data: dict[str, str]) -> Ending:
    move = Move(
        intent.id,
        IntentState.FAILED,
        _REJECTED,
        data=data,
        failure_code=_REJECTED,
        failure_message=reason,
        decision="VOID" if is_held(intent) else None,
    )
    return Ending.of(intent, move, _REJECTED)


async def expire_reviews(ports: ReviewPorts, unit_of_work: UnitOfWorkFactory, limit: int) -> int:
    """Void what nobody decided in time; return how many. Safe with several at once.

    What a restore has put in doubt stays until the ledger epoch is cleared.
    """
    async with unit_of_work() as uow:
        late = await ports.intents.load_intents(uow, await ports.intents.lock_unreviewed(uow, limit))
        endings = [_expired(intent) for intent in late.values() if not await _doubted(uow, ports, intent)]
        await end_intents(uow, ports, endings)
    return len(endings)


def _expired(intent: IntentRow) -> Ending:
    move = Move(
        intent.id,
        IntentState.EXPIRED,
        "expired",
        data={"reason": "review_expired"},
        failure_code="review_expired",
        failure_message="nobody decided about the payment in time",
        decision="VOID" if is_held(intent) else None,
    )
    return Ending.of(intent, move, "review_expired")
