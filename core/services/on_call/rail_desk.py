"""Rails as people on call see and stop them: what has registered, what is paused, who did it; and asking at once."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from uuid import UUID

import orjson

from core.domain.context import Context
from core.services.access.keys import DEAD_LETTERS_SCOPE, RAILS_SCOPE, Caller
from core.services.access.people import SYSTEM_TENANT
from core.services.on_call.audit import Act, Journal, require_reason
from core.services.on_call.redrives import background_context, reach
from core.services.payments.read_intents import IntentReader
from core.services.problems import Refusal
from core.services.settling.rails import Rails, pause, resume
from schemas.rail_desk import RailChanged, RailEventView, RailView


class RailDesk(Rails, Protocol):
    """What is shown of rails, beside what settling needs of their store."""

    async def overview(self, uow: Any) -> Sequence[Mapping[str, Any]]: ...

    async def events_of(self, uow: Any, rail: str, limit: int) -> Sequence[Mapping[str, Any]]: ...


class RailPorts(Protocol):
    """What these use cases work with, under the worker role."""

    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...
    @property
    def rails(self) -> Any: ...
    @property
    def jobs(self) -> Any: ...
    @property
    def intents(self) -> IntentReader: ...
    @property
    def journal(self) -> Journal: ...


def require_everywhere(caller: Caller) -> None:
    """Raise Refusal `operation_not_permitted` unless the caller may see what serves every tenant."""
    caller.require_operation(RAILS_SCOPE)
    if caller.tenant_id != SYSTEM_TENANT:
        raise Refusal("operation_not_permitted", "rails and streams serve every tenant: ask as one of the system's")


async def list_rails(ports: RailPorts, caller: Caller) -> tuple[RailView, ...]:
    """Return every rail that has registered. Raises Refusal `operation_not_permitted`."""
    require_everywhere(caller)
    desk: RailDesk = ports.rails
    async with ports.unit_of_work(background_context(caller)) as uow:
        rows = await desk.overview(uow)
    return tuple(rail_view(row) for row in rows)


def rail_view(row: Mapping[str, Any]) -> RailView:
    """Return a row of the overview as people see it."""
    told = {**row, "pauses": orjson.loads(row["pauses"]), "waits": orjson.loads(row["waits"])}
    return RailView.model_validate(told)


async def rail_events(ports: RailPorts, caller: Caller, rail: str, limit: int) -> tuple[RailEventView, ...]:
    """Return what happened to a rail, the newest first. Raises Refusal: operation_not_permitted, not_found."""
    require_everywhere(caller)
    desk: RailDesk = ports.rails
    async with ports.unit_of_work(background_context(caller)) as uow:
        await require_known(uow, desk, rail)
        rows = await desk.events_of(uow, rail, limit)
    return tuple(RailEventView.model_validate({**row}) for row in rows)


async def pause_rail(ports: RailPorts, caller: Caller, rail: str, operation: str, reason: str) -> RailChanged:
    """Give no first permits any more; what was sent goes on to its end. The journal notes it under the caller's name.

    Raises Refusal: operation_not_permitted, invalid_request (no reason), not_found.
    """
    require_everywhere(caller)
    require_reason(reason)
    async with ports.unit_of_work(_acting(caller)) as uow:
        await require_known(uow, ports.rails, rail)
        changed = await pause(uow, ports.rails, rail, operation, reason=reason)
    return RailChanged(rail=rail, operation=operation, paused=True, changed=changed, deadlines_moved=0)


async def resume_rail(ports: RailPorts, caller: Caller, rail: str, operation: str) -> RailChanged:
    """Give first permits again; what waited unsent gets the time back. What was paused by another name stays so.

    Raises Refusal: operation_not_permitted, not_found.
    """
    require_everywhere(caller)
    async with ports.unit_of_work(_acting(caller)) as uow:
        await require_known(uow, ports.rails, rail)
        shown = next(row for row in await ports.rails.overview(uow) if row["rail"] == rail)
        held = [each.operation for each in rail_view(shown).pauses]
        moved = await resume(uow, ports.rails, rail, operation)
    return RailChanged(
        rail=rail,
        operation=operation,
        paused=False,
        changed=operation in held,
        deadlines_moved=moved,
        still_paused=tuple(sorted(each for each in held if each != operation)),
    )


async def owner_of(ports: RailPorts, uow: Any, caller: Caller, intent_id: UUID) -> UUID:
    """Return the tenant of a payment that the caller may reach. Raises Refusal `not_found`."""
    found = (await ports.intents.load_intents(uow, [intent_id])).get(intent_id)
    if found is None or reach(caller) not in (None, found.tenant_id):
        raise Refusal("not_found", "there is no such intent")
    return found.tenant_id


async def ask_provider(ports: RailPorts, caller: Caller, intent_id: UUID) -> int:
    """Let the provider be asked now what became of a payment; return how many of its jobs waited for an answer.

    Raises Refusal: operation_not_permitted, not_found.
    """
    caller.require_operation(DEAD_LETTERS_SCOPE)
    async with ports.unit_of_work(background_context(caller)) as uow:
        owner = await owner_of(ports, uow, caller, intent_id)
        asked: int = await ports.jobs.ask_now(uow, intent_id)
        if asked:
            await ports.journal.append(uow, [Act(owner, caller.context().actor, "asked", f"intent:{intent_id}", {})])
    return asked


def _acting(caller: Caller) -> Context:
    """Return the context whose changes the journal notes under the caller's name; rails serve every tenant."""
    return Context(SYSTEM_TENANT, caller.context().actor)


async def require_known(uow: Any, rails: Rails, rail: str) -> None:
    """Raise Refusal `not_found` unless the rail has registered, now or ever."""
    if rail not in await rails.known_rails(uow):
        text = "no such rail has registered: fleet rails list shows those that have"
        raise Refusal("not_found", text, field="rail")
