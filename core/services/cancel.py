"""Cancel what was provably not sent. A hold is released through the one door that proves it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.intents import IntentRow
from core.services.keys import Caller
from core.services.problems import Refusal
from core.services.read_intents import visible
from schemas.events import TERMINAL_STATES, IntentState


class CancelledIntents(Protocol):
    """What cancelling needs of the intents' store."""

    async def load_intents(self, uow: Any, ids: Sequence[UUID]) -> dict[UUID, IntentRow]: ...


class SafeClose(Protocol):
    """The one door: closes an intent's jobs and releases its holds only where nothing can have been sent."""

    async def __call__(self, uow: Any, intent_id: UUID) -> bool:
        """Return whether the intent is CANCELLED now."""
        ...


class CancelService:
    """Cancels on a client's request."""

    def __init__(
        self,
        unit_of_work: Callable[[Context], AbstractAsyncContextManager[Any]],
        intents: CancelledIntents,
        close: SafeClose,
    ) -> None:
        self._unit_of_work, self._intents, self._close = unit_of_work, intents, close

    async def cancel(self, caller: Caller, intent_id: UUID) -> IntentRow:
        """Return the cancelled intent; a repeat returns it again.

        Raises Refusal: not_found, operation_not_permitted, wrong_state (another end), already_sent.
        """
        async with self._unit_of_work(caller.context()) as uow:
            intent = visible(await self._intents.load_intents(uow, [intent_id]), intent_id, caller)
            caller.require_operation(intent.operation)
            if intent.state == IntentState.CANCELLED:
                return intent
            if intent.state in TERMINAL_STATES:
                raise Refusal("wrong_state", f"the intent is {intent.state} already")
            if not await self._close(uow, intent_id):
                text = "the payment may have been sent: wait for its end, then ask for a refund"
                raise Refusal("already_sent", text)
            return (await self._intents.load_intents(uow, [intent_id]))[intent_id]
