"""Set where payments go: the routes in force for each operation and currency of a tenant, by priority and terms."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from uuid import UUID

from core.services.problems import Refusal
from core.services.settling.rails import Rails
from core.services.terms.routes import ANY_PAYMENT, RouteTerms, capabilities_of, payee_types_of
from schemas.rails import Capabilities

MAIN: Final = "main"
"""The name of a route that was given none."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


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
    version: int
    priority: int
    min_amount_minor: int | None
    max_amount_minor: int | None
    payee_types: Sequence[str] | None
    valid_until: datetime | None
    created_by: str
    name: str


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
    actor: str
    terms: RouteTerms = ANY_PAYMENT
    valid_from: datetime | None = None
    """None is from now on."""
    valid_until: datetime | None = None
    alone: bool = False
    """Whether every other route of the operation and currency ends; else only the rail's earlier ones of this name."""
    name: str = MAIN
    """Routes of one rail with different names stand together."""

    @property
    def ends_others(self) -> bool:
        """A route with dates stands beside the earlier one of its name for its time, and ends none."""
        return self.alone or (self.valid_from is None and self.valid_until is None)


class RouteBook(Protocol):
    """Where routes are kept; none is ever deleted."""

    async def list_routes(self, uow: Any, tenant_id: UUID) -> Sequence[RouteView]: ...

    async def replace_route(self, uow: Any, target: RouteTarget) -> RouteView: ...

    async def disable_routes(
        self, uow: Any, tenant_id: UUID, operation: str, currency: str, rail: str | None, name: str | None
    ) -> int: ...


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """What an operator asks for; see RouteTarget."""

    operation: str
    currency: str
    rail: str
    terms: RouteTerms = ANY_PAYMENT
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    alone: bool = True
    name: str = MAIN


async def set_route(
    uow: Any, book: RouteBook, rails: Rails, tenant_id: UUID, actor: str, request: RouteRequest
) -> RouteView:
    """Send new payments to the rail, by the provider account that its adapter registered; a repeat changes nothing.

    The rail's route of this name before it is disabled, and every other where it shall be alone; one with dates stands
    beside it for its time. Payments that were accepted keep theirs. Raises Refusal: invalid_request,
    rail_unavailable, no_route (the rail does not pay in this currency), route_terms_empty (terms that no payment
    meets), payee_type_unknown.
    """
    if _NAME.fullmatch(request.name) is None:
        text = "a route's name is up to 64 of a-z, 0-9, dots, dashes and underscores, and begins with a letter or digit"
        raise Refusal("invalid_request", text, field="name")
    registration = (await rails.rail_state(uow, request.rail)).registration
    if registration is None:
        raise Refusal("rail_unavailable", f"no adapter has registered rail {request.rail}: start it and repeat")
    capabilities = capabilities_of(registration, request.operation)
    if request.currency not in capabilities.currencies:
        raise Refusal("no_route", f"rail {request.rail} does not pay in {request.currency}", field="currency")
    _check_terms(request, capabilities, payee_types_of(registration, request.operation))
    target = RouteTarget(
        tenant_id,
        request.operation,
        request.currency,
        request.rail,
        registration.provider,
        registration.provider_account,
        registration.environment,
        actor,
        request.terms,
        request.valid_from,
        request.valid_until,
        request.alone,
        request.name,
    )
    return await book.replace_route(uow, target)


def _check_terms(request: RouteRequest, capabilities: Capabilities, known: Collection[str]) -> None:
    terms = request.terms
    least = max(terms.min_amount_minor or 1, capabilities.min_amount_minor)
    most = min(terms.max_amount_minor or capabilities.max_amount_minor, capabilities.max_amount_minor)
    if least > most:
        text = (
            f"no amount is both within the route's bounds and within those of rail {request.rail}, "
            f"{capabilities.min_amount_minor} to {capabilities.max_amount_minor} minor units: mend the bounds"
        )
        raise Refusal("route_terms_empty", text, field="min_amount")
    if request.valid_until is not None and request.valid_until <= (request.valid_from or datetime.now(UTC)):
        raise Refusal("route_terms_empty", "the route would end before it begins: mend until", field="until")
    if unknown := sorted((terms.payee_types or frozenset()) - set(known)):
        text = (
            f"rail {request.rail} takes no payee of {request.operation} of type {', '.join(unknown)}: "
            f"use one of {', '.join(sorted(known))}"
        )
        raise Refusal("payee_type_unknown", text, field="payee_type")


async def disable_route(
    uow: Any,
    book: RouteBook,
    tenant_id: UUID,
    operation: str,
    currency: str,
    rail: str | None = None,
    name: str | None = None,
) -> int:
    """Send no new payments there: by the routes of one rail or of all, of one name or of all; return how many ended.

    Raises Refusal `not_found` where there was none.
    """
    disabled = await book.disable_routes(uow, tenant_id, operation, currency, rail, name)
    if not disabled:
        by = "" if rail is None else f" by rail {rail}"
        named = "" if name is None else f" named {name}"
        raise Refusal("not_found", f"no route of {operation} in {currency}{by}{named} is in force")
    return disabled
