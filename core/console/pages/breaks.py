"""Reconciliation breaks: an owner, a way out by a new entry, a second person's agreement."""

from core.console.visit import PAGE, Answer, Page, Redirect, Screen, Visit
from core.domain.context import Context
from core.domain.roles import Role
from core.services.problems import Refusal
from core.services.recon import break_desk
from core.services.recon.recon import (
    approve_break,
    assign_break,
    list_breaks,
    reconcile_intents,
    reconcile_ledger,
    resolve_break,
)
from schemas.recon import BreakName, BreakOwner, BreakResolution, BreakState


async def list_page(visit: Visit) -> Answer:
    """List breaks, the oldest first."""
    state, kind = visit.word("state", BreakState) or BreakState.OPEN, visit.word("kind", BreakName)
    rail = visit.form.get("rail")
    page = await list_breaks(
        visit.core.worker_ports,
        visit.caller,
        state=state,
        kind=kind,
        rail=rail,
        cursor=visit.form.get("cursor"),
        limit=PAGE,
    )
    values = {"breaks": page.items, "state": state, "states": list(BreakState), "rail": rail}
    return Page("breaks.html", values | {"kind": kind, "kinds": list(BreakName), "following": page.next_cursor})


async def show_break(visit: Visit) -> Answer:
    """Show one break and its ways out."""
    found = await break_desk.show_break(visit.core.worker_ports, visit.caller, visit.path_id("break_id"))
    own = found.proposed_by == visit.caller.context().actor
    return Page("break.html", {"each": found, "own": own})


async def assign(visit: Visit) -> Answer:
    """Say who looks after it; left empty, the person who asks does."""
    break_id = visit.path_id("break_id")
    asked = visit.asked(BreakOwner, owner=visit.form.get("owner", visit.person.name))
    await assign_break(visit.core.worker_ports, visit.caller, break_id, asked.owner)
    return Redirect(f"/breaks/{break_id}", "owner_set")


async def resolve(visit: Visit) -> Answer:
    """Name the entry that puts it right."""
    break_id = visit.path_id("break_id")
    await resolve_break(visit.core.worker_ports, visit.caller, break_id, visit.asked(BreakResolution))
    return Redirect(f"/breaks/{break_id}", "resolved")


async def agree(visit: Visit) -> Answer:
    """Agree with how another person puts it right."""
    break_id = visit.path_id("break_id")
    await approve_break(visit.core.worker_ports, visit.caller, break_id)
    return Redirect(f"/breaks/{break_id}", "approved")


async def compare(visit: Visit) -> Answer:
    """Compare the books with themselves, or with every payment, now."""
    if not visit.person.everywhere:
        raise Refusal("operation_not_permitted", "a comparison reads every tenant's books: the system's people run it")
    what, context = visit.form.get("what", ""), Context(None, visit.caller.context().actor)
    if what == "ledger":
        await reconcile_ledger(visit.core.worker_ports, context)
    elif what == "intents":
        await reconcile_intents(visit.core.worker_ports, context)
    else:
        raise Refusal("invalid_request", "compare ledger or intents", field="what")
    return Redirect("/breaks", "compared")


SCREENS = (
    Screen("GET", "/breaks", list_page, Role.VIEWER),
    Screen("POST", "/breaks", compare, Role.OPERATOR),
    Screen("GET", "/breaks/{break_id}", show_break, Role.VIEWER),
    Screen("POST", "/breaks/{break_id}/assign", assign, Role.OPERATOR),
    Screen("POST", "/breaks/{break_id}/resolve", resolve, Role.OPERATOR),
    Screen("POST", "/breaks/{break_id}/approve", agree, Role.APPROVER),
)
