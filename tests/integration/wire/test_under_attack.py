"""The wire's promises while the server is full, forgets what it was given, answers nobody, or a consumer is killed."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from schemas.envelope import Envelope
from schemas.streams import ADAPTERS_GROUP, jobs_dlq_stream, rate_bucket, results_stream
from tests.integration.wire.test_stream_consumer import JOBS, ONE, RAIL, admin, reader
from tests.support.cutting_proxy import cutting_proxy
from tests.support.servers import BOTH_FAMILIES
from tests.support.waiting import PATIENCE_S, until, until_async
from wire import functions
from wire.client import connect_redis
from wire.consumer import ConsumerSettings, Delivery, StreamConsumer
from wire.functions import Completion
from wire.publisher import Publisher

pytestmark = BOTH_FAMILIES

__all__ = ["admin"]

RESULTS = results_stream(RAIL)
VERDICT = Envelope("r", "result", "{}")

_READ_AND_HANG = """
import asyncio, sys
from wire.client import connect_redis
from wire.consumer import ConsumerSettings, StreamConsumer

async def main(url, stream, idle_s):
    async def hang(batch):
        print(len(batch), flush=True)
        await asyncio.sleep(60)
    settings = ConsumerSettings(stream, "adapters", "doomed", claim_idle_s=float(idle_s), max_records=10, block_ms=100)
    StreamConsumer(connect_redis(url, "doomed"), settings, hang).start()
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


async def pending(admin: Redis) -> list[tuple[str, int]]:
    found: Any = await admin.xpending_range(JOBS, ADAPTERS_GROUP, "-", "+", 1000)
    return [(each["consumer"].decode(), each["times_delivered"]) for each in found]


async def until_beaten(admin: Redis) -> None:
    """Wait for a heartbeat: an entry in somebody's hands becomes younger, by the server's own clock."""
    oldest = -1

    async def younger() -> bool:
        nonlocal oldest
        found: Any = await admin.xpending_range(JOBS, ADAPTERS_GROUP, "-", "+", 1)
        before, oldest = oldest, found[0]["time_since_delivered"]
        return bool(oldest < before)

    await until_async(younger)


async def age(admin: Redis, entries: list[str], idle_s: float) -> None:
    """Make the doomed consumer's entries as old as if `idle_s` had passed; no delivery is counted."""
    await admin.xclaim(JOBS, ADAPTERS_GROUP, "doomed", 0, [*entries], idle=int(idle_s * 1000), justid=True)


async def claims(admin: Redis) -> int:
    """How often the server was asked to claim by all consumers together."""
    found: Any = await admin.info("commandstats")
    return int(found.get("cmdstat_xautoclaim", {}).get("calls", 0))


@asynccontextmanager
async def refusing(admin: Redis, setting: str) -> AsyncIterator[None]:
    before: Any = await admin.config_get(setting)
    await admin.config_set(setting, 1)
    try:
        yield
    finally:
        await admin.config_set(setting, before[setting])


@asynccontextmanager
async def one_in_hand(admin: Redis, client: Redis) -> AsyncIterator[tuple[StreamConsumer, Publisher, list[Delivery]]]:
    """A consumer and its publisher on `client`, with one started entry."""
    seen: list[Delivery] = []
    consumer = reader(client, seen)
    publisher = Publisher(client, RAIL, JOBS, "a", consumer)
    await functions.dispatch(admin, JOBS, [ONE])
    consumer.start()
    publisher.start()
    await until(lambda: len(seen) == 1)
    seen[0].started = True
    try:
        yield consumer, publisher, seen
    finally:
        await publisher.stop(1)
        await consumer.drain(0.1)


@pytest.mark.parametrize("setting", ["maxmemory", "min-replicas-to-write"])
async def test_while_the_server_refuses_writes_nothing_is_acked_and_the_verdict_waits(
    admin: Redis, setting: str
) -> None:
    async with one_in_hand(admin, admin) as (consumer, publisher, seen):
        async with refusing(admin, setting):
            await publisher.publish(Completion(seen[0].entry_id, VERDICT))
            await asyncio.sleep(0.3)
            assert consumer.held, "the entry is still ours"
            assert await pending(admin) == [("a", 1)]
            assert await admin.xlen(RESULTS) == 0
        await until(lambda: not consumer.held)
        assert await admin.xlen(RESULTS) == 1
        assert await pending(admin) == []


