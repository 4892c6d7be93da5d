"""A rail's key that is for some tenants: every route of the internal listener is walked with one of another tenant."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest

from adapters.promptpay.adapter import PromptPayRail
from adapters.promptpay.client import IppsClient
from adapters.promptpay.settings import PromptPaySettings
from core.domain.ids import derive_id
from schemas.operations import JobKind
from schemas.rails import RailRegistration, Timing
from tests.integration.api.conftest import REGISTRATION, World, payout
from tests.integration.api.test_internal import adapter, asking, http
from tests.support.signed import Signed

__all__ = ["http"]

PREFIX = "/internal/v1"
ACCOUNT = {"provider_account": "main", "environment": "sandbox"}
SLOWER = REGISTRATION | {"timing": {"send_by_s": 6, "call_total_s": 10, "claim_idle_s": 60}}
WAITS = {"operations": ["PAYOUT"], "holds_s": 10}


@dataclass(frozen=True)
class Case:
    """What is sent to a route, and what the key of another tenant is told: a code, or parts of an answer."""

    body: dict[str, Any]
    told: str | dict[str, Any]
    ids: dict[str, str] = field(default_factory=dict)


async def sent(client: Signed, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
    """Send a signed request of any method."""
    raw = orjson.dumps(body)
    headers = client.headers(method, path, raw) | {"Content-Type": "application/json"}
    return await client.http.request(method, path, content=raw, headers=headers)


async def job_of(world: World, intent: dict[str, Any]) -> tuple[str, str]:
    """Return the id and the reference of a payout's job."""
    job = derive_id(UUID(intent["id"]), "job", JobKind.PAY)
    return str(job), await world.admin.fetchval("SELECT reference FROM fleet.jobs WHERE id = $1", job)


async def cases_of(world: World, rail: Signed) -> dict[tuple[str, str], Case]:
    """Give the first tenant one of each thing that the routes speak of; return what to ask each route."""
    wallet = await world.funded_wallet(1000)
    intents = [(await world.api.post("/v1/intents", payout(wallet), key=key)).json() for key in ("a", "b", "c")]
    (first, named), (second, open_), (third, buried) = [await job_of(world, intent) for intent in intents]
    held = str(uuid4())
    file = {"id": held, "message_id": "F1", "body": "<x/>", "members": [{"job_id": first, "reference": named}]}
    assert (await rail.post(f"{PREFIX}/files", file)).json() == {"stored": True}
    day = ACCOUNT | {"business_day": "2026-11-20"}
    await world.admin.execute(
        "INSERT INTO fleet.register_days (rail, provider_account, environment, business_day)"
        " VALUES ('noop', 'main', 'sandbox', current_date - 1)"
    )
    coming = {"file_id": (await rail.post(f"{PREFIX}/registers", day)).json()["file_id"]}
    line = {"line": 1, "provider_ref": "T1", "our_ref": named, "operation": "PAYMENT", "direction": "OUT",
            "amount_minor": 100, "currency": "THB", "status": "SETTLED", "at": "2026-11-20T10:00:00Z"}  # fmt: skip
    fact = {"provider_account": "main", "transaction_id": "T1", "status": "SUCCEEDED", "amount_minor": 700,
            "currency": "THB", "reference": "R1", "source": "CALLBACK", "confirmed": True,
            "occurred_at": "2026-11-20T10:00:00Z"}  # fmt: skip
    announced = {"name": "RTR-1", "reference": named, "amount_minor": 100, "currency": "THB", "raw": "<TxInf/>"}
    item = {"id": str(uuid4()), "job_id": first, "kind": "pay_answer", "raw": "forged"}
    no, limited = "operation_not_permitted", "rail_key_limited"
    return {
        ("POST", "/permits"): Case(
            asking(intents[0]["id"]), {"answers": [{"answer": "NOT_FOUND", "job_id": first}]}
        ),
        ("POST", "/evidence"): Case({"items": [item]}, {"kept": 0, "not_found": [item["id"]]}),
        ("PUT", "/rails/{rail}"): Case(SLOWER, limited, {"rail": "noop"}),
        ("POST", "/rails/{rail}/waits"): Case(WAITS, limited, {"rail": "noop"}),
        ("POST", "/files"): Case(
            {"id": str(uuid4()), "message_id": "F2", "body": "<x/>",
             "members": [{"job_id": second, "reference": open_}]}, "invalid_request",
        ),
        ("POST", "/files/holding"): Case({"references": [named]}, {"files": []}),
        ("POST", "/files/bury"): Case({"job_id": third, "reference": buried}, no),
        ("POST", "/files/{file_id}/again"): Case({}, no, {"file_id": held}),
        ("POST", "/files/{file_id}/give-up"): Case({}, no, {"file_id": held}),
        ("POST", "/messages"): Case(ACCOUNT | {"number": 1, "body": "PGYvPg=="}, no),
        ("POST", "/messages/kept"): Case(ACCOUNT | {"first": 1}, no),
        ("POST", "/announced-returns"): Case(ACCOUNT | {"booked_within_s": 60, "items": [announced]}, no),
        ("POST", "/registers/wanted"): Case({}, {"days": []}),
        ("POST", "/registers"): Case(day | {"section": "second"}, no),
        ("POST", "/registers/{file_id}/lines"): Case({"lines": [line]}, "not_found", coming),
        ("POST", "/registers/{file_id}/complete"): Case({"lines": 1, "file_hash": "0" * 64}, "not_found", coming),
        ("POST", "/provider-payments"): Case({"event_id": None, "facts": [fact]}, no),
    }  # fmt: skip


