"""Of several routes the first that takes a payment and does not wait carries it; nothing else is held or sent."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from adapters.noop.adapter import NoopRail, NoopSettings
from core.services.problems import Refusal
from core.services.terms.routes import Route, RouteTerms, choose_route
from schemas.api import IntentRequest
from schemas.permits import Payee
from schemas.rails import PayeeType, Timing

TIMING = Timing(send_by_s=5, call_total_s=10, claim_idle_s=60)
KEY = ("PAYOUT", "THB")
SHAPE = PayeeType(pattern="[0-9]{10}", remedy="write ten digits", example="0812345678")


def route(rail: str, *types: str, waits: bool = False, registered: bool = True, **terms: Any) -> Route:
    registration = (
        NoopRail(TIMING, NoopSettings())
        .registration()
        .model_copy(update={"rail": rail, "payee_types": dict.fromkeys(types or ("mobile",), SHAPE)})
    )
    made = RouteTerms(**terms)
    return Route(rail, rail.upper(), "main", "sandbox", registration if registered else None, made, waits)


def request(amount_minor: int = 1_000, kind: str = "mobile", value: str = "0812345678") -> IntentRequest:
    return IntentRequest(
        operation="PAYOUT",
        wallet_id=uuid4(),
        amount_minor=amount_minor,
        currency="THB",
        payee=Payee(type=kind, value=value),
    )


def chosen(*routes: Route, asked: IntentRequest | None = None) -> str:
    return choose_route({KEY: routes}, asked or request()).route.rail


def refused(*routes: Route, asked: IntentRequest | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        choose_route({KEY: routes}, asked or request())
    return caught.value


def test_the_first_that_takes_the_amount_carries_it() -> None:
    small, large = route("small", max_amount_minor=1_000), route("large", min_amount_minor=1_001)
    assert [chosen(small, large, asked=request(amount)) for amount in (1, 1_000, 1_001)] == ["small", "small", "large"]


def test_the_payee_decides_between_rails() -> None:
    mobile, bank = route("promptpay", "mobile"), route("bank", "bank_account")
    assert chosen(mobile, bank, asked=request(kind="bank_account")) == "bank"
    assert chosen(bank, mobile) == "promptpay"
    narrowed = replace(route("both", "mobile", "bank_account"), terms=RouteTerms(payee_types=frozenset({"mobile"})))
    assert chosen(narrowed, bank, asked=request(kind="bank_account")) == "bank"


def test_a_rail_that_waits_or_never_registered_is_passed_over() -> None:
    assert chosen(route("paused", waits=True), route("absent", registered=False), route("open")) == "open"


def test_a_payment_waits_with_its_rail_where_no_other_takes_it() -> None:
    assert chosen(route("absent", registered=False), route("paused", waits=True), route("too", waits=True)) == "paused"


def test_the_refusal_is_of_the_route_that_came_nearest() -> None:
    small = route("small", max_amount_minor=10)
    assert refused(route("absent", registered=False), small).code == "amount_out_of_bounds"
    assert refused(small, route("any"), asked=request(value="12")).code == "payee_malformed"
    assert refused(route("absent", registered=False)).code == "rail_unavailable"


def test_an_unknown_type_of_payee_is_told_the_operation_and_every_type_of_every_route() -> None:
    problem = refused(route("a", "mobile"), route("b", "bank_account"), asked=request(kind="pigeon"))
    assert (problem.code, problem.field) == ("payee_type_unknown", "payee.type")
    assert problem.detail == "PAYOUT THB takes no payee of type 'pigeon': use one of bank_account, mobile"
