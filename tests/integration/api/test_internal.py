"""The internal listener over HTTP: who may ask it, and that a rail's key reaches its own rail alone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from hashlib import blake2b
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import orjson
import pytest

from core.api.serve import internal_app
from core.domain.context import Context
from core.domain.ids import derive_id
from schemas.operations import JobKind
from schemas.permits import Sending
from tests.integration.api.conftest import REGISTRATION, World, payout
from tests.support.signed import Signed
from tests.support.waiting import until_async

PERMITS = "/internal/v1/permits"


class NeverThrottled:
    """A results stream with room."""

    def throttled(self, rail: str) -> bool:
        return False


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """The internal listener."""
    transport = httpx.ASGITransport(internal_app(world.core, NeverThrottled()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://core") as client:
        yield client


async def adapter(world: World, http: httpx.AsyncClient, rail: str, serves: Sequence[UUID] | None = None) -> Signed:
    """Return a client under a key of the rail."""
    keys = world.core.keys
    key = await keys.create(Context(None, "test"), tenant_id=world.tenant_id, name=rail, rail=rail, serves=serves)
    return Signed(http, key.id, key.secret)


async def announce(client: Signed, path_rail: str, **changed: Any) -> tuple[int, str]:
    """Register a rail; return the status and the code of a refusal."""
    path, body = f"/internal/v1/rails/{path_rail}", orjson.dumps(REGISTRATION | changed)
    headers = client.headers("PUT", path, body) | {"Content-Type": "application/json"}
    answer = await client.http.put(path, content=body, headers=headers)
    return answer.status_code, str(answer.json().get("code", ""))


def asking(intent_id: str) -> dict[str, Any]:
    """A request for the payment's permit."""
    job = derive_id(UUID(intent_id), "job", JobKind.PAY)
    return {"request_id": str(uuid4()), "incarnation": str(uuid4()), "job_ids": [str(job)]}


async def test_only_a_rails_own_key_gets_its_permits_and_never_twice_by_one_nonce(
    world: World, http: httpx.AsyncClient
) -> None:
    wallet = await world.funded_wallet(1000)
    intent = (await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"]
    body = asking(intent)
    service, other = Signed(http, world.key.id, world.key.secret), await adapter(world, http, "mallory")
    own = await adapter(world, http, "noop")
    unsigned = await http.post(PERMITS, json=body)
    refused = [unsigned, await service.post(PERMITS, body), await own.post(PERMITS, body, age_s=301)]
    assert [(each.status_code, each.json()["code"]) for each in refused] == [
        (401, "unauthenticated"), (401, "unauthenticated"), (401, "stale_timestamp"),
    ]  # fmt: skip
    assert (await announce(other, "mallory", rail="mallory"))[0] == 200
    foreign = await other.post(PERMITS, body)
    assert [answer["answer"] for answer in foreign.json()["answers"]] == ["NOT_FOUND"]
    assert "0812345678" not in foreign.text
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.attempts") == 0
    granted, replayed = [await own.post(PERMITS, body, nonce="n" * 12) for _ in range(2)]
    (answer,) = granted.json()["answers"]
    assert (answer["answer"], answer["mode"], answer["first"]) == ("GRANTED", "SEND", True)
    assert answer["instruction"]["payee"]["value"] == "0812345678"
    assert (replayed.status_code, replayed.json()["code"]) == (401, "replayed_nonce")
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.attempts") == 1


async def test_a_request_repeated_while_the_first_is_at_work_gets_the_same_permit(
    world: World, http: httpx.AsyncClient, admin_connection: asyncpg.Connection
) -> None:
    wallet = await world.funded_wallet(1000)
    body = asking((await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"])
    own = await adapter(world, http, "noop")
    async with admin_connection.transaction():
        await admin_connection.execute("LOCK TABLE fleet.attempts IN EXCLUSIVE MODE")
        both = [asyncio.create_task(own.post(PERMITS, body)) for _ in range(2)]
        waiting = "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted"
        await until_async(lambda: admin_connection.fetchval(waiting))
    answers = [(await each).json()["answers"][0] for each in both]
    assert [(each["answer"], each["fence"]) for each in answers] == [("GRANTED", 1)] * 2


async def test_a_repeat_waits_a_moment_for_the_first_is_asked_to_come_again_and_stops_nothing_else(
    world: World, http: httpx.AsyncClient, admin_connection: asyncpg.Connection
) -> None:
    wallet = await world.funded_wallet(1000)
    body = asking((await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"])
    own = await adapter(world, http, "noop")
    name = f"permits:noop:{Sending.of(UUID(body['request_id'])).asking}"
    number = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), signed=True)
    async with admin_connection.transaction():
        await admin_connection.execute("SELECT pg_advisory_xact_lock($1)", number)
        waited = await own.post(PERMITS, body)
    assert (waited.status_code, waited.json()["code"]) == (503, "unavailable")
    # Not a number of the adapter's choice: one under which something else locks holds it up nowhere.
    chosen = UUID(int=UUID(body["request_id"]).int >> 64 << 64 | 0x666C656574)
    async with admin_connection.transaction():
        await admin_connection.execute("SELECT pg_advisory_xact_lock($1)", 0x666C656574)
        granted = await own.post(PERMITS, body | {"request_id": str(chosen)})
    assert [each["answer"] for each in granted.json()["answers"]] == ["GRANTED"]


async def test_a_rails_key_registers_its_own_rail_alone_and_nothing_unsafe(
    world: World, http: httpx.AsyncClient
) -> None:
    other = await adapter(world, http, "mallory")
    service = Signed(http, world.key.id, world.key.secret)
    before = await world.contents()
    assert await announce(other, "noop") == (403, "operation_not_permitted")
    assert await announce(other, "mallory") == (403, "operation_not_permitted"), "its body names another rail"
    assert await announce(other, "noop", rail="mallory") == (403, "operation_not_permitted")
    assert await announce(service, "noop") == (401, "unauthenticated")
    hasty = {"send_by_s": 50, "call_total_s": 10, "claim_idle_s": 60}
    assert await announce(other, "mallory", rail="mallory", timing=hasty) == (422, "invalid_request")
    assert (await other.post(PERMITS, asking(str(uuid4())))).json()["code"] == "rail_unavailable"
    assert await world.contents() == before