async def test_a_full_server_still_takes_acks_releases_and_heartbeats_so_that_it_can_get_room(admin: Redis) -> None:
    entries = await functions.dispatch(admin, JOBS, [ONE] * 3)
    await admin.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"})
    async with refusing(admin, "maxmemory"):
        with pytest.raises(OutOfMemoryError):
            await functions.settle(admin, RAIL, JOBS, "a", [Completion(entries[0], VERDICT)])
        with pytest.raises(OutOfMemoryError):
            await functions.readd(admin, JOBS, ADAPTERS_GROUP, entries[0])
        assert await functions.ack(admin, JOBS, ADAPTERS_GROUP, "a", entries[:1]) == [True]
        assert await functions.heartbeat(admin, JOBS, ADAPTERS_GROUP, "a", entries[1:]) == [True, True]
        assert await functions.release(admin, JOBS, ADAPTERS_GROUP, "a", 5, entries[1:2]) == [True]
        assert await functions.delivery_counts(admin, JOBS, ADAPTERS_GROUP, entries) == [0, 0, 1]
        assert await admin.xtrim(JOBS, minid=entries[1], approximate=False) == 1


async def test_what_fails_inside_the_settle_step_is_not_acked_and_its_repeat_harms_nobody(admin: Redis) -> None:
    first, second = await functions.dispatch(admin, JOBS, [ONE] * 2)
    await admin.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"})
    await admin.delete(jobs_dlq_stream(RAIL))
    await admin.set(jobs_dlq_stream(RAIL), "no stream")
    batch = [Completion(first, VERDICT), Completion(second, VERDICT, "dead")]
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await functions.settle(admin, RAIL, JOBS, "a", batch)
    assert await functions.delivery_counts(admin, JOBS, ADAPTERS_GROUP, [first, second]) == [1, 1]
    await admin.delete(jobs_dlq_stream(RAIL))
    assert [each.acked for each in await functions.settle(admin, RAIL, JOBS, "a", batch)] == [True, True]
    assert (await admin.xlen(RESULTS), await admin.xlen(jobs_dlq_stream(RAIL))) == (2, 1)
    assert await pending(admin) == []


@pytest.mark.parametrize("lost", ["functions", "group"])
async def test_a_verdict_waits_while_functions_or_the_group_are_missing_and_goes_out_once_they_are_back(
    admin: Redis, lost: str
) -> None:
    async with one_in_hand(admin, admin) as (consumer, publisher, seen):
        if lost == "functions":
            await admin.function_flush("SYNC")
        else:
            await admin.xgroup_destroy(JOBS, ADAPTERS_GROUP)
        await publisher.publish(Completion(seen[0].entry_id, VERDICT))
        await asyncio.sleep(0.3)
        assert consumer.held
        assert await admin.xlen(RESULTS) == 0
        await functions.load_functions(admin)
        await functions.ensure_groups(admin, RAIL)
        await until(lambda: not consumer.held)
        assert await admin.xlen(RESULTS) == 1


async def test_an_entry_that_a_new_group_delivers_again_is_not_handled_twice_at_once(admin: Redis) -> None:
    async with one_in_hand(admin, admin) as (consumer, publisher, seen):
        await admin.xgroup_destroy(JOBS, ADAPTERS_GROUP)
        await functions.ensure_groups(admin, RAIL)
        await until_async(lambda: pending(admin))
        await asyncio.sleep(0.2)
        assert len(seen) == 1
        await publisher.publish(Completion(seen[0].entry_id, VERDICT))
        await until(lambda: not consumer.held)
        assert await pending(admin) == []


async def test_an_answer_that_is_lost_publishes_the_verdict_twice_and_acks_once(admin: Redis, fresh_redis: str) -> None:
    async with cutting_proxy(fresh_redis) as proxy:
        client = connect_redis(proxy.url, "a")
        async with one_in_hand(admin, client) as (consumer, publisher, seen):
            proxy.cut_after = b"fleet_settle"
            await publisher.publish(Completion(seen[0].entry_id, VERDICT))
            await until(lambda: not consumer.held)
        await client.aclose()
        assert proxy.cuts == 1
    assert await admin.xlen(RESULTS) == 2
    assert await pending(admin) == []


