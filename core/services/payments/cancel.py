"""Cancel what was provably not sent. A hold is released through the one door that proves it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import derive_id
from core.domain.intents import IntentRow, Move
from core.domain.operations import sending_job
from core.services.access.keys import Caller
from core.services.payments.plans import asking_wallet
from core.services.payments.read_intents import visible
from core.services.problems import Refusal
from core.services.settling.close_job import ClosePorts, Ending, close_if_unsent, end_intents, is_held
from schemas.events import TERMINAL_STATES, IntentState
from schemas.operations import JobKind

_EVENT: Final = "cancelled_by_client"
_UNSENT: Final = frozenset({IntentState.VALIDATED, IntentState.AWAITING_CONFIRMATION, IntentState.REVIEW})
"""States in which there is no payment job yet."""


class Buried(Protocol):
    """Where collections are marked that nobody may pay any more."""

    async def ask_to_bury(self, uow: Any, job_id: UUID, intent_id: UUID) -> None: ...


class CancelPorts(ClosePorts, Protocol):
    """What cancelling works with."""

    @property
    def collections(self) -> Buried: ...
    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...


async def cancel(ports: CancelPorts, caller: Caller, intent_id: UUID) -> IntentRow:
    """Return the cancelled intent; a repeat, or another cancel at the same moment, returns it again.

    A collection that its provider knows is returned as it stands: the provider is asked to take nothing any more, and
    the answer ends it. What is paid all the same counts, or rests in suspense.

    Raises Refusal: not_found, operation_not_permitted, account_not_permitted, wrong_state (another end),
    already_sent (a permit came first).
    """
    while True:
        async with ports.unit_of_work(caller.context()) as uow:
            intent = visible(await ports.intents.load_intents(uow, [intent_id]), intent_id, caller)
            caller.require_operation(intent.operation)
            caller.require_account(asking_wallet(intent))
            if intent.state in _UNSENT:
                if not await _withdraw(uow, ports, intent_id):
                    # Confirmed or decided between our look and our lock: its payment job is to be locked first, so
                    # it is looked at anew. A state never comes back, so this ends.
                    continue
            elif intent.state not in TERMINAL_STATES:
                job_id = sending_job(intent)
                closed = await close_if_unsent(uow, ports, [job_id], to=IntentState.CANCELLED, type=_EVENT)
                if intent.is_collected and not closed:
                    return await _ask_to_bury(uow, ports, intent_id, job_id)
            return _ended((await ports.intents.load_intents(uow, [intent_id]))[intent_id])


async def _ask_to_bury(uow: Any, ports: CancelPorts, intent_id: UUID, job_id: UUID) -> IntentRow:
    """Let the resolver bury a collection's reference. The job and its intent are locked."""
    jobs, intents = await ports.jobs.lock_jobs_and_intents(uow, [job_id], [])
    job, intent = jobs[job_id], intents[intent_id]
    if intent.state in TERMINAL_STATES:
        return _ended(intent)
    registration = (await ports.rails.rail_state(uow, job.rail)).registration
    capabilities = registration.operations.get(job.operation) if registration is not None else None
    if capabilities is None or not capabilities.cancel_by_reference:
        raise Refusal("already_sent", "the rail cannot take it back: it ends by itself when its time is over")
    if not job.tombstoned:
        await ports.collections.ask_to_bury(uow, job_id, intent_id)
    return (await ports.intents.load_intents(uow, [intent_id]))[intent_id]


def _ended(intent: IntentRow) -> IntentRow:
    """Return a cancelled intent. Raises Refusal for what ended otherwise before our lock, or was left as it is."""
    if intent.state == IntentState.CANCELLED:
        return intent
    if intent.state in TERMINAL_STATES:
        raise Refusal("wrong_state", f"the intent is {intent.state} already")
    raise Refusal("already_sent", "the payment may have been sent: wait for its end, then ask for a refund")


async def _withdraw(uow: Any, ports: CancelPorts, intent_id: UUID) -> bool:
    """End an intent that has no payment job; False where it has one by now. Jobs are locked before intents."""
    await ports.jobs.lock_jobs(uow, [derive_id(intent_id, "job", JobKind.LOOKUP)])
    intent = (await ports.intents.load_intents(uow, [intent_id], lock=True))[intent_id]
    if intent.state not in _UNSENT:
        return False
    if intent.rail is not None:
        state = await ports.rails.rail_state(uow, intent.rail)
        if intent.ledger_epoch < state.ledger_epoch and not state.epoch_cleared:
            raise Refusal("already_sent", "the database was restored: the payment may have been sent before that")
    move = Move(intent_id, IntentState.CANCELLED, _EVENT, decision="VOID" if is_held(intent) else None)
    await end_intents(uow, ports, [Ending.of(intent, move, _EVENT)])
    return True
