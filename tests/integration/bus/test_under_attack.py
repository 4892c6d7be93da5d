"""The core's side of the streams: several of each role at once, lost answers, a full server, and its own ACL user."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, RedisError, ResponseError

from core.bootstrap import background, open_core
from core.bus.gate import BacklogGate, GateBounds
from core.bus.healer import epoch_key, heal_rail
from core.bus.inbox import Inbox
from core.bus.janitor import drop_idle_consumers, trim_stream
from core.bus.relay import StreamRelay
from core.bus.sweeper import Sweeper
from core.domain.context import Context
from core.services.settling.rails import pause
from core.settings import Settings
from core.store.settling import rails
from fleet.stack.provision import RoleUrls
from schemas.streams import (
    ADAPTERS_GROUP,
    CORE_GROUP,
    groups_of,
    jobs_dlq_stream,
    jobs_stream,
    results_dlq_stream,
    results_stream,
)
from tests.integration.bus.conftest import JOBS, RAIL, World
from tests.integration.bus.test_inbox import running
from tests.support.cutting_proxy import cutting_proxy
from tests.support.servers import BOTH_FAMILIES
from tests.support.waiting import until_async
from wire import functions
from wire.acl import apply_core_acl
from wire.client import connect_redis

RESULTS = results_stream(RAIL)


async def test_relays_at_once_add_each_job_once(world: World) -> None:
    ids = await world.queue(400)

    async def relay(size: int) -> int:
        gate = BacklogGate(world.redis, JOBS, ADAPTERS_GROUP, GateBounds())
        own, done = StreamRelay(world.store, world.redis, gate, RAIL, JOBS, batch=size), 0
        while count := await own.relay_once():
            done += count
        return done

    assert sum(await asyncio.gather(*(relay(size) for size in (7, 30, 50, 100)))) == 400
    assert sorted(await world.streamed()) == sorted(map(str, ids))
    assert set((await world.states()).values()) == {"QUEUED"}


async def test_a_lost_answer_to_the_relay_adds_entries_twice_but_one_job_each(world: World, fresh_redis: str) -> None:
    ids = await world.queue(3)
    async with cutting_proxy(fresh_redis) as proxy:
        client = connect_redis(proxy.url, "relay")
        gate = BacklogGate(client, JOBS, ADAPTERS_GROUP, GateBounds())
        relay = StreamRelay(world.store, client, gate, RAIL, JOBS)
        proxy.cut_after = b"fleet_dispatch"
        with pytest.raises((RedisError, OSError)):
            await relay.relay_once()
        assert set((await world.states()).values()) == {"READY"}, "unknown is not done"
        assert await relay.relay_once() == 3
        await client.aclose()
    assert sorted(await world.streamed()) == sorted([*map(str, ids)] * 2)
    assert set((await world.states()).values()) == {"QUEUED"}


@BOTH_FAMILIES
async def test_a_server_that_refuses_writes_leaves_every_job_in_the_outbox(world: World) -> None:
    await world.queue(3)
    await world.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            await world.relay().relay_once()
    finally:
        await world.redis.config_set("maxmemory", 0)
    assert set((await world.states()).values()) == {"READY"}
    assert await world.relay().relay_once() == 3


@BOTH_FAMILIES
async def test_healers_at_once_agree_on_one_token_and_sweepers_at_once_put_back_each_job_once(
    world: World, admin_connection: asyncpg.Connection
) -> None:
    ids = await world.queue(20)
    await world.relay().relay_once()
    await world.redis.flushall()
    await world.redis.function_flush("SYNC")
    results = await asyncio.gather(
        *(heal_rail(world.redis, world.store, RAIL) for _ in range(8)), return_exceptions=True
    )
    assert True in results
    while await heal_rail(world.redis, world.store, RAIL):
        pass
    assert (await world.redis.get(epoch_key(RAIL))).decode() == await world.store.stream_token(RAIL)
    for stream, group in groups_of(RAIL):
        assert [each["name"].decode() for each in await world.redis.xinfo_groups(stream)] == [group]
    assert sum(await asyncio.gather(*(world.sweeper(3600).sweep_once() for _ in range(4)))) == 20
    assert await world.relay().relay_once() == 20
    assert sorted(await world.streamed()) == sorted(map(str, ids))


async def test_janitors_at_once_move_an_old_entry_once_and_trim_nothing_that_is_unfinished(world: World) -> None:
    await world.queue(5)
    await world.relay().relay_once()
    entries = (await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}, count=3))[0][1]
    await world.redis.xack(JOBS, ADAPTERS_GROUP, entries[1][0], entries[2][0])
    before = await world.streamed()
    await asyncio.sleep(0.02)
    await asyncio.gather(*(trim_stream(world.redis, JOBS, ADAPTERS_GROUP, blocking_after_ms=5) for _ in range(6)))
    # The entry delivered last marks how far the group is, so it stays until the next one was delivered.
    assert sorted(await world.streamed()) == sorted([before[0], *before[2:]])
    assert (await world.redis.xpending(JOBS, ADAPTERS_GROUP))["pending"] == 0


@BOTH_FAMILIES
async def test_a_full_server_is_trimmed_although_an_old_entry_cannot_move(world: World) -> None:
    await world.queue(3)
    await world.relay().relay_once()
    entries = (await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}))[0][1]
    await world.redis.xack(JOBS, ADAPTERS_GROUP, entries[0][0])
    await asyncio.sleep(0.02)
    await world.redis.config_set("maxmemory", 1)
    try:
        assert await trim_stream(world.redis, JOBS, ADAPTERS_GROUP, blocking_after_ms=5) == 1
    finally:
        await world.redis.config_set("maxmemory", 0)
    assert await world.redis.xlen(JOBS) == 2


async def test_the_gate_closes_on_length_and_on_memory_though_nobody_lags(world: World) -> None:
    for _ in range(4):
        await world.redis.xadd(JOBS, {"v": "1"})
    entries = (await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}))[0][1]
    await world.redis.xack(JOBS, ADAPTERS_GROUP, *(entry for entry, _ in entries))
    await world.queue(2)
    for bounds in (GateBounds(length_max=4), GateBounds(memory_max_bytes=1)):
        assert await world.relay(bounds).relay_once() == 0
    assert set((await world.states()).values()) == {"READY"}
    await trim_stream(world.redis, JOBS, ADAPTERS_GROUP, 600_000)
    assert await world.relay(GateBounds(length_max=4)).relay_once() == 2


async def test_the_sweeper_leaves_what_is_dead_closed_paused_or_waiting(
    world: World, admin_connection: asyncpg.Connection
) -> None:
    dead, closed, paused, waiting = await world.queue(4)
    await admin_connection.execute(
        "UPDATE fleet.outbox SET not_before = now() + interval '1 h' WHERE job_id = $1", waiting
    )
    assert await world.relay().relay_once() == 3
    await admin_connection.execute("UPDATE fleet.jobs SET state = 'DEAD' WHERE id = $1", dead)
    await admin_connection.execute("UPDATE fleet.jobs SET state = 'CLOSED', closed_at = now() WHERE id = $1", closed)
    async with world.database.unit_of_work(Context(None, "test")) as uow:
        assert await pause(uow, rails, RAIL, reason="a test")
    entries = (await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}))[0][1]
    for entry, fields in entries:
        if UUID(fields[b"id"].decode()) == paused:
            # As an adapter does with an answer PAUSED.
            await functions.release(world.redis, JOBS, ADAPTERS_GROUP, "a", 60_000, [entry.decode()])
        else:
            await world.redis.xack(JOBS, ADAPTERS_GROUP, entry)
            await world.redis.xdel(JOBS, entry)
    before = await world.states()
    for _ in range(3):
        assert await world.sweeper(0).sweep_once() == 0
    assert await world.states() == before
    assert await admin_connection.fetchval("SELECT array_agg(job_id) FROM fleet.outbox") == [waiting]


def settings_of(database: RoleUrls, redis_url: str) -> Settings:
    return Settings.model_validate(
        {
            "DATABASE_URL": database.app,
            "DATABASE_WORKER_URL": database.worker,
            "REDIS_URL": redis_url,
            "FLEET_RAILS": RAIL,
            "master_key": base64.b64encode(b"k" * 32).decode(),
        }
    )


@pytest.mark.parametrize("mirror", ["writable", "broken"])
async def test_an_unusable_result_is_kept_raw_in_postgresql_and_mirrored_for_watchers_where_that_can_be(
    world: World, fresh_database: RoleUrls, fresh_redis: str, admin_connection: asyncpg.Connection, mirror: str
) -> None:
    if mirror == "broken":
        await world.redis.set(results_dlq_stream(RAIL), "no stream")
    bodies = ["no json", '{"verdict": "PAID_TWICE"}']
    for body in bodies:
        await world.redis.xadd(RESULTS, {"v": "1", "id": "x", "type": "result", "body": body})
    await world.redis.xadd(RESULTS, {"nothing": "here"})

    async def all_acked() -> bool:
        (group,) = await world.redis.xinfo_groups(RESULTS)
        return not group["lag"] and not group["pending"]

    async with open_core(settings_of(fresh_database, fresh_redis)) as core:
        async with running(Inbox(world.redis, RAIL, RESULTS, "c", background(core, world.servers).settle)):
            await until_async(all_acked)
        rows = await admin_connection.fetch(
            "SELECT stream, entry_id, error_class, body FROM fleet.dead_letters ORDER BY entry_id"
        )
        kept = [
            core.worker_ports.vault.open_bytes(
                row["body"], bound_to=f"dead_letter:{row['stream']}:{row['entry_id']}"
            ).decode()
            for row in rows
        ]
    assert [row["error_class"] for row in rows] == ["unparseable", "unparseable", "not_a_result"]
    assert kept == [*bodies, '{"nothing": "here"}']
    assert await admin_connection.fetchval("SELECT count(*) FROM fleet.alerts WHERE kind = 'unusable_result'") == 3
    if mirror == "writable":
        mirrored = await world.redis.xrange(results_dlq_stream(RAIL))
        assert [fields[b"id"].decode() for _, fields in mirrored] == [row["entry_id"] for row in rows]
        assert [fields[b"body"].decode() for _, fields in mirrored] == kept


@asynccontextmanager
async def as_core(admin: Redis, url: str) -> AsyncIterator[Redis]:
    await apply_core_acl(admin, "fleet-core", "pw", [RAIL])
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    client = connect_redis(urlunsplit(parts._replace(netloc=f"fleet-core:pw@{address}")), "core")
    try:
        yield client
    finally:
        await client.aclose()


@BOTH_FAMILIES
async def test_the_cores_own_user_can_heal_relay_receive_sweep_and_clean(world: World, fresh_redis: str) -> None:
    await world.redis.flushall()
    await world.redis.function_flush("SYNC")
    async with as_core(world.redis, fresh_redis) as core:
        assert await heal_rail(core, world.store, RAIL)
        await world.queue(3)
        relay = StreamRelay(world.store, core, BacklogGate(core, JOBS, ADAPTERS_GROUP, GateBounds()), RAIL, JOBS)
        assert await relay.relay_once() == 3
        received: list[str] = []

        async def receive(_: str, batch: Any) -> list[str]:
            received.extend(each.entry_id for each in batch)
            return [each.entry_id for each in batch]

        await world.redis.xadd(RESULTS, {"v": "1", "id": "x", "type": "result", "body": "{}"})
        async with running(Inbox(core, RAIL, RESULTS, "c", receive, claim_idle_s=0.1)):
            await until_async(lambda: _is_read(received))
        entries = (await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}))[0][1]
        await world.redis.xack(JOBS, ADAPTERS_GROUP, entries[1][0])
        await world.redis.xgroup_createconsumer(JOBS, ADAPTERS_GROUP, "idle")
        assert await Sweeper(core, world.store, RAIL, 0).sweep_once() == 0
        await asyncio.sleep(0.02)
        assert await trim_stream(core, JOBS, ADAPTERS_GROUP, 5) == 1
        left = [fields for _, fields in await world.redis.xrange(JOBS)]
        assert left == [entries[2][1], entries[0][1]], "the oldest moved, the finished went"
        assert await drop_idle_consumers(core, JOBS, ADAPTERS_GROUP, 5) == 1
        await core.xadd(results_dlq_stream(RAIL), {"v": "1"}, maxlen=10, approximate=True)


async def _is_read(received: list[str]) -> bool:
    return bool(received)


FORBIDDEN: list[tuple[str | int, ...]] = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", 0),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "fleet-core", "+@all"),
    ("KEYS", "*"),
    ("SCAN", 0),
    ("EVAL", "return 1", 0),
    ("FUNCTION", "FLUSH"),
    ("FUNCTION", "DELETE", "fleet"),
    ("SHUTDOWN", "NOSAVE"),
    ("MONITOR",),
    ("REPLICAOF", "NO", "ONE"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("DEL", JOBS),
    ("RENAME", JOBS, RESULTS),
    ("XGROUP", "DESTROY", JOBS, ADAPTERS_GROUP),
    ("XGROUP", "SETID", JOBS, ADAPTERS_GROUP, "$"),
    ("XSETID", JOBS, "9-9"),
    ("XADD", jobs_stream("other"), "*", "v", "1"),
    ("XREADGROUP", "GROUP", CORE_GROUP, "x", "STREAMS", jobs_dlq_stream("other"), ">"),
    ("GET", "fleet"),
    ("FCALL", "fleet_dispatch", 1, jobs_stream("other"), "1", "j", "pay", "{}", ""),
]


@BOTH_FAMILIES
async def test_the_cores_own_user_can_empty_or_reconfigure_nothing(fresh_redis: str) -> None:
    async with Redis.from_url(fresh_redis) as admin, as_core(admin, fresh_redis) as core:
        await functions.load_functions(core)
        await functions.ensure_groups(core, RAIL)
        for command in FORBIDDEN:
            with pytest.raises((NoPermissionError, ResponseError), match=r"(?i)permission|ACL|can't access"):
                await core.execute_command(*command)  # type: ignore[no-untyped-call]  # untyped upstream
