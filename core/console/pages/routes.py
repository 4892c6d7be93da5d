"""Keys and routes, to read; they are changed by `fleet keys` and `fleet routes`. Secrets are never shown."""

from core.console.visit import Answer, Page, Screen, Visit
from core.domain.roles import Role
from core.services.on_call.redrives import reach


async def list_keys(visit: Visit) -> Answer:
    """List keys, the oldest first, revoked ones too."""
    async with visit.background() as uow:
        found = await visit.core.keys.list_keys(uow, reach(visit.caller))
    return Page("keys.html", {"keys": found})


async def list_routes(visit: Visit) -> Answer:
    """List the routes of the tenant that is looked at."""
    async with visit.background() as uow:
        found = await visit.core.worker_ports.routes.list_routes(uow, visit.tenant_id)
    return Page("routes.html", {"routes": found})


SCREENS = (
    Screen("GET", "/keys", list_keys, Role.VIEWER),
    Screen("GET", "/routes", list_routes, Role.VIEWER),
)
