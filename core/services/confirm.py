"""Confirm what the lookup found: bound to amount, fee and name, then held and queued."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.intents import IntentRow
from core.services.authorize import AuthorizePorts, Intents, Moment, authorize
from core.services.keys import Caller
from core.services.problems import Refusal
from core.services.read_intents import visible
from schemas.api import ConfirmRequest
from schemas.events import IntentState

_CONFIRMED = frozenset({IntentState.AUTHORIZED, IntentState.DISPATCHED, IntentState.SETTLED, IntentState.UNRESOLVED})


class ConfirmedIntents(Intents, Protocol):
    """What confirming needs of the intents' store."""

    async def load_intents(self, uow: Any, ids: Sequence[UUID], *, lock: bool = False) -> dict[UUID, IntentRow]: ...


class ConfirmPorts(AuthorizePorts, Protocol):
    """What confirming works with."""

    @property
    def intents(self) -> ConfirmedIntents: ...
    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...


async def confirm(ports: ConfirmPorts, caller: Caller, intent_id: UUID, request: ConfirmRequest) -> IntentRow:
    """Authorize a looked-up intent; a repeat of the same confirmation returns the intent as it is.

    Raises Refusal: not_found, operation_not_permitted, wrong_state, lookup_mismatch, lookup_expired.
    """
    async with ports.unit_of_work(caller.context()) as uow:
        intent = visible(await ports.intents.load_intents(uow, [intent_id], lock=True), intent_id, caller)
        caller.require_operation(intent.operation)
        repeated = intent.state in _CONFIRMED and intent.lookup is not None
        if not repeated and intent.state != IntentState.AWAITING_CONFIRMATION:
            text = f"the intent is {intent.state}: only AWAITING_CONFIRMATION can be confirmed"
            raise Refusal("wrong_state", text)
        _check_binding(intent, request)
        if repeated:
            return intent
        _check_time(intent, await ports.intents.moment(uow))
        intent.fee_minor = request.fee_minor
        await authorize(uow, ports, [intent])
        return (await ports.intents.load_intents(uow, [intent_id]))[intent_id]


def _check_binding(intent: IntentRow, request: ConfirmRequest) -> None:
    lookup = intent.lookup or {}
    if request.amount_minor != intent.amount_minor:
        text = f"the lookup was about {intent.amount_minor} minor units"
        raise Refusal("lookup_mismatch", text, field="amount_minor")
    if request.fee_minor != lookup.get("fee_minor", 0):
        text = f"the lookup named a fee of {lookup.get('fee_minor', 0)} minor units"
        raise Refusal("lookup_mismatch", text, field="fee_minor")
    name = request.payee_name_masked
    if name is not None and name != lookup.get("payee_name_masked"):
        raise Refusal("lookup_mismatch", "the lookup found another name", field="payee_name_masked")


def _check_time(intent: IntentRow, moment: Moment) -> None:
    told = (intent.lookup or {}).get("expires_at")
    expires_at = datetime.fromisoformat(told) if told else intent.deadline
    if expires_at is not None and expires_at <= moment.now:
        raise Refusal("lookup_expired", "ask for the payment anew: its lookup is no longer valid")
