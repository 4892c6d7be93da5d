"""The server's functions over whole batches: few commands for many entries, and none for what another consumer owns."""

from typing import Any

import pytest
from redis.asyncio import Redis

from schemas.envelope import decode_envelope
from schemas.streams import ADAPTERS_GROUP, results_stream
from tests.integration.wire.test_stream_consumer import JOBS, ONE, RAIL, admin
from tests.support.servers import BOTH_FAMILIES
from wire import functions

__all__ = ["admin"]

pytestmark = BOTH_FAMILIES


async def delivered(admin: Redis, ours: int) -> tuple[list[str], str]:
    """Return entries that consumer `a` owns, and one in their midst that `b` owns."""
    await functions.dispatch(admin, JOBS, [ONE] * (ours + 1))
    read: list[str] = []
    for name, count in (("a", ours // 2), ("b", 1), ("a", ours)):
        answer: Any = await admin.xreadgroup(ADAPTERS_GROUP, name, {JOBS: ">"}, count=count)
        read += [entry.decode() for entry, _ in answer[0][1]]
    theirs = read.pop(ours // 2)
    await admin.config_resetstat()
    return read, theirs


async def calls(admin: Redis, command: str) -> int:
    told = (await admin.info("commandstats")).get(f"cmdstat_{command}")
    return int(told["calls"]) if told else 0


async def owners(admin: Redis) -> dict[str, int]:
    pending: Any = await admin.xpending_range(JOBS, ADAPTERS_GROUP, "-", "+", 5_000)
    return {each["consumer"].decode(): each["times_delivered"] for each in pending}


async def test_a_batch_is_acknowledged_by_one_command_but_for_what_another_owns(admin: Redis) -> None:
    ours, theirs = await delivered(admin, 900)
    answers = await functions.ack(admin, JOBS, ADAPTERS_GROUP, "a", [*ours[:450], theirs, *ours[450:], ours[0]])
    assert answers == [True] * 450 + [False] + [True] * 450 + [False]
    assert await owners(admin) == {"b": 1}
    assert await calls(admin, "xack") == 1


async def test_a_batch_is_kept_alive_by_one_command_that_counts_no_delivery(admin: Redis) -> None:
    ours, theirs = await delivered(admin, 900)
    assert await functions.heartbeat(admin, JOBS, ADAPTERS_GROUP, "a", [*ours, theirs]) == [True] * 900 + [False]
    assert await owners(admin) == {"a": 1, "b": 1}
    assert await calls(admin, "xclaim") == 1


async def test_more_entries_than_a_command_takes_are_acknowledged_and_kept_alive_all_the_same(admin: Redis) -> None:
    ours, _ = await delivered(admin, 2_500)
    assert all(await functions.heartbeat(admin, JOBS, ADAPTERS_GROUP, "a", ours))
    assert all(await functions.ack(admin, JOBS, ADAPTERS_GROUP, "a", ours))
    assert (await calls(admin, "xclaim"), await calls(admin, "xack")) == (3, 3)
    assert await owners(admin) == {"b": 1}


async def test_a_batch_is_settled_by_one_acknowledgement_and_what_was_lost_is_only_published(admin: Redis) -> None:
    ours, theirs = await delivered(admin, 400)
    completions = [functions.Completion(entry, ONE) for entry in [*ours, theirs, ours[0]]]
    settled = await functions.settle(admin, RAIL, JOBS, "a", completions)
    assert [each.acked for each in settled] == [True] * 400 + [False, False]
    assert await admin.xlen(results_stream(RAIL)) == len({each.published_id for each in settled}) == 402
    assert await owners(admin) == {"b": 1}
    assert await calls(admin, "xack") == 1


async def test_nothing_is_published_while_the_group_is_missing(admin: Redis) -> None:
    ours, _ = await delivered(admin, 2)
    await admin.xgroup_destroy(JOBS, ADAPTERS_GROUP)
    with pytest.raises(functions.GroupMissingError):
        await functions.settle(admin, RAIL, JOBS, "a", [functions.Completion(entry, ONE) for entry in ours])
    assert await admin.xlen(results_stream(RAIL)) == 0


async def test_an_entry_has_a_fifth_field_only_where_it_has_a_trace(admin: Redis) -> None:
    traced = ONE._replace(traceparent="00-1-2-01")
    await functions.dispatch(admin, JOBS, [ONE, traced])
    entries: Any = await admin.xrange(JOBS)
    (_, plain), (_, full) = entries
    assert b"traceparent" not in plain
    assert [decode_envelope(plain), decode_envelope(full)] == [ONE, traced]