async def test_a_key_of_another_tenant_walks_every_internal_route_and_learns_and_changes_nothing(
    world: World, http: httpx.AsyncClient
) -> None:
    await world.admin.execute("UPDATE fleet.routes SET environment = 'sandbox'")
    rail = await adapter(world, http, "noop")
    limited = await adapter(world, http, "noop", serves=[uuid4()])
    cases = await cases_of(world, rail)
    paths = (await http.get("/openapi.json")).json()["paths"]
    found = {(method.upper(), path.removeprefix(PREFIX)) for path, methods in paths.items() for method in methods}
    assert set(cases) == found, "name each route of the internal listener here, with what such a key is told"
    before = await world.contents()
    for (method, named), case in cases.items():
        answer = await sent(limited, method, PREFIX + named.format(**case.ids), case.body)
        if isinstance(case.told, str):
            assert (answer.json().get("code"), answer.is_error) == (case.told, True), (named, answer.text)
        else:
            assert (answer.json(), answer.status_code) == (case.told, 200), (named, answer.text)
    assert await world.contents() == before
    # The walk proves something only if whoever is for all tenants succeeds with the very same, and is told more.
    for (method, named), case in cases.items():
        answer = await sent(rail, method, PREFIX + named.format(**case.ids), case.body)
        assert answer.status_code == 200, (named, answer.text)
        assert answer.json() != case.told, (named, answer.text)


async def test_an_adapter_with_a_key_for_some_tenants_starts_where_the_rail_is_registered_so(
    world: World, http: httpx.AsyncClient
) -> None:
    timing = Timing(send_by_s=5, call_total_s=10, claim_idle_s=60)
    chosen = PromptPaySettings.model_validate({"base_url": "http://ipps", "secret": "s"})
    async with httpx.AsyncClient(base_url="http://ipps") as away:
        declared = PromptPayRail(IppsClient(away, "key", "s"), chosen, timing).registration()
    name = declared.rail
    every, some = await adapter(world, http, name), await adapter(world, http, name, serves=[world.tenant_id])

    async def told(client: Signed, registration: RailRegistration) -> tuple[int, Any]:
        body = registration.model_dump(mode="json")
        answer = await sent(client, "PUT", f"{PREFIX}/rails/{name}", body)
        document = answer.json()
        return answer.status_code, document.get("code", document.get("version"))

    assert await told(some, declared) == (403, "rail_key_limited"), "nobody has registered the rail"
    assert await told(every, declared) == (200, 1)
    assert await told(some, declared) == (200, 1)
    other = declared.model_copy(update={"provider_account": "elsewhere"})
    assert await told(some, other) == (403, "rail_key_limited")
    assert await told(every, other) == (200, 2)
    assert await told(some, declared) == (403, "rail_key_limited"), "what was registered before counts no more"
    assert await told(some, other) == (200, 2)


@pytest.mark.parametrize(("others", "status"), [([], 200), ([uuid4()], 403)])
async def test_waits_are_taken_of_a_key_that_serves_every_tenant_of_the_rail_alone(
    world: World, http: httpx.AsyncClient, others: Sequence[UUID], status: int
) -> None:
    for tenant in others:
        # A route that is switched off may have payments yet.
        await world.admin.execute(
            "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account, enabled)"
            " VALUES ($1, 'PAYOUT', 'THB', 'noop', 'NOOP', 'other', false)", tenant,
        )  # fmt: skip
    some = await adapter(world, http, "noop", serves=[world.tenant_id])
    assert (await some.post(f"{PREFIX}/rails/noop/waits", WAITS)).status_code == status
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.rail_waits") == (status == 200)


async def test_of_a_batch_of_evidence_what_is_of_the_keys_tenants_is_kept_and_the_rest_is_named_and_audited(
    world: World, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    wallet = await world.funded_wallet(1000)
    job, _ = await job_of(world, (await world.api.post("/v1/intents", payout(wallet), key="a")).json())
    own, unknown, nobodys = [
        {"id": str(uuid4()), "job_id": each, "kind": "pay_answer", "raw": "x"} for each in (job, str(uuid4()), None)
    ]
    some = await adapter(world, http, "noop", serves=[world.tenant_id])
    for _ in range(2):
        answer = await some.post(f"{PREFIX}/evidence", {"items": [own, unknown, nobodys]})
        # A callback is kept before anybody knows whose it is.
        assert answer.json() == {"kept": 2, "not_found": [unknown["id"]]}
    kept = await world.admin.fetch("SELECT id::text FROM fleet.evidence")
    assert {row["id"] for row in kept} == {own["id"], nobodys["id"]}
    assert f"told of foreign job {unknown['job_id']}" in caplog.text
