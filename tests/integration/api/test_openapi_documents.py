"""The whole OpenAPI documents, both of them, against the real core: no 5xx, and no answer that they do not tell of."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from core.api.serve import internal_app
from core.domain.context import Context
from core.domain.ids import derive_id
from core.services.access.keys import KNOWN_SCOPES
from fleet.stack.provision import RoleUrls
from schemas.operations import JobKind
from tests.integration.api.conftest import REGISTRATION, World, open_world, payout
from tests.integration.api.test_internal import NeverThrottled
from tests.integration.api.test_tenants import things_of
from tests.support.drawn_requests import Fuzz
from tests.support.signed import Signed
from wire.signing import ON_BEHALF_OF_HEADER


class _Opened:
    """A world on a loop of its own, which the library that draws can wait for."""

    def __init__(self, urls: RoleUrls) -> None:
        self.loop, self.stack = asyncio.new_event_loop(), AsyncExitStack()
        self.world: World = self.run(self._open(urls))

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def _open(self, urls: RoleUrls) -> World:
        admin = await asyncpg.connect(urls.admin)
        self.stack.push_async_callback(admin.close)
        return await self.stack.enter_async_context(open_world(urls, admin))

    def sender(self, client: Signed) -> Any:
        """Return what signs a request and sends it."""

        def send(request: httpx.Request) -> httpx.Response:
            path, _, query = request.url.raw_path.decode("latin-1").partition("?")
            told = request.headers.get(ON_BEHALF_OF_HEADER)
            signer = Signed(client.http, client.key_id, client.secret, told)
            signed = signer.headers(request.method, path, request.content, query=query)
            request.headers.update(signed)
            answer: httpx.Response = self.run(client.http.send(request))
            return answer

        return send

    def close(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()


@pytest.fixture
def opened(fresh_database: RoleUrls) -> Any:
    opened = _Opened(fresh_database)
    yield opened
    opened.close()


@pytest.fixture
def chosen(request: pytest.FixtureRequest) -> int:
    """Return how many requests of each operation are drawn; 0 leaves it to the test."""
    return int(request.config.getoption("--examples"))


USUAL: dict[str, Any] = {
    "currency": "THB",
    "from_currency": "THB",
    "to_currency": "USD",
    "base": "USD",
    "counter": "THB",
    "business_timezone": "Asia/Bangkok",
    "timezone": "Asia/Bangkok",
    "payee": {"type": "mobile", "value": "0812345678"},
}


@pytest.mark.timeout(0)
def test_every_public_operation_answers_as_its_document_says(opened: Any, chosen: int) -> None:
    world = opened.world
    known = USUAL | opened.run(things_of(world)).ids
    known |= {"counterparty_wallet_id": known["wallet_id"], "original_intent_id": known["intent_id"]}
    client = opened.run(world.other(operations=sorted(KNOWN_SCOPES)))
    document = opened.run(world.api.http.get("/openapi.json")).json()
    fuzz = Fuzz(document, opened.sender(client), known, chosen or 2, not chosen)
    sent = Counter({operation.label: fuzz.try_out(operation) for operation in fuzz.operations()})
    assert min(sent.values()) > 0, [each for each, count in sent.items() if not count]
    report = opened.run(_verified(world))
    assert report.holds, report.discrepancies


async def test_the_document_tells_of_streams_their_end_and_where_they_go_on(world: World) -> None:
    document = (await world.api.http.get("/openapi.json")).json()
    of_all, of_one = (document["paths"][path]["get"] for path in ("/v1/events", "/v1/intents/{intent_id}/events"))
    for told in (of_all, of_one):
        assert set(told["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
        assert "Last-Event-ID" in {each["name"] for each in told["parameters"] if each["in"] == "header"}
        assert "503" in told["responses"]
        assert "Retry-After" in told["responses"]["503"]["headers"]
    assert "content" not in of_one["responses"]["204"]
    assert "204" not in of_all["responses"]
    wallet = await world.funded_wallet(10)
    paid = (await world.api.get("/v1/intents", wallet_id=wallet)).json()["items"][0]["id"]
    path = f"/v1/intents/{paid}/events"
    last = (await world.api.get(path)).json()["items"][-1]["id"]
    for seen, status in ((last, 204), ("none", 422)):
        headers = world.api.headers("GET", path, b"") | {"Accept": "text/event-stream", "Last-Event-ID": seen}
        assert (await world.api.http.get(path, headers=headers)).status_code == status
        assert str(status) in of_one["responses"]


async def _verified(world: World) -> Any:
    async with world.core.worker_database.unit_of_work(Context(None, "test")) as uow:
        return await world.core.worker_ports.ledger.verify(uow)


async def test_the_document_lists_what_a_list_is_narrowed_by(world: World) -> None:
    told = (await world.api.http.get("/openapi.json")).json()
    lists = told["components"]["schemas"]
    asked = {each["name"]: each for each in told["paths"]["/v1/events"]["get"]["parameters"] if each["in"] == "query"}
    assert asked["type"]["explode"] is False
    assert asked["type"]["schema"]["items"] == {"$ref": "#/components/schemas/EventType"}
    assert {"settled", "cancelled_by_client"} <= set(lists["EventType"]["enum"])
    assert {"orphan_hold"} <= set(lists["BreakName"]["enum"])
    assert {"success_after_void"} <= set(lists["AlertKind"]["enum"])


@pytest.mark.timeout(0)
def test_every_internal_operation_answers_as_its_document_says(opened: Any, chosen: int) -> None:
    world = opened.world
    transport = httpx.ASGITransport(internal_app(world.core, NeverThrottled()), raise_app_exceptions=False)
    http = opened.run(opened.stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://core")))
    key = opened.run(world.core.keys.create(Context(None, "test"), tenant_id=world.tenant_id, name="noop", rail="noop"))
    document = opened.run(http.get("/openapi.json")).json()
    wallet = opened.run(world.funded_wallet(1000))
    paid = opened.run(world.api.post("/v1/intents", payout(wallet), key="paid")).json()["id"]
    job = str(derive_id(UUID(paid), "job", JobKind.PAY))
    known = {"rail": "noop", "job_id": job, "job_ids": [job], "operations": REGISTRATION["operations"]}
    fuzz = Fuzz(document, opened.sender(Signed(http, key.id, key.secret)), known, chosen or 6, not chosen)
    assert min(fuzz.try_out(operation) for operation in fuzz.operations()) > 0
