"""Rails: what they can do, whether their provider's breaker is open, pause and resume with a reason."""

import json
from typing import Final

from core.console.visit import Answer, Page, Redirect, Screen, Visit
from core.domain.roles import Role
from core.services.on_call import rail_desk
from core.services.problems import Refusal
from schemas.operations import OperationType

_EVENTS: Final = 50


async def list_rails(visit: Visit) -> Answer:
    """Show every rail that has registered, with what is paused and what waits."""
    async with visit.background() as uow:
        rows = await visit.core.worker_ports.rails.overview(uow)
    found = [{**row, "pauses": json.loads(row["pauses"]), "waits": json.loads(row["waits"])} for row in rows]
    return Page("rails.html", {"rails": found})


async def show_rail(visit: Visit) -> Answer:
    """Show a rail's capabilities and what happened to it."""
    rail, rails = str(visit.request.path_params["rail"]), visit.core.worker_ports.rails
    async with visit.background() as uow:
        state = await rails.rail_state(uow, rail)
        if state.registration is None:
            raise Refusal("not_found", "no such rail has registered")
        events = await rails.events_of(uow, rail, _EVENTS)
    return Page("rail.html", {"rail": rail, "state": state, "events": events})


async def pause_rail(visit: Visit) -> Answer:
    """Give no first permits any more; what was sent goes on to its end."""
    rail, reason = str(visit.request.path_params["rail"]), visit.form.get("reason", "")
    await rail_desk.pause_rail(visit.core.worker_ports, visit.caller, rail, _operation(visit), reason)
    return Redirect(f"/rails/{rail}", "paused")


async def resume_rail(visit: Visit) -> Answer:
    """Give first permits again."""
    rail = str(visit.request.path_params["rail"])
    await rail_desk.resume_rail(visit.core.worker_ports, visit.caller, rail, _operation(visit))
    return Redirect(f"/rails/{rail}", "resumed")


def _operation(visit: Visit) -> str:
    operation = visit.form.get("operation", "*")
    if operation == "*":
        return operation
    try:
        return OperationType(operation)
    except ValueError:
        raise Refusal("invalid_request", "there is no such operation", field="operation") from None


SCREENS = (
    Screen("GET", "/rails", list_rails, Role.VIEWER),
    Screen("GET", "/rails/{rail}", show_rail, Role.VIEWER),
    Screen("POST", "/rails/{rail}/pause", pause_rail, Role.OPERATOR),
    Screen("POST", "/rails/{rail}/resume", resume_rail, Role.OPERATOR),
)
