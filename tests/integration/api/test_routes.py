"""Routes as operators set them, under the worker's role, and as payments meet them."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from core.domain.context import Context
from core.services.problems import Refusal
from core.services.settling.rails import pause, register, resume
from core.services.terms.routes import RouteTerms
from core.services.terms.set_routes import MAIN, RouteRequest, RouteView, disable_route, set_route
from core.store.settling import rails
from core.store.terms.routes import RouteStore
from schemas.rails import RailRegistration
from tests.integration.api.conftest import REGISTRATION, ROUTES_FRESH_S, World, payout

_OPERATOR = Context(None, "operator")


async def put(world: World, rail: str = "noop", currency: str = "THB", operation: str = "PAYOUT") -> RouteView:
    """Set the route as `fleet routes set` does."""
    async with world.core.worker_database.unit_of_work(_OPERATOR) as uow:
        request = RouteRequest(operation, currency, rail)
        return await set_route(uow, RouteStore(), rails, world.tenant_id, "operator", request)


async def add(world: World, terms: RouteTerms, name: str = MAIN, **dates: datetime) -> RouteView:
    """Add a route to the no-op rail as `fleet routes add` does."""
    async with world.core.worker_database.unit_of_work(_OPERATOR) as uow:
        request = RouteRequest("PAYOUT", "THB", "noop", terms, alone=False, name=name, **dates)
        return await set_route(uow, RouteStore(), rails, world.tenant_id, "operator", request)


async def listed(world: World) -> list[RouteView]:
    async with world.core.worker_database.unit_of_work(_OPERATOR) as uow:
        return list(await RouteStore().list_routes(uow, world.tenant_id))


async def test_a_payment_without_a_route_is_refused_until_an_operator_sets_one(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    async with world.core.worker_database.unit_of_work(_OPERATOR) as uow:
        assert await disable_route(uow, RouteStore(), world.tenant_id, "PAYOUT", "THB") == 1
    await asyncio.sleep(ROUTES_FRESH_S)
    before = await world.contents()
    refused = await world.api.post("/v1/intents", payout(wallet), key="a")
    assert (refused.status_code, refused.json()["code"]) == (422, "no_route")
    assert "fleet routes set PAYOUT THB" in refused.json()["detail"]
    assert await world.contents() == before
    route = await put(world)
    assert (route.rail, route.provider, route.provider_account, route.enabled) == ("noop", "NOOP", "main", True)
    await asyncio.sleep(ROUTES_FRESH_S)
    assert (await world.api.post("/v1/intents", payout(wallet), key="a")).status_code == 201


async def test_a_payment_over_a_rail_that_never_registered_is_refused(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    await world.admin.execute("UPDATE fleet.routes SET rail = 'absent'")
    world.forget_routes()
    before = await world.contents()
    refused = await world.api.post("/v1/intents", payout(wallet), key="a")
    assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (
        503,
        "rail_unavailable",
        "5",
    )
    assert await world.contents() == before


async def test_a_route_that_is_set_again_stays_and_people_at_once_leave_one_in_force(world: World) -> None:
    (first,) = await listed(world)
    assert await put(world) == first
    await world.admin.execute("UPDATE fleet.routes SET provider_account = 'old'")
    await asyncio.gather(*(put(world) for _ in range(8)))
    routes = await listed(world)
    assert [(route.provider_account, route.enabled) for route in routes] == [("main", True), ("old", False)]


@pytest.mark.parametrize(
    ("rail", "currency", "operation", "code"),
    [("absent", "THB", "PAYOUT", "rail_unavailable"), ("noop", "USD", "PAYOUT", "no_route"),
     ("noop", "THB", "REFUND", "rail_unavailable")],
)  # fmt: skip
async def test_a_route_to_where_nobody_pays_is_refused(
    world: World, rail: str, currency: str, operation: str, code: str
) -> None:
    before = await world.contents()
    with pytest.raises(Refusal) as refused:
        await put(world, rail, currency, operation)
    assert refused.value.code == code
    assert await world.contents() == before


async def test_a_route_of_another_tenant_is_neither_seen_nor_disabled(world: World) -> None:
    async with world.core.worker_database.unit_of_work(_OPERATOR) as uow:
        with pytest.raises(Refusal, match="no route"):
            await disable_route(uow, RouteStore(), uuid4(), "PAYOUT", "THB")
    assert [route.enabled for route in await listed(world)] == [True]


async def test_terms_are_versions_and_what_no_route_takes_is_refused_before_anything_is_held(world: World) -> None:
    wallet = await world.funded_wallet(100_000)
    made = await add(world, RouteTerms(min_amount_minor=500, payee_types=frozenset({"mobile"})))
    assert (made.version, made.min_amount_minor, made.payee_types, made.created_by) == (2, 500, ["mobile"], "operator")
    assert await add(world, RouteTerms(min_amount_minor=500, payee_types=frozenset({"mobile"}))) == made
    assert [(route.version, route.enabled) for route in await listed(world)] == [(2, True), (1, False)]
    world.forget_routes()
    before = await world.contents()
    refused = await world.api.post("/v1/intents", payout(wallet, amount_minor=499), key="little")
    assert (refused.json()["code"], refused.json()["field"]) == ("amount_out_of_bounds", "amount_minor")
    assert await world.contents() == before
    assert (await world.api.post("/v1/intents", payout(wallet, amount_minor=500), key="enough")).status_code == 201


async def test_a_route_with_dates_stands_beside_the_earlier_one_and_a_payment_it_does_not_take_goes_by_that(
    world: World,
) -> None:
    wallet = await world.funded_wallet(100_000)
    now = datetime.now(UTC)
    later = await add(world, RouteTerms(min_amount_minor=500), valid_from=now + timedelta(hours=1))
    ends = await add(world, RouteTerms(min_amount_minor=900), valid_until=now + timedelta(seconds=3))
    assert [(route.id, route.enabled) for route in await listed(world)][:2] == [(later.id, True), (ends.id, True)]
    world.forget_routes()
    assert (await world.api.post("/v1/intents", payout(wallet, amount_minor=100), key="now")).status_code == 201


async def test_routes_of_one_rail_stand_together_by_name_and_a_version_ends_its_own_name_alone(world: World) -> None:
    wallet = await world.funded_wallet(100_000)
    little = await add(world, RouteTerms(50, max_amount_minor=500), "little")
    much = await add(world, RouteTerms(60, min_amount_minor=900), "much")
    assert [(route.name, route.version, route.enabled) for route in await listed(world)] == [
        ("little", 1, True), ("much", 1, True), ("main", 1, True),
    ]  # fmt: skip
    async with world.core.worker_database.unit_of_work(_OPERATOR) as uow:
        assert await disable_route(uow, RouteStore(), world.tenant_id, "PAYOUT", "THB", "noop", MAIN) == 1
    less = await add(world, RouteTerms(50, max_amount_minor=400), "little")
    routes = {route.id: (route.version, route.enabled) for route in await listed(world)}
    assert (routes[little.id], routes[less.id], routes[much.id]) == ((1, False), (2, True), (1, True))
    world.forget_routes()
    answers = {
        amount: (await world.api.post("/v1/intents", payout(wallet, amount_minor=amount), key=f"n-{amount}"))
        for amount in (400, 401, 899, 900)
    }
    assert {amount: answer.status_code for amount, answer in answers.items()} == {
        400: 201,
        401: 422,
        899: 422,
        900: 201,
    }
    assert answers[401].json()["code"] == "amount_out_of_bounds"


async def test_two_routes_of_one_rail_may_begin_at_one_moment_and_a_name_is_plain(world: World) -> None:
    begins = datetime.now(UTC) + timedelta(hours=1)
    for name in ("night", "night-much"):
        assert (await add(world, RouteTerms(), name, valid_from=begins)).valid_from == begins
    with pytest.raises(Refusal, match="a route's name") as refused:
        await add(world, RouteTerms(), "Much money")
    assert refused.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("terms", "dates", "code"),
    [
        (RouteTerms(min_amount_minor=10**15), {}, "route_terms_empty"),
        (RouteTerms(payee_types=frozenset({"pigeon"})), {}, "payee_type_unknown"),
        (RouteTerms(), {"valid_until": datetime(2020, 1, 1, tzinfo=UTC)}, "route_terms_empty"),
    ],
)
async def test_terms_that_no_payment_meets_are_refused(
    world: World, terms: RouteTerms, dates: dict[str, datetime], code: str
) -> None:
    with pytest.raises(Refusal) as refused:
        await add(world, terms, MAIN, **dates)
    assert refused.value.code == code
    assert len(await listed(world)) == 1


async def test_a_payment_goes_by_priority_to_the_rail_that_is_there_and_back_when_the_first_is_resumed(
    world: World,
) -> None:
    wallet = await world.funded_wallet(100_000)
    async with world.core.worker_database.unit_of_work(_OPERATOR) as uow:
        await register(uow, rails, RailRegistration.model_validate(REGISTRATION | {"rail": "spare"}))
        for rail, priority in (("spare", 20), ("noop", 10)):
            request = RouteRequest("PAYOUT", "THB", rail, RouteTerms(priority=priority), alone=False)
            await set_route(uow, RouteStore(), rails, world.tenant_id, "operator", request)

    async def paid_by() -> str:
        world.forget_routes()
        answer = await world.api.post("/v1/intents", payout(wallet), key=uuid4().hex)
        assert (answer.status_code, answer.json()["state"]) == (201, "AUTHORIZED"), answer.text
        job = "SELECT rail FROM fleet.jobs WHERE intent_id = $1"
        rail: str = await world.admin.fetchval(job, UUID(answer.json()["id"]))
        return rail

    async def turn(rail: str, operation: str, *, off: bool) -> None:
        async with world.core.worker_database.unit_of_work(_OPERATOR) as uow:
            if off:
                assert await pause(uow, rails, rail, operation, reason="maintenance")
            else:
                await resume(uow, rails, rail, operation)

    assert await paid_by() == "noop"
    await turn("noop", "PAYOUT", off=True)
    assert await paid_by() == "spare"
    await turn("spare", "*", off=True)
    assert await paid_by() == "noop", "where all wait, the payment waits on the first"
    await turn("noop", "PAYOUT", off=False)
    await turn("spare", "*", off=False)
    assert await paid_by() == "noop"
    async with world.core.worker_database.unit_of_work(_OPERATOR) as uow:
        request = RouteRequest("PAYOUT", "THB", "spare", RouteTerms(priority=5), alone=False)
        await set_route(uow, RouteStore(), rails, world.tenant_id, "operator", request)
    assert await paid_by() == "spare"
