"""Money in over HTTP: facts by a rail's key alone, the work list by a key that names it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from core.api.requests import parse
from core.api.serve import internal_app
from schemas.collections import ProviderPaymentBatch
from tests.integration.api.conftest import World
from tests.integration.api.test_internal import NeverThrottled, adapter, announce

PAYMENTS = "/internal/v1/provider-payments"


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """The internal listener."""
    transport = httpx.ASGITransport(internal_app(world.core, NeverThrottled()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://core") as client:
        yield client


def facts(event: str | None = None, **changed: Any) -> dict[str, Any]:
    fact = {
        "provider_account": "main",
        "transaction_id": "T1",
        "status": "SUCCEEDED",
        "amount_minor": 700,
        "currency": "THB",
        "reference": "NOBODYS",
        "source": "CALLBACK",
        "confirmed": True,
        "occurred_at": datetime(2026, 5, 1, tzinfo=UTC).isoformat(),
    }
    return {"event_id": event, "facts": [fact | changed]}


@pytest.mark.parametrize("told", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-05-01T00:00:00"])
async def test_a_moment_that_cannot_be_stored_is_refused_by_name_and_never_a_failure_of_ours(
    world: World, http: httpx.AsyncClient, told: str
) -> None:
    rail = await adapter(world, http, "noop")
    refused = await rail.post(PAYMENTS, facts(occurred_at=told))
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "occurred_at" in refused.json()["detail"]


async def test_what_the_database_cannot_store_is_the_tellers_fault_and_leaves_nothing(
    world: World, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    rail = await adapter(world, http, "noop")
    # As from a field whose bounds somebody forgot: U+0000, which PostgreSQL has in no text.
    monkeypatch.setattr("core.api.provider_payments.parse", lambda model, body: _with_nul(parse(model, body)))
    refused = await rail.post(PAYMENTS, facts(reference="NOBODYS"))
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    monkeypatch.undo()
    assert (await rail.post(PAYMENTS, facts())).json()["fates"] == ["SUSPENDED"]


def _with_nul(batch: ProviderPaymentBatch) -> ProviderPaymentBatch:
    return batch.model_copy(update={"facts": [each.model_copy(update={"reference": "\0"}) for each in batch.facts]})


async def test_a_rails_key_tells_of_payments_and_a_person_decides_about_what_matches_nothing(
    world: World, http: httpx.AsyncClient
) -> None:
    wallet = await world.funded_wallet(1)
    rail = await adapter(world, http, "noop")
    first = await rail.post(PAYMENTS, facts("E1"))
    assert (first.status_code, first.json()) == (200, {"fates": ["SUSPENDED"], "replayed": False})
    assert (await rail.post(PAYMENTS, facts("E1"))).json() == {"fates": ["KNOWN"], "replayed": True}
    assert (await rail.post(PAYMENTS, facts("E2"))).json()["fates"] == ["KNOWN"]
    assert (await rail.post(PAYMENTS, facts(amount_minor=0))).json()["code"] == "invalid_request"
    assert (await rail.post(PAYMENTS, facts(transaction_id=""))).json()["code"] == "invalid_request"
    unknown = await rail.post(PAYMENTS, facts(currency="AAA"))
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_currency")
    desk = await world.other(operations=("SUSPENSE",))
    assert (await world.api.get("/v1/suspense")).json()["code"] == "operation_not_permitted"
    (item,) = (await desk.get("/v1/suspense", state="OPEN")).json()["items"]
    assert (item["reason"], item["amount_minor"], item["rail"]) == ("unknown_reference", 700, "noop")
    path = f"/v1/suspense/{item['id']}"
    assert [each["source"] for each in (await desk.get(path)).json()["sources"]] == ["CALLBACK"]
    asked = {"wallet_id": wallet, "reason": "the payer called"}
    assert (await desk.post(f"{path}/assign", asked | {"reason": ""})).json()["field"] == "reason"
    waiting = (await desk.post(f"{path}/assign", asked)).json()
    assert (waiting["state"], len((await desk.get("/v1/suspense", state="IN_REVIEW")).json()["items"])) == (
        "IN_REVIEW",
        1,
    )
    review = f"/v1/intents/{waiting['taken_by']}/review"
    second = await world.other(operations=("REVIEW",))
    assert (await second.post(review, {"decision": "APPROVE"})).json()["state"] == "SETTLED"
    assert (await desk.get(path)).json()["state"] == "ASSIGNED"
    assert (await desk.post(f"{path}/return", {"reason": "no"})).json()["code"] == "suspense_taken"
    assert (await world.api.get(f"/v1/wallets/{wallet}")).json()["available_minor"] == 701


async def test_no_other_key_tells_of_a_rails_payments(world: World, http: httpx.AsyncClient) -> None:
    client = await world.other()
    client = type(client)(http, client.key_id, client.secret)
    assert (await client.post(PAYMENTS, facts())).status_code == 401
    stranger = await adapter(world, http, "stranger")
    assert (await stranger.post(PAYMENTS, facts())).json()["code"] == "rail_unavailable"
    assert (await announce(stranger, "stranger", rail="stranger", provider_account="elsewhere"))[0] == 200
    # What it tells is about its own rail: our collections and payments of the same names are not touched.
    rail = await adapter(world, http, "noop")
    assert (await rail.post(PAYMENTS, facts())).json()["fates"] == ["SUSPENDED"]
    assert (await stranger.post(PAYMENTS, facts(amount_minor=9))).json()["fates"] == ["SUSPENDED"]
    rows = await world.admin.fetch("SELECT rail, tenant_id = $1 AS ours FROM fleet.provider_payments ORDER BY rail",
                                   world.tenant_id)  # fmt: skip
    assert [tuple(row) for row in rows] == [("noop", True), ("stranger", False)]


async def test_a_rails_key_for_some_tenants_tells_of_no_others_money(world: World, http: httpx.AsyncClient) -> None:
    rail = await adapter(world, http, "noop")
    own = await adapter(world, http, "noop", serves=[world.tenant_id])
    foreign = await adapter(world, http, "noop", serves=[uuid4()])
    assert (await rail.post(PAYMENTS, facts(status="PENDING", confirmed=False))).json()["fates"] == ["NOTED"]
    before = await world.contents()
    nobodys = facts("E2", transaction_id="T2", provider_account="nobodys")
    mixed = {"facts": [*facts(transaction_id="T3")["facts"], *nobodys["facts"]]}
    told = [(foreign, facts("E1")), (foreign, facts("E2", transaction_id="T2")), (own, nobodys), (own, mixed)]
    for teller, body in told:
        refused = await teller.post(PAYMENTS, body)
        assert (refused.status_code, refused.json()["code"]) == (403, "operation_not_permitted")
    assert await world.contents() == before
    assert (await own.post(PAYMENTS, facts("E1"))).json() == {"fates": ["SUSPENDED"], "replayed": False}
    # A key for every tenant tells of nobody's money too.
    assert (await rail.post(PAYMENTS, nobodys)).json() == {"fates": ["SUSPENDED"], "replayed": False}
