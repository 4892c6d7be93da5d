"""Set where payments go: one route in force for each operation and currency of a tenant."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from core.services.problems import Refusal
from core.services.rails import Rails
from core.services.routes import capabilities_of


@dataclass(frozen=True, slots=True)
class RouteView:
    """A route as an operator sees it."""

    id: int
    operation: str
    currency: str
    rail: str
    provider: str
    provider_account: str
    environment: str
    enabled: bool
    valid_from: datetime


@dataclass(frozen=True, slots=True)
class RouteTarget:
    """Where a tenant's payments of one operation and currency shall go."""

    tenant_id: UUID
    operation: str
    currency: str
    rail: str
    provider: str
    provider_account: str
    environment: str


class RouteBook(Protocol):
    """Where routes are kept; none is ever deleted."""

    async def list_routes(self, uow: Any, tenant_id: UUID) -> Sequence[RouteView]: ...

    async def replace_route(self, uow: Any, target: RouteTarget) -> RouteView: ...

    async def disable_routes(self, uow: Any, tenant_id: UUID, operation: str, currency: str) -> int: ...


async def set_route(
    uow: Any, book: RouteBook, rails: Rails, tenant_id: UUID, operation: str, currency: str, rail: str
) -> RouteView:
    """Send new payments to the rail, by the provider account that its adapter registered; a repeat changes nothing.

    The routes before it are disabled. Payments that were accepted keep theirs.
    Raises Refusal: rail_unavailable, no_route (the rail does not pay in this currency).
    """
    registration = (await rails.rail_state(uow, rail)).registration
    if registration is None:
        raise Refusal("rail_unavailable", f"no adapter has registered rail {rail}: start it and repeat")
    if currency not in capabilities_of(registration, operation).currencies:
        raise Refusal("no_route", f"rail {rail} does not pay in {currency}", field="currency")
    provider, account = registration.provider, registration.provider_account
    target = RouteTarget(tenant_id, operation, currency, rail, provider, account, registration.environment)
    return await book.replace_route(uow, target)


async def disable_route(uow: Any, book: RouteBook, tenant_id: UUID, operation: str, currency: str) -> int:
    """Refuse new payments of this operation and currency with `no_route`; return how many routes were in force.

    Raises Refusal `not_found` where there was none.
    """
    disabled = await book.disable_routes(uow, tenant_id, operation, currency)
    if not disabled:
        raise Refusal("not_found", f"no route of {operation} in {currency} is in force")
    return disabled
