"""Money in suspense: whose it is, decided by a person."""

from core.console.visit import PAGE, Answer, Page, Redirect, Screen, Visit
from core.domain.roles import Role
from core.services.money_in.suspense import assign_item, list_items, return_item, show_item
from schemas.suspense import AssignRequest, ReturnRequest, SuspenseDetail, SuspenseState


async def list_suspense(visit: Visit) -> Answer:
    """List the work, oldest first."""
    state = visit.word("state", SuspenseState) or SuspenseState.OPEN
    page = await list_items(
        visit.core.ports,
        visit.in_tenant,
        state=state,
        intent_id=None,
        cursor=visit.form.get("cursor"),
        limit=PAGE,
    )
    values = {"items": page.items, "following": page.next_cursor, "state": state, "states": list(SuspenseState)}
    return Page("suspense.html", values)


async def show(visit: Visit) -> Answer:
    """Show one item, who told of it and what was decided."""
    item = await show_item(visit.core.ports, visit.in_tenant, visit.path_id("item_id"))
    return Page("suspense_item.html", {"item": item})


async def assign(visit: Visit) -> Answer:
    """Give the money to a wallet."""
    item_id = visit.path_id("item_id")
    item = await assign_item(visit.core.ports, visit.in_tenant, item_id, visit.asked(AssignRequest))
    return _decided(item, "assigned")


async def give_back(visit: Visit) -> Answer:
    """Pay the money back to who paid it."""
    item_id = visit.path_id("item_id")
    item = await return_item(visit.core.ports, visit.in_tenant, item_id, visit.asked(ReturnRequest))
    return _decided(item, "returning")


def _decided(item: SuspenseDetail, done: str) -> Redirect:
    waits = item.state is SuspenseState.IN_REVIEW
    return Redirect(f"/suspense/{item.id}", "asked_second" if waits else done)


SCREENS = (
    Screen("GET", "/suspense", list_suspense, Role.VIEWER),
    Screen("GET", "/suspense/{item_id}", show, Role.VIEWER),
    Screen("POST", "/suspense/{item_id}/assign", assign, Role.OPERATOR),
    Screen("POST", "/suspense/{item_id}/return", give_back, Role.OPERATOR),
)
