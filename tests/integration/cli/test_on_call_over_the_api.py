"""Rails, streams, a reveal and a question to the provider by command, through the API alone: no database is named."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID

import asyncpg
import pytest
from redis.asyncio import Redis

from core.api.public import public_app
from core.bus.healer import heal_rail
from core.bus.stream_repair import StreamRepair
from core.domain.context import Context
from core.services.access.people import SYSTEM_TENANT
from core.store.settling.dispatch import PostgresDispatch
from fleet.stack.provision import RoleUrls
from schemas.streams import ADAPTERS_GROUP, WHOLE, jobs_stream
from tests.integration.api.conftest import World, open_world, payout
from tests.support.commands import Fleet
from tests.support.live_api import serving
from wire.client import StreamServers, connect_redis

JOBS = jobs_stream("noop")
WHY = ("--reason", "its host is gone")


async def take_key(world: World, monkeypatch: pytest.MonkeyPatch, tenant: UUID, *operations: str) -> str:
    """Give the command a key that carries these; return its id."""
    key = await world.core.keys.create(Context(None, "test"), tenant_id=tenant, name="desk", operations=operations)
    monkeypatch.setenv("FLEET_KEY_ID", key.id)
    monkeypatch.setenv("FLEET_KEY_SECRET", key.secret)
    return key.id


@pytest.fixture
async def world(fresh_database: RoleUrls, admin_connection: asyncpg.Connection) -> AsyncIterator[World]:
    """The core as the application and worker roles see it."""
    async with open_world(fresh_database, admin_connection) as opened:
        yield opened


@pytest.fixture
async def redis(world: World, fresh_redis: str, monkeypatch: pytest.MonkeyPatch, fleet: Fleet) -> AsyncIterator[Redis]:
    """The streams' server behind a served core; two jobs are held by a host that is gone."""
    client, servers = connect_redis(fresh_redis, "test"), StreamServers(fresh_redis, "core-api")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        stack.push_async_callback(servers.aclose)
        store = PostgresDispatch(world.core.worker_database)
        await heal_rail(client, store, "noop")
        for number in range(2):
            await client.xadd(JOBS, {"n": number})
        await client.xreadgroup(ADAPTERS_GROUP, "host-1", {JOBS: ">"}, count=2)
        app = public_app(world.core, StreamRepair(servers, [("noop", WHOLE)], store))
        monkeypatch.setenv("FLEET_URL", await stack.enter_async_context(serving(world.core, app)))
        yield client


async def acts(world: World, key: str) -> list[tuple[str, str]]:
    """Return what a key did and to what, in the journal's order, without what a change of a row notes."""
    rows = await world.admin.fetch(
        "SELECT action, subject FROM fleet.audit_entries WHERE actor = $1 ORDER BY at, seq", f"key:{key}"
    )
    return [tuple(row) for row in rows if row["action"] not in ("insert", "update", "delete")]