class HangingWork:
    """A consumer whose work never ends; `undone` counts its claims of what it holds already."""

    def __init__(self, admin: Redis, name: str) -> None:
        self.seen: list[Delivery] = []
        self.undone = 0
        settings = ConsumerSettings(JOBS, ADAPTERS_GROUP, name, claim_idle_s=0.15, max_age_s=0.3, block_ms=50)
        self.consumer = StreamConsumer(admin, settings, self._handle)
        undo = self.consumer._undo_claim

        async def counted(entry_ids: Sequence[str]) -> None:
            await undo(entry_ids)
            self.undone += len(entry_ids)

        self.consumer._undo_claim = counted  # type: ignore[method-assign]

    async def _handle(self, batch: list[Delivery]) -> None:
        for each in batch:
            each.started = True
        self.seen.extend(batch)


async def test_work_that_hangs_is_never_handled_twice_at_once_and_is_left_to_another_consumer(admin: Redis) -> None:
    await functions.dispatch(admin, JOBS, [ONE])
    first, second = HangingWork(admin, "a"), HangingWork(admin, "b")
    first.consumer.start()
    await until(lambda: first.undone >= 3)
    assert len(first.seen) == 1, "it claims what it holds already again and again, and undoes that"
    first.consumer.pause()
    async with first.consumer._claiming:
        # A claim and its undoing are two commands: only between claims is the count what it should be.
        assert await pending(admin) == [("a", 1)], "no such claim counts"
    second.consumer.start()
    await until(lambda: len(second.seen) == 1)
    assert second.seen[0].deliveries == 2
    for each in (first, second):
        each.consumer.forget([first.seen[0].entry_id])
        await each.consumer.drain(0.1)


@asynccontextmanager
async def doomed_reader(url: str, idle_s: float) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that has read ten entries and hangs. It never outlives the test, or it would read the next test's."""
    command = [sys.executable, "-c", _READ_AND_HANG, url, JOBS, str(idle_s)]
    doomed = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert doomed.stdout is not None
        assert await asyncio.wait_for(doomed.stdout.readline(), PATIENCE_S) == b"10\n"
        yield doomed
    finally:
        if doomed.returncode is None:
            doomed.kill()
        await doomed.wait()


async def test_a_killed_consumers_entries_are_taken_over_exactly_once_on_their_second_delivery(
    admin: Redis, fresh_redis: str
) -> None:
    entries = await functions.dispatch(admin, JOBS, [ONE] * 10)
    idle_s = 3.0
    async with doomed_reader(fresh_redis, idle_s) as doomed:
        await until_beaten(admin)
        doomed.kill()
        assert await doomed.wait() == -signal.SIGKILL
    assert await pending(admin) == [("doomed", 1)] * 10, "what it was given is still its own"
    await age(admin, entries, idle_s)
    seen: list[Delivery] = []
    heirs = [reader(admin, seen, name, idle_s) for name in ("b", "c", "d")]
    before = await claims(admin)
    for heir in heirs:
        heir.start()
    await until(lambda: len(seen) >= 10)

    async def each_heir_has_claimed_again() -> bool:
        return await claims(admin) >= before + 2 * len(heirs)

    await until_async(each_heir_has_claimed_again)
    assert sorted(each.entry_id for each in seen) == sorted(entries)
    assert all(each.deliveries == 2 and each.must_run_alone for each in seen)
    for heir in heirs:
        await heir.drain(0.1)


async def test_reading_stops_where_there_is_no_room_and_nothing_is_lost(admin: Redis) -> None:
    seen: list[Delivery] = []
    consumer: StreamConsumer
    consumer = reader(admin, seen, capacity=lambda: 4 - len(consumer.held))
    entries = await functions.dispatch(admin, JOBS, [ONE] * 10)
    consumer.start()
    await until(lambda: len(seen) == 4)
    await asyncio.sleep(0.2)
    assert (len(seen), len(await pending(admin))) == (4, 4), "what there is no room for stays in the stream"
    while len(seen) < 10:
        before, held = len(seen), list(consumer.held)
        assert await functions.ack(admin, JOBS, ADAPTERS_GROUP, "a", held) == [True] * len(held)
        consumer.forget(held)
        await until(lambda before=before: len(seen) > before)  # type: ignore[misc]  # bound at once
        assert len(consumer.held) <= 4
    assert [each.entry_id for each in seen] == entries
    await consumer.drain(0.1)


