"""Where a payment goes: the tenant's route and what the rail's adapter registered about itself."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, Protocol
from uuid import UUID

from core.services.problems import Refusal
from schemas.api import IntentRequest
from schemas.money import money_text
from schemas.rails import Capabilities, PayeeType, RailRegistration

RouteKey = tuple[UUID, str, str]
"""Tenant, operation, currency."""


@dataclass(frozen=True, slots=True)
class RouteTerms:
    """Which payments a route takes; None leaves it to the rail. The lowest priority is tried first."""

    priority: int = 100
    min_amount_minor: int | None = None
    max_amount_minor: int | None = None
    payee_types: frozenset[str] | None = None


ANY_PAYMENT: Final = RouteTerms()


@dataclass(frozen=True, slots=True)
class Route:
    """One enabled route; `registration` is None while no adapter of the rail has registered."""

    rail: str
    provider: str
    provider_account: str
    environment: str
    registration: RailRegistration | None
    terms: RouteTerms = ANY_PAYMENT
    waits: bool = False
    """The rail, or this operation of it, is paused, or its streams or its provider are away."""
    offers: dict[str, "Offer"] = field(default_factory=dict, compare=False, repr=False)
    """What was worked out for an operation already: the same for every payment of a batch."""


@dataclass(frozen=True, slots=True)
class RailTerms:
    """What the core must know of a rail to authorize and dispatch one operation."""

    reference_length: int
    deadline: timedelta
    """From authorization until the core decides without an adapter: 3·I + H, or as long as a payer may take."""


class Routes(Protocol):
    """Routes and rail terms; answers may be as old as a second."""

    async def routes_of(self, uow: Any, tenant_id: UUID) -> Mapping[tuple[str, str], Sequence[Route]]:
        """Return the tenant's routes in force by (operation, currency), the one to try first first."""
        ...

    async def terms_of(self, uow: Any, rail: str, operation: str) -> RailTerms:
        """Return a rail's terms. Raises Refusal `rail_unavailable`."""
        ...

    async def registration_of(self, uow: Any, rail: str) -> RailRegistration | None:
        """Return what a rail's adapter registered last; None where none ever did."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """The route of one payment, what its rail can do and on which terms, all of one registration."""

    route: Route
    capabilities: Capabilities
    terms: RailTerms


@dataclass(frozen=True, slots=True)
class Offer:
    """What a route takes of one operation, whatever the payment."""

    chosen: Chosen
    least_minor: int
    most_minor: int
    payee_types: Mapping[str, PayeeType]


def terms(registration: RailRegistration, operation: str) -> RailTerms:
    """Return the terms that follow from a registration. Raises Refusal `rail_unavailable`."""
    return _terms(registration, capabilities_of(registration, operation))


def _terms(registration: RailRegistration, capabilities: Capabilities) -> RailTerms:
    deadline_s = 3 * registration.timing.claim_idle_s + capabilities.not_found_horizon_s
    if capabilities.collection_lives_s is not None:
        deadline_s = capabilities.collection_lives_s
    deadline = timedelta(seconds=deadline_s)
    return RailTerms(capabilities.reference_length, deadline)


def capabilities_of(registration: RailRegistration, operation: str) -> Capabilities:
    """Return what the rail can do for an operation. Raises Refusal `rail_unavailable`."""
    found = next((record for name, record in registration.operations.items() if name == operation), None)
    if found is None:
        raise _unavailable()
    return found


def choose_route(
    routes: Mapping[tuple[str, str], Sequence[Route]], request: IntentRequest, *, needs_payee: bool = True
) -> Chosen:
    """Return the first route that takes the payment's amount, currency and payee, and its rail's terms.

    A route that waits is passed over for one that does not; where all that take it wait, so does the payment, on the
    first. Raises Refusal before anything is held: no_route, rail_unavailable, amount_out_of_bounds, payee_*; of
    several, that of the route that came nearest to taking it.
    """
    candidates = routes.get((request.operation, request.currency), ())
    if not candidates:
        wanted = f"{request.operation} {request.currency}"
        text = f"no rail carries {wanted}: an operator sets one with `fleet routes set {wanted} RAIL`"
        raise Refusal("no_route", text, field="operation")
    refusals: list[Refusal] = []
    waiting: Chosen | None = None
    for route in candidates:
        try:
            chosen = _taken(route, request, needs_payee=needs_payee)
        except Refusal as refused:
            refusals.append(refused)
            continue
        if not route.waits:
            return chosen
        waiting = waiting or chosen
    if waiting is not None:
        return waiting
    nearest = max(refusals, key=lambda refused: _NEARNESS.index(refused.code))
    if nearest.code == "payee_type_unknown":
        raise _unknown_payee_type(request, _known_types(candidates, request.operation))
    raise nearest


_NEARNESS: Final = (
    "rail_unavailable", "no_route", "payee_type_unknown", "payee_missing", "amount_out_of_bounds", "payee_malformed",
)  # fmt: skip
"""What a route refuses for, the farthest from taking the payment first."""


def _taken(route: Route, request: IntentRequest, *, needs_payee: bool) -> Chosen:
    offer = route.offers.get(request.operation) or _offer(route, request.operation)
    if request.currency not in offer.chosen.capabilities.currencies:
        raise Refusal("no_route", f"rail {route.rail} does not pay in {request.currency}", field="currency")
    least, most = offer.least_minor, offer.most_minor
    if not least <= request.amount_minor <= most:
        text = f"rail {route.rail} takes {money_text(least, request.currency)} to {money_text(most, request.currency)}"
        raise Refusal("amount_out_of_bounds", text, field="amount_minor")
    if needs_payee:
        _check_payee(offer.payee_types, request)
    return offer.chosen


def _offer(route: Route, operation: str) -> Offer:
    if route.registration is None:
        raise _unavailable()
    capabilities = capabilities_of(route.registration, operation)
    offer = route.offers[operation] = Offer(
        Chosen(route, capabilities, _terms(route.registration, capabilities)),
        max(capabilities.min_amount_minor, route.terms.min_amount_minor or 0),
        min(capabilities.max_amount_minor, route.terms.max_amount_minor or capabilities.max_amount_minor),
        _payee_types(route, operation),
    )
    return offer


def payee_types_of(registration: RailRegistration, operation: str) -> Mapping[str, PayeeType]:
    """Return the payee types that the rail takes for an operation."""
    known = registration.payee_types
    return {name: kind for name, kind in known.items() if not kind.operations or operation in kind.operations}


def _payee_types(route: Route, operation: str) -> Mapping[str, PayeeType]:
    known = {} if route.registration is None else payee_types_of(route.registration, operation)
    wanted = route.terms.payee_types
    return known if wanted is None else {name: known[name] for name in known.keys() & wanted}


def _known_types(routes: Iterable[Route], operation: str) -> set[str]:
    return {name for route in routes for name in _payee_types(route, operation)}


def _unknown_payee_type(request: IntentRequest, known: Iterable[str]) -> Refusal:
    wanted = None if request.named_payee is None else request.named_payee.type
    asked = f"{request.operation} {request.currency}"
    text = f"{asked} takes no payee of type {wanted!r}: use one of {', '.join(sorted(known))}"
    return Refusal("payee_type_unknown", text, field="payee.type")


def _check_payee(types: Mapping[str, PayeeType], request: IntentRequest) -> None:
    payee = request.named_payee
    if payee is None:
        raise Refusal("payee_missing", f"{request.operation} needs a payee", field="payee")
    known = types.get(payee.type)
    if known is None:
        raise _unknown_payee_type(request, types)
    if _compiled(known.pattern).fullmatch(payee.value) is None:
        # The value itself stays out of the text: problems are logged and payees are not.
        text = f"not a {payee.type} payee: {known.remedy} (such as {known.example})"
        raise Refusal("payee_malformed", text, field="payee.value")


def _unavailable() -> Refusal:
    return Refusal("rail_unavailable", "no adapter serves this route yet: start the rail's adapter and repeat")


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def mask_payee(value: str) -> str:
    """Return the payee with all but its last four signs hidden; a short one is hidden whole."""
    shown = 4 if len(value) >= 8 else 0
    return "*" * (len(value) - shown) + value[len(value) - shown :]
