"""The consumer and the publisher against a real server that is killed, wiped and shared."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from faststream.specification import AsyncAPI
from prometheus_client import REGISTRY
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from schemas.envelope import Envelope
from schemas.streams import ADAPTERS_GROUP, jobs_dlq_stream, jobs_stream, results_stream
from tests.support.servers import BOTH_FAMILIES
from tests.support.waiting import unless_stalled, until
from wire import functions
from wire.acl import apply_acl
from wire.client import connect_redis
from wire.consumer import ConsumerSettings, Delivery, StreamConsumer
from wire.publisher import Publisher

pytestmark = BOTH_FAMILIES

RAIL = "testrail"
JOBS = jobs_stream(RAIL)
ONE = Envelope("j1", "pay", "{}")


@pytest.fixture
async def admin(fresh_redis: str) -> AsyncIterator[Redis]:
    client = connect_redis(fresh_redis, "admin")
    await functions.load_functions(client)
    await functions.ensure_groups(client, RAIL)
    yield client
    await client.aclose()


def reader(admin: Redis, seen: list[Delivery], name: str = "a", idle_s: float = 60.0, **more: Any) -> StreamConsumer:
    async def handle(batch: list[Delivery]) -> None:
        seen.extend(batch)

    settings = ConsumerSettings(JOBS, ADAPTERS_GROUP, name, claim_idle_s=idle_s, block_ms=100)
    return StreamConsumer(admin, settings, handle, **more)


async def test_a_completion_is_published_and_acked_in_one_step(admin: Redis) -> None:
    seen: list[Delivery] = []
    consumer = reader(admin, seen)
    publisher = Publisher(admin, RAIL, JOBS, "a", consumer)
    await functions.dispatch(admin, JOBS, [ONE] * 3)
    consumer.start()
    publisher.start()
    await until(lambda: len(seen) == 3)
    for each in seen:
        each.started = True
        await publisher.publish(functions.Completion(each.entry_id, Envelope("r", "result", "{}")))
    await until(lambda: not consumer.held)
    await publisher.stop(1)
    await consumer.drain(1)
    assert await admin.xlen(results_stream(RAIL)) == 3
    assert (await admin.xpending(JOBS, ADAPTERS_GROUP))["pending"] == 0


async def test_a_lost_entry_is_published_but_not_acked(admin: Redis) -> None:
    [entry] = await functions.dispatch(admin, JOBS, [ONE])
    await admin.xreadgroup(ADAPTERS_GROUP, "other", {JOBS: ">"})
    [settled] = await functions.settle(admin, RAIL, JOBS, "a", [functions.Completion(entry, ONE)])
    assert not settled.acked
    assert await admin.xlen(results_stream(RAIL)) == 1
    assert (await admin.xpending(JOBS, ADAPTERS_GROUP))["pending"] == 1


async def test_an_entry_of_a_dead_consumer_is_claimed_on_its_second_delivery(admin: Redis) -> None:
    await functions.dispatch(admin, JOBS, [ONE])
    await admin.xreadgroup(ADAPTERS_GROUP, "dead", {JOBS: ">"})
    seen: list[Delivery] = []
    consumer = reader(admin, seen, idle_s=0.3)
    consumer.start()
    await until(lambda: len(seen) == 1)
    assert seen[0].must_run_alone
    await consumer.drain(0.1)


async def test_what_was_given_back_comes_again_in_one_walk_before_anything_new(admin: Redis) -> None:
    seen: list[Delivery] = []
    settings = ConsumerSettings(JOBS, ADAPTERS_GROUP, "a", claim_idle_s=1.5, block_ms=100)

    async def handle(batch: list[Delivery]) -> None:
        seen.extend(batch)
        entries = [each.entry_id for each in batch]
        await functions.ack(admin, JOBS, ADAPTERS_GROUP, "a", entries)
        asyncio.get_running_loop().call_soon(consumer.forget, entries)

    consumer = StreamConsumer(admin, settings, handle, lambda: 1 - len(consumer.held))
    given_back = await functions.dispatch(admin, JOBS, [ONE] * 5)
    await admin.xreadgroup(ADAPTERS_GROUP, "other", {JOBS: ">"})
    await functions.release(admin, JOBS, ADAPTERS_GROUP, "other", 60_000, given_back)
    await functions.dispatch(admin, JOBS, [ONE] * 5_000)
    consumer.start()
    await until(lambda: {each.entry_id for each in seen} >= set(given_back))
    await consumer.drain(1)
    places = [place for place, each in enumerate(seen) if each.entry_id in given_back]
    assert len(seen) < 5_005  # some of the new ones wait still, or the order would show nothing
    # One new entry may have been under way when the walk began.
    assert places[-1] - places[0] <= 5


async def test_what_was_set_aside_is_not_taken_back_from_who_claimed_it_meanwhile(admin: Redis) -> None:
    seen: list[Delivery] = []
    consumer = reader(admin, seen)
    await functions.dispatch(admin, JOBS, [ONE])
    consumer.start()
    await until(lambda: len(seen) == 1)
    await consumer.set_aside(seen)
    await consumer.count_again(seen)
    ((_, owner, _, count),) = [
        tuple(each.values()) for each in await admin.xpending_range(JOBS, ADAPTERS_GROUP, "-", "+", 9)
    ]
    assert (owner, count) == (b"a", 1)
    await consumer.set_aside(seen)
    await admin.xclaim(JOBS, ADAPTERS_GROUP, "b", 0, [seen[0].entry_id], retrycount=3)
    await consumer.count_again(seen)
    ((_, owner, _, count),) = [
        tuple(each.values()) for each in await admin.xpending_range(JOBS, ADAPTERS_GROUP, "-", "+", 9)
    ]
    assert (owner, count) == (b"b", 3)
    await consumer.drain(0.1)


async def test_a_heartbeat_keeps_an_entry_from_being_claimed(admin: Redis) -> None:
    async def trial() -> None:
        mine: list[Delivery] = []
        theirs: list[Delivery] = []
        await functions.dispatch(admin, JOBS, [ONE])
        first, second = reader(admin, mine, "a", 0.6), reader(admin, theirs, "b", 0.6)
        first.start()
        await until(lambda: len(mine) == 1)
        second.start()
        await asyncio.sleep(1.8)
        await second.drain(0.1)
        await first.drain(0.1)
        await admin.xtrim(JOBS, maxlen=0, approximate=False)
        assert (len(mine), theirs) == (1, [])

    # The beat comes every 0.2 s, so whoever stands still for 0.4 s loses the claim, and should.
    await unless_stalled(trial, admin.ping, most_s=0.3)


async def test_a_drain_releases_the_unstarted_without_counting_the_delivery(admin: Redis) -> None:
    seen: list[Delivery] = []
    consumer = reader(admin, seen)
    await functions.dispatch(admin, JOBS, [ONE])
    consumer.start()
    await until(lambda: len(seen) == 1)
    await consumer.drain(0.1)
    [pending] = await admin.xpending_range(JOBS, ADAPTERS_GROUP, "-", "+", 10)
    assert pending["times_delivered"] == 0
    assert int(pending["time_since_delivered"]) >= 60_000


async def test_a_wiped_server_is_read_again_once_the_core_has_healed_it(admin: Redis) -> None:
    seen: list[Delivery] = []
    consumer = reader(admin, seen)
    consumer.start()
    await admin.flushall()
    await admin.function_flush("SYNC")
    await asyncio.sleep(0.3)
    await admin.xadd(JOBS, dict[Any, Any](ONE.to_fields()))
    await functions.ensure_groups(admin, RAIL)
    await functions.load_functions(admin)
    await until(lambda: len(seen) == 1)
    await consumer.drain(0.1)


async def test_an_unreadable_entry_is_delivered_with_its_error(admin: Redis) -> None:
    seen: list[Delivery] = []
    consumer = reader(admin, seen)
    await admin.xadd(JOBS, {"nonsense": "1"})
    consumer.start()
    await until(lambda: len(seen) == 1)
    assert seen[0].error is not None
    await consumer.drain(0.1)


async def test_ids_deleted_while_pending_are_reported(admin: Redis) -> None:
    [entry] = await functions.dispatch(admin, JOBS, [ONE])
    await admin.xreadgroup(ADAPTERS_GROUP, "dead", {JOBS: ">"})
    await admin.xdel(JOBS, entry)
    deleted: list[str] = []
    consumer = reader(admin, [], idle_s=0.2, on_deleted=deleted.extend)
    consumer.start()
    await until(lambda: deleted == [entry])
    await consumer.drain(0.1)


async def test_an_adapter_cannot_forge_jobs_or_touch_another_rail(admin: Redis, fresh_redis: str) -> None:
    await apply_acl(admin, "adapter", "pw", RAIL)
    options = admin.connection_pool.connection_kwargs
    where = {k: options[k] for k in ("host", "port", "path") if options.get(k)}
    unix = "path" in where
    async with Redis(
        **({"unix_socket_path": where["path"]} if unix else where), username="adapter", password="pw"
    ) as user:
        [entry] = await functions.dispatch(admin, JOBS, [ONE])
        await user.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"})
        [settled] = await functions.settle(user, RAIL, JOBS, "a", [functions.Completion(entry, ONE)])
        assert settled.acked
        await user.xadd(jobs_dlq_stream(RAIL), dict[Any, Any](ONE.to_fields()))
        for forbidden in (
            ("XADD", JOBS, "*", "a", "1"),
            ("FCALL", "fleet_dispatch", 1, JOBS, "1", "j", "pay", "{}", ""),
            ("XREADGROUP", "GROUP", "core", "x", "STREAMS", results_stream(RAIL), ">"),
            ("XADD", results_stream("other"), "*", "a", "1"),
            ("XACK", jobs_stream("other"), "g", "1-1"),
            ("EVAL", "return 1", 0),
            ("MULTI",),
            ("DEL", JOBS),
            ("XTRIM", JOBS, "MAXLEN", 0),
            ("XGROUP", "DESTROY", JOBS, ADAPTERS_GROUP),
            ("FUNCTION", "FLUSH"),
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
            ("ACL", "LIST"),
            ("KEYS", "*"),
        ):
            with pytest.raises((NoPermissionError, ResponseError), match=r"(?i)permission|ACL|can't access"):
                await user.execute_command(*forbidden)  # type: ignore[no-untyped-call]  # untyped upstream


async def test_batches_pass_through_the_broker_and_its_metrics_and_are_described(admin: Redis) -> None:
    def received() -> float:
        labels = {"app_name": "faststream", "broker": "redis", "handler": JOBS}
        return REGISTRY.get_sample_value("faststream_received_messages_total", labels) or 0.0

    seen: list[Delivery] = []
    consumer = reader(admin, seen)
    before = received()
    await functions.dispatch(admin, JOBS, [ONE] * 3)
    consumer.start()
    await until(lambda: len(seen) == 3)
    await consumer.drain(0.1)
    assert received() == before + 3
    assert JOBS in AsyncAPI(consumer.broker).to_specification().to_json()


async def test_more_of_our_own_pending_than_a_page_is_taken_back_once_each(admin: Redis) -> None:
    entries = await functions.dispatch(admin, JOBS, [ONE] * 250)
    await admin.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"})
    seen: list[Delivery] = []
    consumer = reader(admin, seen)
    consumer.start()
    await until(lambda: len(seen) >= 250)
    await consumer.drain(0.1)
    assert [each.entry_id for each in seen] == entries


async def test_a_publisher_that_may_not_publish_lets_go_and_stops_in_time(
    admin: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> list[functions.Settled]:
        raise NoPermissionError("NOPERM")

    monkeypatch.setattr("wire.publisher.settle", refused)
    seen: list[Delivery] = []
    consumer = reader(admin, seen)
    publisher = Publisher(admin, RAIL, JOBS, "a", consumer)
    await functions.dispatch(admin, JOBS, [ONE])
    consumer.start()
    publisher.start()
    await until(lambda: len(seen) == 1)
    seen[0].started = True
    await publisher.publish(functions.Completion(seen[0].entry_id, ONE))
    await until(lambda: not consumer.held)
    await publisher.stop(1)
    await consumer.drain(0.1)
    assert (await admin.xpending(JOBS, ADAPTERS_GROUP))["pending"] == 1
