"""Payments: search, one with its timeline, and what it hides, for a reason."""

from uuid import UUID

from core.console.visit import PAGE, Answer, Page, Screen, Visit
from core.domain.roles import Role
from core.services.access.keys import DEAD_LETTERS_SCOPE
from core.services.on_call.explain import explain
from core.services.on_call.redrives import reach
from core.services.on_call.reveal import reveal
from core.services.payments.read_intents import IntentFilter, returned_of
from schemas.events import IntentState


async def list_intents(visit: Visit) -> Answer:
    """Search payments of the tenant that is looked at; an id of a payment, a job or a letter leads to its payment."""
    text = visit.form.get("find", "")
    if text:
        found = await _by_id(visit, text)
        if found is not None:
            return await _shown(visit, found)
    state = visit.word("state", IntentState)
    wanted = IntentFilter(state=state, reference=text or None)
    rows, following = await visit.core.read.page(visit.in_tenant, wanted, visit.form.get("cursor"), PAGE)
    values = {"intents": rows, "following": following, "find": text, "state": state or "", "states": list(IntentState)}
    return Page("intents.html", values)


async def _by_id(visit: Visit, text: str) -> UUID | None:
    try:
        wanted = UUID(text)
    except ValueError:
        return None
    async with visit.background() as uow:
        found: UUID | None = await visit.core.worker_ports.stories.intent_of(uow, wanted, reach(visit.caller))
    return found


async def show_intent(visit: Visit) -> Answer:
    """Show one payment and everything that happened to it."""
    return await _shown(visit, visit.path_id("intent_id"))


async def _shown(visit: Visit, intent_id: UUID, **more: object) -> Page:
    ports = visit.core.worker_ports
    visit.caller.require_operation(DEAD_LETTERS_SCOPE)
    async with visit.background() as uow:
        story = await explain(uow, ports.stories, visit.caller, intent_id)
        intent = (await ports.intents.load_intents(uow, [story.intent_id]))[story.intent_id]
        returned = await returned_of(uow, ports.intents, intent)
    return Page("intent.html", {"intent": intent, "story": story, "returned": returned, "revealed": None} | more)


async def show_hidden(visit: Visit) -> Answer:
    """Show payee and message this once; who looked and why is in the journal."""
    intent_id = visit.path_id("intent_id")
    shown = await _shown(visit, intent_id)
    caller = visit.person.acting_in(shown.values["intent"].tenant_id)
    revealed = await reveal(visit.core.ports, caller, intent_id, visit.form.get("reason", ""))
    return Page("intent.html", {**shown.values, "revealed": revealed})


SCREENS = (
    Screen("GET", "/intents", list_intents, Role.VIEWER),
    Screen("GET", "/intents/{intent_id}", show_intent, Role.VIEWER),
    Screen("POST", "/intents/{intent_id}/reveal", show_hidden, Role.OPERATOR),
)
