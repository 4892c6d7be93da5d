"""People: who may sign in and with which role, for admins."""

from uuid import UUID

from core.console.visit import Answer, Page, Redirect, Screen, Visit
from core.domain.roles import Role
from core.services.on_call.redrives import reach
from core.services.problems import Refusal


async def list_people(visit: Visit) -> Answer:
    """List everybody whom the admin looks after."""
    return Page("people.html", {"people": await visit.core.people.list_people(_within(visit)), "roles": list(Role)})


async def add(visit: Visit) -> Answer:
    """Let somebody in with a password of their own."""
    await visit.core.people.add(
        visit.caller.context().actor,
        name=visit.form.get("name", "").lower(),
        role=_role(visit),
        tenant_id=visit.person.tenant_id,
        password=visit.form.get("password", ""),
    )
    return Redirect("/people", "person_added")


async def change_role(visit: Visit) -> Answer:
    """Give another role."""
    await visit.core.people.set_role(visit.caller.context().actor, _name(visit), _role(visit), _within(visit))
    return Redirect("/people", "person_changed")


async def revoke(visit: Visit) -> Answer:
    """Let them in no more."""
    await visit.core.people.revoke(visit.caller.context().actor, _name(visit), _within(visit))
    return Redirect("/people", "person_changed")


def _within(visit: Visit) -> UUID | None:
    return reach(visit.caller)


def _name(visit: Visit) -> str:
    return str(visit.request.path_params["name"])


def _role(visit: Visit) -> Role:
    try:
        return Role(visit.form.get("role", ""))
    except ValueError as error:
        raise Refusal("invalid_request", f"a role is one of {', '.join(Role)}", field="role") from error


SCREENS = (
    Screen("GET", "/people", list_people, Role.ADMIN),
    Screen("POST", "/people", add, Role.ADMIN),
    Screen("POST", "/people/{name}/role", change_role, Role.ADMIN),
    Screen("POST", "/people/{name}/revoke", revoke, Role.ADMIN),
)
