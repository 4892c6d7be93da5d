"""The story of one payment: events, permits, facts, evidence, transfers, letters, redrives, in the order of time."""

from typing import Any, Protocol
from uuid import UUID

from core.services.access.keys import DEAD_LETTERS_SCOPE, Caller
from core.services.on_call.redrives import reach
from core.services.problems import Refusal
from schemas.money import money_text
from schemas.on_call import Story, StoryLine


class Stories(Protocol):
    """Reads everything that is known of a payment."""

    async def intent_of(self, uow: Any, any_id: UUID, tenant_id: UUID | None) -> UUID | None:
        """Return the payment that an id names: its own, its job's or its dead letter's."""
        ...

    async def state_of(self, uow: Any, intent_id: UUID) -> dict[str, Any]: ...
    async def lines_of(self, uow: Any, intent_id: UUID) -> list[StoryLine]: ...


async def explain(uow: Any, stories: Stories, caller: Caller, any_id: UUID) -> Story:
    """Return the whole story. Raises Refusal: operation_not_permitted, not_found."""
    caller.require_operation(DEAD_LETTERS_SCOPE)
    return await tell(uow, stories, any_id, reach(caller))


async def tell(uow: Any, stories: Stories, any_id: UUID, tenant_id: UUID | None) -> Story:
    """Return the story of the payment that an id names, of this tenant or of any. Raises Refusal `not_found`."""
    intent_id = await stories.intent_of(uow, any_id, tenant_id)
    if intent_id is None:
        raise Refusal("not_found", f"no payment, job or dead letter has the id {any_id}")
    intent = await stories.state_of(uow, intent_id)
    lines = await stories.lines_of(uow, intent_id)
    return Story(intent_id=intent_id, state=intent["state"], summary=_summary(intent, lines), lines=lines)


def _summary(intent: dict[str, Any], lines: list[StoryLine]) -> str:
    permits = [line for line in lines if line.what == "permit" and line.data.get("mode") == "SEND"]
    negatives = sum(1 for line in lines if line.what == "negative")
    money = {"POST": "the money was posted", "VOID": "the money was given back"}.get(
        intent["decision"], "the money is held" if intent["held"] else "no money is held"
    )
    sent = "no permit to send was ever given" if not permits else f"{len(permits)} permits to send, {negatives} refuted"
    amount = f"{intent['operation']} of {money_text(intent['amount_minor'], intent['currency'])}"
    return f"{amount} is {intent['state']}: {money}; {sent}"
