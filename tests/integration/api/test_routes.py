"""Routes as operators set them, under the worker's role, and as payments meet them."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from core.domain.context import Context
from core.services.problems import Refusal
from core.services.routes import RouteTerms
from core.services.set_routes import RouteRequest, RouteView, disable_route, set_route
from core.store import rails
from core.store.routes import RouteStore
from tests.integration.api.conftest import ROUTES_FRESH_S, World, payout

_OPERATOR = Context(None, "operator")


async def put(world: World, rail: str = "noop", currency: str = "THB", operation: str = "PAYOUT") -> RouteView:
    """Set the route as `fleet routes set` does."""
    async with world.core.worker_database.unit_of_work(_OPERATOR) as uow:
        request = RouteRequest(operation, currency, rail)
        return await set_route(uow, RouteStore(), rails, world.tenant_id, "operator", request)


async def add(world: World, terms: RouteTerms, **dates: datetime) -> RouteView:
    """Add a route to the no-op rail as `fleet routes add` does."""
    async with world.core.worker_database.unit_of_work(_OPERATOR) as uow:
        request = RouteRequest("PAYOUT", "THB", "noop", terms, alone=False, **dates)
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
    await asyncio.sleep(ROUTES_FRESH_S)
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
    await asyncio.sleep(ROUTES_FRESH_S)
    before = await world.contents()
    refused = await world.api.post("/v1/intents", payout(wallet, amount_minor=499), key="little")
    assert (refused.json()["code"], refused.json()["field"]) == ("amount_out_of_bounds", "amount_minor")
    assert await world.contents() == before
    assert (await world.api.post("/v1/intents", payout(wallet, amount_minor=500), key="enough")).status_code == 201


async def test_a_route_with_dates_stands_in_front_of_the_earlier_one_for_its_time(world: World) -> None:
    wallet = await world.funded_wallet(100_000)
    now = datetime.now(UTC)
    later = await add(world, RouteTerms(min_amount_minor=500), valid_from=now + timedelta(hours=1))
    ends = await add(world, RouteTerms(min_amount_minor=900), valid_until=now + timedelta(seconds=3))
    assert [(route.id, route.enabled) for route in await listed(world)][:2] == [(later.id, True), (ends.id, True)]
    await asyncio.sleep(ROUTES_FRESH_S)
    refused = await world.api.post("/v1/intents", payout(wallet, amount_minor=100), key="now")
    assert refused.json()["code"] == "amount_out_of_bounds"
    await world.admin.execute("UPDATE fleet.routes SET valid_until = now() WHERE id = $1", ends.id)
    await asyncio.sleep(ROUTES_FRESH_S)
    assert (await world.api.post("/v1/intents", payout(wallet, amount_minor=100), key="after")).status_code == 201


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
        await add(world, terms, **dates)
    assert refused.value.code == code
    assert len(await listed(world)) == 1