async def test_a_paused_consumer_takes_nothing_keeps_what_it_has_and_goes_on_when_resumed(admin: Redis) -> None:
    seen: list[Delivery] = []
    consumer = reader(admin, seen, idle_s=0.3)
    [first] = await functions.dispatch(admin, JOBS, [ONE])
    consumer.start()
    await until(lambda: len(seen) == 1)
    consumer.pause()
    await asyncio.sleep(0.2)
    await functions.dispatch(admin, JOBS, [ONE])
    await admin.xgroup_createconsumer(JOBS, ADAPTERS_GROUP, "dead")
    for _ in range(3):
        await until_beaten(admin)
    assert [each.entry_id for each in seen] == [first]
    assert await pending(admin) == [("a", 1)], "its heartbeat goes on"
    consumer.resume()
    await until(lambda: len(seen) == 2)
    await consumer.drain(0.1)


async def test_an_entry_moves_to_the_tail_in_one_step_and_one_that_is_gone_is_none(admin: Redis) -> None:
    first, second = await functions.dispatch(admin, JOBS, [Envelope("1", "pay", "{}"), Envelope("2", "pay", "{}")])
    await admin.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"})
    moved = await asyncio.gather(*(functions.readd(admin, JOBS, ADAPTERS_GROUP, first) for _ in range(5)))
    assert len([each for each in moved if each is not None]) == 1
    left: Any = await admin.xrange(JOBS)
    assert [fields[b"id"] for _, fields in left] == [b"2", b"1"]
    assert left[0][0].decode() == second
    assert await pending(admin) == [("a", 1)]


async def test_a_consumer_is_dropped_only_when_idle_with_nothing_pending(admin: Redis) -> None:
    async def drop(name: str, idle_ms: int) -> bool:
        return await functions.drop_consumer(admin, JOBS, ADAPTERS_GROUP, name, idle_ms)

    [entry] = await functions.dispatch(admin, JOBS, [ONE])
    await admin.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"})
    await asyncio.sleep(0.01)
    assert not await drop("a", 1), "it would drop what is pending"
    await functions.ack(admin, JOBS, ADAPTERS_GROUP, "a", [entry])
    assert not await drop("a", 60_000), "it may come back"
    assert not await drop("nobody", 0)
    assert await drop("a", 1)
    assert await admin.xinfo_consumers(JOBS, ADAPTERS_GROUP) == []


async def test_a_drain_ends_in_time_although_the_server_is_away(fresh_redis: str, admin: Redis) -> None:
    async with cutting_proxy(fresh_redis) as proxy:
        client = connect_redis(proxy.url, "a")
        seen: list[Delivery] = []
        consumer = reader(client, seen)
        await functions.dispatch(admin, JOBS, [ONE])
        consumer.start()
        await until(lambda: len(seen) == 1)
        proxy.port = 1
        await client.connection_pool.disconnect(inuse_connections=True)
        with pytest.raises((RedisError, OSError)):
            await client.ping()
        async with asyncio.timeout(PATIENCE_S):
            await consumer.drain(0.2)
        await client.aclose()
    assert await pending(admin) == [("a", 1)]


async def test_a_wiped_server_gives_no_second_burst_of_a_providers_rate(admin: Redis) -> None:
    async def taken(leave: int = 0) -> int:
        return (await functions.take_tokens(admin, RAIL, per_s=0.001, burst=20, leave=leave, wanted=50))[0]

    assert await taken() == 0, "a bucket that is new is empty"
    await admin.hset(rate_bucket(RAIL), "at_ms", "0")  # nobody has called since 1970
    assert [await taken(leave=2), await taken(leave=2), await taken(), await taken()] == [18, 0, 2, 0]
    await admin.hset(rate_bucket(RAIL), "at_ms", "0")
    await admin.flushall()
    assert await taken() == 0, "what was there is gone, and nothing is in its place"
