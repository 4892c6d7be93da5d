"""Confirm what the lookup found: bound to amount, fee and name, then held and queued."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import derive_id
from core.domain.intents import IntentRow, confirmable_until
from core.services.access.keys import Caller
from core.services.payments.authorize import AuthorizePorts, Intents, Jobs, Moment, authorize
from core.services.payments.plans import asking_wallet
from core.services.payments.read_intents import visible
from core.services.problems import Refusal
from schemas.api import ConfirmRequest
from schemas.events import IntentState
from schemas.money import money_text
from schemas.operations import JobKind

_CONFIRMED = frozenset(
    {
        IntentState.REVIEW,
        IntentState.AUTHORIZED,
        IntentState.DISPATCHED,
        IntentState.SETTLED,
        IntentState.UNRESOLVED,
    }
)


class ConfirmedIntents(Intents, Protocol):
    """What confirming needs of the intents' store."""

    async def load_intents(self, uow: Any, ids: Sequence[UUID], *, lock: bool = False) -> dict[UUID, IntentRow]: ...


class ConfirmedJobs(Jobs, Protocol):
    """What confirming needs of the jobs' store."""

    async def lock_jobs(self, uow: Any, ids: Sequence[UUID]) -> Any: ...

    async def close_jobs(self, uow: Any, outcomes: Sequence[tuple[UUID, str]]) -> None: ...


class ConfirmPorts(AuthorizePorts, Protocol):
    """What confirming works with."""

    @property
    def jobs(self) -> ConfirmedJobs: ...
    @property
    def intents(self) -> ConfirmedIntents: ...
    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...


async def confirm(ports: ConfirmPorts, caller: Caller, intent_id: UUID, request: ConfirmRequest) -> IntentRow:
    """Authorize a looked-up intent; a repeat of the same confirmation returns the intent as it is.

    Raises Refusal: not_found, operation_not_permitted, account_not_permitted, wrong_state, lookup_mismatch,
    lookup_expired, already_sent (the database was restored since it was accepted).
    """
    lookup_job = derive_id(intent_id, "job", JobKind.LOOKUP)
    async with ports.unit_of_work(caller.context()) as uow:
        # Jobs before intents, everywhere: the open lookup is what the resolver expires the intent by.
        await ports.jobs.lock_jobs(uow, [lookup_job])
        intent = visible(await ports.intents.load_intents(uow, [intent_id], lock=True), intent_id, caller)
        caller.require_operation(intent.operation)
        caller.require_account(asking_wallet(intent))
        repeated = intent.state in _CONFIRMED and intent.lookup is not None
        if not repeated and intent.state != IntentState.AWAITING_CONFIRMATION:
            text = f"the intent is {intent.state}: only AWAITING_CONFIRMATION can be confirmed"
            raise Refusal("wrong_state", text)
        _check_binding(intent, request)
        if repeated:
            return intent
        moment = await ports.intents.moment(uow)
        _check_time(intent, moment)
        if intent.ledger_epoch < moment.ledger_epoch:
            raise Refusal("already_sent", "the database was restored: the payment may have been sent before that")
        intent.fee_minor = request.fee_minor
        await authorize(uow, ports, [intent])
        await ports.jobs.close_jobs(uow, [(lookup_job, "confirmed")])
        return (await ports.intents.load_intents(uow, [intent_id]))[intent_id]


def _check_binding(intent: IntentRow, request: ConfirmRequest) -> None:
    lookup = intent.lookup or {}
    fee_minor = lookup.get("fee_minor", 0) + intent.fees_on_top_minor
    if request.amount_minor != intent.amount_minor:
        text = f"the lookup was about {money_text(intent.amount_minor, intent.currency)}"
        raise Refusal("lookup_mismatch", text, field="amount_minor")
    if request.fee_minor != fee_minor:
        text = f"the fee is {money_text(fee_minor, intent.currency)}"
        raise Refusal("lookup_mismatch", text, field="fee_minor")
    name = request.payee_name_masked
    if name is not None and name != lookup.get("payee_name_masked"):
        raise Refusal("lookup_mismatch", "the lookup found another name", field="payee_name_masked")


def _check_time(intent: IntentRow, moment: Moment) -> None:
    if confirmable_until(intent) <= moment.now:
        raise Refusal("lookup_expired", "ask for the payment anew: its lookup is no longer valid")