async def test_a_rail_is_paused_and_streams_are_repaired_through_the_api(
    fleet: Fleet, world: World, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await take_key(world, monkeypatch, SYSTEM_TENANT, "RAILS")
    paused = (await fleet("rails", "pause", "noop", "--reason", "maintenance", "--json")).document
    assert (paused["operation"], paused["changed"]) == ("*", True)
    (rail,) = (await fleet("rails", "list", "--json")).document
    assert [(each["by"], each["reason"]) for each in rail["pauses"]] == [(f"key:{key}", "maintenance")]
    assert (await fleet("rails", "resume", "noop", "--json")).document["changed"] is True
    told = (await fleet("rails", "events", "noop", "--json")).document
    assert [(each["type"], each["actor"]) for each in told] == [("resumed", f"key:{key}"), ("paused", f"key:{key}")]
    (await fleet("rails", "pause", "sbp", "--reason", "maintenance")).must_fail(3, "not_found")

    rows = {each["stream"]: each for each in (await fleet("streams", "status", "--json")).document}
    assert (rows[JOBS]["pending"], rows[JOBS]["consumers"][0]["name"]) == (2, "host-1")
    assert "host-1=2" in (await fleet("streams", "status", "--rail", "noop")).out
    (await fleet("streams", "status", "--rail", "noop", "--rail", "nowhere")).must_fail(3, "not_found")
    release = ("streams", "release", "noop", "--consumer", "host-1", "--idle-s", "0", "--json")
    assert (await fleet(*release)).document["held"] == 2
    assert (await fleet(*release, *WHY, "--yes")).document["released"] == 2
    claim = ("streams", "claim", "noop", "--from", "host-1", "--to", "host-2", "--idle-s", "0", "--json")
    assert (await fleet(*claim, *WHY, "--yes")).document["claimed"] == 2
    held = (await fleet("streams", "pending", "noop", "--json")).document
    assert {each["consumer"] for each in held} == {"host-2"}
    lost = (await fleet("streams", "lost", "noop", "--json")).document
    assert (lost["queued"], lost["entries"], lost["requeued"]) == (0, 2, None)
    assert (await fleet("streams", "rebuild", "noop", *WHY, "--yes", "--json")).document["requeued"] == 0
    assert len((await fleet("streams", "janitor", "noop", *WHY, "--json")).document) == 4
    verbs = ("release", "claim", "rebuild", "janitor")
    assert await acts(world, key) == [(f"stream_{verb}", "stream:noop") for verb in verbs]


async def test_a_tenants_key_neither_sees_nor_stops_what_serves_every_tenant(
    fleet: Fleet, world: World, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await take_key(world, monkeypatch, world.tenant_id, "RAILS")
    (await fleet("rails", "pause", "noop", "--reason", "maintenance")).must_fail(3, "operation_not_permitted")
    (await fleet("streams", "janitor", "noop", *WHY)).must_fail(3, "operation_not_permitted")
    (await fleet("rails", "list")).must_fail(3, "operation_not_permitted")
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.rail_pauses") == 0


async def test_a_payment_is_revealed_and_its_provider_asked_and_the_journal_tells_both(
    fleet: Fleet, world: World, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = payout(await world.funded_wallet(1000))
    intent = (await world.api.post("/v1/intents", asked, key="one")).json()["id"]
    key = await take_key(world, monkeypatch, SYSTEM_TENANT, "REVEAL", "DEAD_LETTERS")
    shown = (await fleet("intents", "reveal", intent, "--reason", "the payee called", "--json")).document
    assert shown["payee"]["value"] == asked["payee"]["value"]
    (await fleet("intents", "reveal", intent, "--reason", "x")).must_fail(2, "invalid_field")
    (await fleet("intents", "ask", intent)).must_fail(3, "nothing_to_ask")
    await world.admin.execute(
        "UPDATE fleet.jobs SET next_check_at = now() + interval '1 hour' WHERE intent_id = $1", UUID(intent)
    )
    assert (await fleet("intents", "ask", intent)).code == 0
    assert await world.admin.fetchval(
        "SELECT next_check_at <= now() FROM fleet.jobs WHERE intent_id = $1", UUID(intent)
    )
    assert await acts(world, key) == [("revealed", f"intent:{intent}"), ("asked", f"intent:{intent}")]
    await take_key(world, monkeypatch, world.tenant_id, "DEAD_LETTERS")
    (await fleet("intents", "reveal", intent, "--reason", "curious")).must_fail(3, "operation_not_permitted")


async def test_letters_of_a_rail_that_there_is_not_are_refused_by_its_name_and_not_told_as_none(
    world: World, redis: Redis, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await take_key(world, monkeypatch, SYSTEM_TENANT, "DEAD_LETTERS")
    for listing in ("list", "groups"):
        assert (await fleet("dlq", listing, "--rail", "noop", "--json")).document["items"] == []
        refused = await fleet("dlq", listing, "--rail", "nope")
        refused.must_fail(3, "not_found")
        assert "fleet rails list" in refused.err
