"""Full streams, wake-ups that beat the poll, a relay that is killed between XADD and commit, the janitor's chores."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import asyncpg
import pytest

from core.bus.gate import BacklogGate, GateBounds
from core.bus.janitor import drop_idle_consumers, trim_stream
from core.bus.relay import relay_step
from core.bus.throttle import ResultsThrottle
from core.store.settling.dispatch import PostgresUpkeep
from core.store.settling.outbox import OUTBOX_CHANNEL
from core.store.told.listener import listen
from fleet.stack.provision import RoleUrls
from schemas.streams import ADAPTERS_GROUP, CORE_GROUP, WHOLE, results_stream
from tests.integration.bus.conftest import JOBS, RAIL, World
from tests.support.servers import BOTH_FAMILIES
from tests.support.waiting import PATIENCE_S

_RELAY_ONCE = """
import asyncio, sys
from core.bus.gate import BacklogGate, GateBounds
from core.bus.relay import StreamRelay
from core.store.database import Database
from core.store.settling.dispatch import PostgresDispatch
from wire.client import connect_redis

async def main(database_url, redis_url, rail, stream):
    client = connect_redis(redis_url, "relay")
    store = PostgresDispatch(await Database.connect(database_url))
    await StreamRelay(store, client, BacklogGate(client, stream, "adapters", GateBounds()), rail, stream).relay_once()

asyncio.run(main(*sys.argv[1:]))
"""


async def fill(redis: Any, stream: str, count: int) -> None:
    async with redis.pipeline(transaction=False) as pipeline:
        for _ in range(count):
            pipeline.xadd(stream, {"v": "1"})
        await pipeline.execute()


async def test_jobs_wait_in_postgresql_while_ten_thousand_entries_are_queued(world: World) -> None:
    await fill(world.redis, JOBS, 10_000)
    await world.queue(5)
    relay = world.relay()
    assert await relay.relay_once() == 0
    assert set((await world.states()).values()) == {"READY"}
    taken = (await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}, count=4_500))[0][1]
    assert await relay.relay_once() == 0, "pending entries are backlog too"
    await world.redis.xack(JOBS, ADAPTERS_GROUP, *(entry for entry, _ in taken))
    assert await relay.relay_once() == 5


@BOTH_FAMILIES
async def test_the_gate_counts_for_itself_where_the_server_cannot_tell_the_lag(world: World) -> None:
    await fill(world.redis, JOBS, 6)
    entries = await world.redis.xrange(JOBS)
    await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}, count=1)
    await world.redis.xdel(JOBS, entries[3][0])
    relay = world.relay(GateBounds(high=5, low=3))
    await world.queue(1)
    assert await relay.relay_once() == 0
    gate = relay.gate
    assert gate.lag_unknown
    assert gate.backlog == 5


async def test_the_server_is_looked_at_again_once_a_part_of_high_water_was_added_to_what_is_remembered(
    world: World,
) -> None:
    gate = BacklogGate(world.redis, JOBS, ADAPTERS_GROUP, GateBounds(high=160, remembered_s=60))
    assert await gate.room() == 160
    await fill(world.redis, JOBS, 100)  # by another relay
    gate.added(9)
    assert await gate.room() == 151
    gate.added(1)
    assert await gate.room() == 60


async def test_permits_are_throttled_while_results_pile_up_or_their_number_is_unknown(world: World) -> None:
    results = results_stream(RAIL)
    throttle = ResultsThrottle(world.servers, [(RAIL, WHOLE)], GateBounds(high=4, low=2))
    await fill(world.redis, results, 4)
    await throttle.look()
    assert throttle.throttled(RAIL)
    entries = (await world.redis.xreadgroup(CORE_GROUP, "core", {results: ">"}))[0][1]
    await world.redis.xack(results, CORE_GROUP, *(entry for entry, _ in entries[:2]))
    await throttle.look()
    assert throttle.throttled(RAIL), "two are not below low-water"
    await world.redis.xack(results, CORE_GROUP, entries[2][0])
    await throttle.look()
    assert not throttle.throttled(RAIL)
    await world.redis.delete(results)
    await throttle.look()
    assert throttle.throttled(RAIL)


async def test_a_wake_up_beats_the_poll_and_still_does_after_its_connection_was_killed(
    world: World, fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    wake, relay = asyncio.Event(), world.relay()

    async def relaying() -> None:
        while True:
            await relay_step(relay, wake, poll_s=30 * PATIENCE_S)

    tasks = [
        asyncio.create_task(listen(fresh_database.worker, OUTBOX_CHANNEL, lambda _: wake.set())),
        asyncio.create_task(relaying()),
    ]
    listening = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"

    async def until_dispatched(count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await world.redis.xlen(JOBS) < count:  # noqa: ASYNC110 - bounded above
                await asyncio.sleep(0.005)

    async def listener_other_than(pid: int | None) -> int:
        async with asyncio.timeout(PATIENCE_S):
            while (found := await admin_connection.fetchval(listening)) in (None, pid):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return int(found)

    pid = await listener_other_than(None)
    await asyncio.sleep(0.2)
    await world.queue(1)
    await until_dispatched(1)
    await admin_connection.execute("SELECT pg_terminate_backend($1)", pid)
    await world.queue(1)
    await until_dispatched(2)  # what was missed while nobody listened is fetched on reconnecting
    await listener_other_than(pid)
    await asyncio.sleep(0.2)
    await world.queue(1)
    await until_dispatched(3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_comes_fast_gathers_before_it_is_relayed_and_a_few_wait_for_nothing(world: World) -> None:
    wake, relay = asyncio.Event(), world.relay()

    async def rest_after(count: int) -> float:
        await world.queue(count)
        asyncio.get_running_loop().call_soon(wake.set)  # more of them come while these are relayed
        return await relay_step(relay, wake, poll_s=PATIENCE_S)

    assert await rest_after(7) == 0.0
    assert 0.0 < await rest_after(30) <= 0.06
    assert 0.06 < await rest_after(199) <= 0.1
    assert await rest_after(200) == 0.0, "a batch that is large enough gains nothing"
    assert await world.redis.xlen(JOBS) == 436


def _end_listeners_while_nothing_runs(url: str, check_s: float) -> None:
    """End them, and return once a check is due: the loop meets the server's goodbye and the check in one turn."""

    async def end() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        )
        await connection.close()

    ending = threading.Thread(target=lambda: asyncio.run(end()))
    ending.start()
    ending.join()
    time.sleep(2 * check_s)


