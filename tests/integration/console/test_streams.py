"""Streams that stand still are put right on their page: all see it, operators act, and each act is in the journal."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from core.bus.healer import heal_rail
from core.bus.stream_repair import StreamRepair, held_in
from core.console.app import console_app
from core.domain.roles import Role
from core.store.settling.dispatch import PostgresDispatch
from schemas.streams import ADAPTERS_GROUP, WHOLE, jobs_stream
from tests.integration.console.conftest import ConsoleWorld
from tests.integration.console.test_pages import journal
from tests.integration.permits.conftest import RAIL, pay_job
from wire.client import StreamServers, connect_redis

JOBS = jobs_stream(RAIL)


@pytest.fixture
async def redis(console: ConsoleWorld, fresh_redis: str) -> AsyncIterator[Redis]:
    """The streams' server, which the console reaches too; two jobs are held by a host that is gone."""
    client, servers = connect_redis(fresh_redis, "test"), StreamServers(fresh_redis, "console")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        stack.push_async_callback(servers.aclose)
        store = PostgresDispatch(console.world.core.worker_database)
        await heal_rail(client, store, RAIL)
        for number in range(2):
            await client.xadd(JOBS, {"n": number})
        await client.xreadgroup(ADAPTERS_GROUP, "host-1", {JOBS: ">"}, count=2)
        console.app = console_app(console.world.core, StreamRepair(servers, [(RAIL, WHOLE)], store))
        yield client


async def holders(redis: Redis) -> list[str]:
    return [entry.consumer for entry in await held_in(redis, RAIL, None)]


async def test_what_a_gone_consumer_holds_is_shown_handed_over_and_given_back(
    console: ConsoleWorld, redis: Redis
) -> None:
    olga = await console.person(Role.OPERATOR)
    await olga.open("/streams")
    assert JOBS in olga.text
    await olga.open(f"/streams/{RAIL}")
    assert "host-1 2" in olga.text
    where = f"/streams/{RAIL}/held"
    await olga.open(where, consumer="host-1", idle_s="60")
    assert "0 entries" in olga.text, "what was touched a moment ago is nobody else's"
    await olga.open(where, consumer="host-1", idle_s="0")
    assert "2 entries" in olga.text
    refused = await olga.send(f"/streams/{RAIL}/release", reason="")
    assert refused.status_code == 422
    assert await holders(redis) == ["host-1"] * 2
    assert await journal(console.world, "stream_release") == []
    await olga.open(where, consumer="host-1", idle_s="0")
    form = olga.form(f"/streams/{RAIL}/release").fields | {"to": "host-2", "reason": "host-1 was replaced"}
    assert (await olga.http.post(f"/streams/{RAIL}/claim", data=form)).status_code == 303
    assert await holders(redis) == ["host-2"] * 2
    await olga.open(where, consumer="host-2", idle_s="0")
    await olga.send(f"/streams/{RAIL}/release", reason="host-2 is gone as well")
    assert "Given back" in olga.text
    assert all(entry.idle_s > 3600 for entry in await held_in(redis, RAIL, None)), "any consumer may claim them now"
    told = [*await journal(console.world, "stream_claim"), *await journal(console.world, "stream_release")]
    assert [(x["actor"], x["subject"]) for x in told] == [("person:operator", f"stream:{RAIL}")] * 2
    assert "host-1 was replaced" in told[0]["data"]


async def test_lost_jobs_are_shown_before_they_are_queued_again(console: ConsoleWorld, redis: Redis) -> None:
    world = console.world
    intent = await world.pay(await world.wallet(1000))
    await world.admin.execute("DELETE FROM fleet.outbox")
    await world.admin.execute(
        "UPDATE fleet.jobs SET state = 'QUEUED', entry_id = '1-0', queued_at = now() - interval '1 hour' WHERE id = $1",
        pay_job(intent),
    )
    olga = await console.person(Role.OPERATOR)
    await olga.open(f"/streams/{RAIL}/diff")
    assert str(pay_job(intent)) in olga.text
    assert (await world.job(pay_job(intent)))["state"] == "QUEUED"
    await olga.send(f"/streams/{RAIL}/rebuild", reason="the server was wiped")
    assert "Every queued job has its entry" in olga.text
    assert (await world.job(pay_job(intent)))["state"] == "READY"
    assert len(await journal(world, "stream_rebuild")) == 1


async def test_a_viewer_sees_streams_and_acts_upon_none_and_the_janitor_leaves_what_is_held(
    console: ConsoleWorld, redis: Redis
) -> None:
    vera, olga = await console.person(Role.VIEWER), await console.person(Role.OPERATOR)
    await vera.open(f"/streams/{RAIL}")
    assert "host-1 2" in vera.text
    assert "Trim what is finished" not in vera.text
    token = vera.form("/sign-out").fields["form_token"]
    refused = await vera.http.post(f"/streams/{RAIL}/janitor", data={"form_token": token, "reason": "because"})
    assert (refused.status_code, "role_missing" in refused.text) == (403, True)
    await olga.open(f"/streams/{RAIL}")
    await olga.send(f"/streams/{RAIL}/janitor", reason="the memory is short")
    assert "Trimmed" in olga.text
    assert await redis.xlen(JOBS) == 2
    assert (await olga.open("/streams/nothing")).status_code == 404
