"""Redrives: asked for after a dry run, approved by a second person, watched, cancelled; payments settled by hand."""

from typing import Any
from uuid import uuid4

from core.console.pages.letters import kept_fields, selection_of
from core.console.visit import PAGE, Answer, Page, Redirect, Screen, Visit, id_in
from core.domain.roles import Role
from core.services.access.keys import DEAD_LETTERS_SCOPE
from core.services.cursors import decode_cursor, encode_cursor, id_of, number_of
from core.services.on_call.redrives import ask_redrive, cancel_redrive, reach, reject_redrive, show_redrive, view_of
from core.services.settling.settle_by_hand import approve, ask_settlement
from schemas.on_call import HandSettlementRequest, RedriveDecision, RedriveRequest, RedriveState

_TERMS = ("action", "reason", "incident", "canary", "rate_per_s", "ramp_s", "stop_at_percent")


async def try_out(visit: Visit) -> Answer:
    """Count what a redrive of all that match would do. Nothing is changed; the form below the counts asks for it."""
    terms = {name: visit.form[name] for name in _TERMS if name in visit.form}
    counted = None
    if "reason" in terms and "incident" in terms:
        asked = _request(visit, dry_run=True)
        counted = await ask_redrive(visit.core.worker_ports, visit.caller, asked)
    values = {"kept": kept_fields(visit), "terms": terms, "counted": counted, "id": uuid4()}
    return Page("redrive_new.html", values)


async def ask(visit: Visit) -> Answer:
    """Redrive or discard all that match; the id was minted with the form, so that two clicks are one."""
    asked = _request(visit, dry_run=False, id=id_in(visit.form.get("id", "")))
    view = await ask_redrive(visit.core.worker_ports, visit.caller, asked)
    return Redirect(f"/redrives/{view.id}", "redrive_asked")


def _request(visit: Visit, **more: Any) -> RedriveRequest:
    numbers = {name: visit.form[name] for name in _TERMS if name in visit.form}
    return visit.asked(RedriveRequest, **numbers, selection=selection_of(visit), **more)


async def list_redrives(visit: Visit) -> Answer:
    """List redrives, newest first, with their progress."""
    ports, state = visit.core.worker_ports, visit.word("state", RedriveState)
    before = id_of(decode_cursor(visit.form["cursor"], 1)[0]) if "cursor" in visit.form else None
    visit.caller.require_operation(DEAD_LETTERS_SCOPE)
    async with visit.background() as uow:
        rows = await ports.redrives.page(uow, reach(visit.caller), state, before, PAGE + 1)
        views = [view_of(row, await ports.redrives.tally(uow, row.id)) for row in rows[:PAGE]]
    following = encode_cursor(str(rows[PAGE - 1].id)) if len(rows) > PAGE else None
    values = {"redrives": views, "following": following, "state": state or "", "states": list(RedriveState)}
    return Page("redrives.html", values)


async def show(visit: Visit) -> Answer:
    """Show one with its progress, and what became of each letter."""
    ports, redrive_id = visit.core.worker_ports, visit.path_id("redrive_id")
    after = number_of(decode_cursor(visit.form["cursor"], 1)[0]) if "cursor" in visit.form else 0
    visit.caller.require_operation(DEAD_LETTERS_SCOPE)
    async with visit.background() as uow:
        view = await show_redrive(uow, ports, visit.caller, redrive_id)
        found = await ports.redrives.items(uow, redrive_id, after, PAGE + 1)
    following = encode_cursor(str(found[PAGE - 1]["place"])) if len(found) > PAGE else None
    own = view.asked_by == visit.caller.context().actor
    return Page("redrive.html", {"redrive": view, "items": found[:PAGE], "following": following, "own": own})


async def agree(visit: Visit) -> Answer:
    """Let it run; nobody agrees with themselves."""
    decision = visit.asked(RedriveDecision)
    view = await approve(visit.core.worker_ports, visit.caller, visit.path_id("redrive_id"), decision.reason)
    return Redirect(f"/redrives/{view.id}", "approved")


async def reject(visit: Visit) -> Answer:
    """End it before it began."""
    redrive_id, decision = visit.path_id("redrive_id"), visit.asked(RedriveDecision)
    async with visit.background() as uow:
        await reject_redrive(uow, visit.core.worker_ports, visit.caller, redrive_id, decision.reason)
    return Redirect(f"/redrives/{redrive_id}", "rejected")


async def cancel(visit: Visit) -> Answer:
    """Act on no further letter."""
    redrive_id, decision = visit.path_id("redrive_id"), visit.asked(RedriveDecision)
    async with visit.background() as uow:
        await cancel_redrive(uow, visit.core.worker_ports, visit.caller, redrive_id, decision.reason)
    return Redirect(f"/redrives/{redrive_id}", "cancelled")


async def settle(visit: Visit) -> Answer:
    """Ask for one payment to be settled as a person has seen it at the provider; a second person approves."""
    asked = visit.asked(HandSettlementRequest, intent_id=visit.path_id("intent_id"))
    view = await ask_settlement(visit.core.worker_ports, visit.caller, asked)
    return Redirect(f"/redrives/{view.id}", "redrive_asked")


SCREENS = (
    Screen("GET", "/redrives", list_redrives, Role.VIEWER),
    Screen("GET", "/redrives/new", try_out, Role.OPERATOR),
    Screen("POST", "/redrives", ask, Role.OPERATOR),
    Screen("GET", "/redrives/{redrive_id}", show, Role.VIEWER),
    Screen("POST", "/redrives/{redrive_id}/approve", agree, Role.APPROVER),
    Screen("POST", "/redrives/{redrive_id}/reject", reject, Role.APPROVER),
    Screen("POST", "/redrives/{redrive_id}/cancel", cancel, Role.OPERATOR),
    Screen("POST", "/intents/{intent_id}/settle", settle, Role.OPERATOR),
)