async def test_a_listener_whose_server_goes_in_the_middle_of_a_check_listens_again(fresh_database: RoleUrls) -> None:
    woken: list[str] = []
    check_s = 0.2
    task = asyncio.create_task(listen(fresh_database.worker, OUTBOX_CHANNEL, woken.append, check_s))
    for times in (1, 2, 3):
        async with asyncio.timeout(PATIENCE_S):
            while len(woken) < times:
                assert not task.done(), task.exception()
                await asyncio.sleep(0.01)
        _end_listeners_while_nothing_runs(fresh_database.admin, check_s)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_relay_killed_between_xadd_and_commit_delivers_twice_but_one_job(
    world: World, fresh_database: RoleUrls, fresh_redis: str
) -> None:
    (job_id,) = await world.queue(1)
    arguments = [sys.executable, "-c", _RELAY_ONCE, fresh_database.worker, fresh_redis, RAIL, JOBS]
    environ = os.environ | {"FLEET_FAILPOINTS": "relay.after_xadd=kill"}
    killed = await asyncio.to_thread(subprocess.run, arguments, env=environ, check=False, timeout=30)
    assert killed.returncode == -signal.SIGKILL
    assert (await world.states())[job_id] == "READY"
    async with asyncio.timeout(PATIENCE_S):
        while not await world.relay().relay_once():  # noqa: ASYNC110 - bounded above
            await asyncio.sleep(0.02)
    assert await world.streamed() == [str(job_id)] * 2
    assert (await world.states()) == {job_id: "QUEUED"}


async def test_an_old_pending_entry_moves_to_the_tail_so_that_what_is_finished_goes(world: World) -> None:
    ids = await world.queue(3)
    await world.relay().relay_once()
    entries = (await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}))[0][1]
    await world.redis.xack(JOBS, ADAPTERS_GROUP, *(entry for entry, _ in entries[1:]))
    await asyncio.sleep(0.02)
    await trim_stream(world.redis, JOBS, ADAPTERS_GROUP, blocking_after_ms=5)
    again = (await world.redis.xreadgroup(ADAPTERS_GROUP, "b", {JOBS: ">"}))[0][1]
    assert [fields for _, fields in again] == [entries[0][1]]
    assert again[0][1][b"id"].decode() in map(str, ids)
    assert (await world.redis.xpending(JOBS, ADAPTERS_GROUP))["pending"] == 1


@BOTH_FAMILIES
async def test_only_an_idle_consumer_with_nothing_pending_is_dropped(world: World) -> None:
    await world.queue(1)
    await world.relay().relay_once()
    await world.redis.xreadgroup(ADAPTERS_GROUP, "busy", {JOBS: ">"})
    await world.redis.xgroup_createconsumer(JOBS, ADAPTERS_GROUP, "idle")
    assert await drop_idle_consumers(world.redis, JOBS, ADAPTERS_GROUP, 3_600_000) == 0
    await asyncio.sleep(0.02)
    assert await drop_idle_consumers(world.redis, JOBS, ADAPTERS_GROUP, 5) == 1
    assert [each["name"] for each in await world.redis.xinfo_consumers(JOBS, ADAPTERS_GROUP)] == [b"busy"]


@pytest.mark.parametrize(("age_s", "left"), [(599, 0), (601, 1)])
async def test_a_nonce_is_forgotten_only_when_no_accepted_timestamp_can_repeat_it(
    world: World, admin_connection: asyncpg.Connection, age_s: int, left: int
) -> None:
    await admin_connection.execute(
        "INSERT INTO fleet.request_nonces (tenant_id, key_id, nonce, seen_at)"
        " VALUES (gen_random_uuid(), 'k', 'n', now() - interval '600 s')"
    )
    upkeep = PostgresUpkeep(world.database)
    await upkeep.purge_nonces(age_s)
    assert await admin_connection.fetchval("SELECT count(*) FROM fleet.request_nonces") == left
    assert await upkeep.ensure_partitions() == 0
    assert await upkeep.expire_holds(10) == 0
