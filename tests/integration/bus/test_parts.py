"""A rail over several streams: each has a relay, a sweeper and an epoch of its own, and they share one outbox."""

from uuid import UUID

import pytest

from core.bus.gate import BacklogGate, GateBounds
from core.bus.healer import epoch_key, heal_rail
from core.bus.relay import StreamRelay
from core.bus.stream_diff import compare_streams
from core.bus.sweeper import Sweeper
from core.bus.throttle import ResultsThrottle
from schemas.streams import ADAPTERS_GROUP, jobs_stream, parts_of, results_stream
from tests.integration.bus.conftest import RAIL, World

PARTS = parts_of(3)


@pytest.fixture
async def spread(world: World) -> World:
    """A world whose rail has three parts."""
    for part in PARTS[1:]:
        await heal_rail(world.redis, world.store, part.shard(RAIL))
    return world


async def relay_all(world: World) -> list[int]:
    """Relay each part's share once; how many jobs each had."""
    done = []
    for part in PARTS:
        stream = jobs_stream(part.shard(RAIL))
        gate = BacklogGate(world.redis, stream, ADAPTERS_GROUP, GateBounds())
        relay = StreamRelay(world.store, world.redis, gate, RAIL, stream, part=part)
        done.append(await relay.relay_once())
    return done


async def ids_in(world: World, shard: str) -> set[UUID]:
    return {UUID(fields[b"id"].decode()) for _, fields in await world.redis.xrange(jobs_stream(shard))}


def sweepers(world: World, age_s: float) -> list[Sweeper]:
    return [Sweeper(world.redis, world.store, RAIL, age_s, part=part) for part in PARTS]


async def test_every_job_goes_into_the_stream_of_its_part_once(spread: World) -> None:
    ids = await spread.queue(60)
    assert sum(await relay_all(spread)) == 60
    for part in PARTS:
        assert await ids_in(spread, part.shard(RAIL)) == {each for each in ids if part.has(each)} != set()
    assert await relay_all(spread) == [0, 0, 0]
    assert set((await spread.states()).values()) == {"QUEUED"}


async def test_sweepers_look_into_their_own_stream_and_take_nothing_of_another_for_lost(spread: World) -> None:
    await spread.queue(30)
    await relay_all(spread)
    assert [await each.sweep_once() for each in sweepers(spread, 0)] == [0, 0, 0]
    gone, fields = (await spread.redis.xrange(jobs_stream(PARTS[1].shard(RAIL))))[0]
    await spread.redis.xdel(jobs_stream(PARTS[1].shard(RAIL)), gone)
    assert [await each.sweep_once() for each in sweepers(spread, 0)] == [0, 1, 0]
    assert (await spread.states())[UUID(fields[b"id"].decode())] == "READY"
    assert await relay_all(spread) == [0, 1, 0]


async def test_the_loss_of_one_parts_server_brings_back_that_part_alone(spread: World) -> None:
    ids = await spread.queue(30)
    await relay_all(spread)
    lost = PARTS[2].shard(RAIL)
    await spread.redis.delete(jobs_stream(lost), epoch_key(lost))
    assert [await heal_rail(spread.redis, spread.store, part.shard(RAIL)) for part in PARTS] == [False, False, True]
    assert [await heal_rail(spread.redis, spread.store, part.shard(RAIL)) for part in PARTS] == [False, False, False]
    mine = {each for each in ids if PARTS[2].has(each)}
    assert [await each.sweep_once() for each in sweepers(spread, 3600)] == [0, 0, len(mine)]
    await relay_all(spread)
    assert await ids_in(spread, lost) == mine


async def test_more_parts_than_before_leave_nothing_behind(world: World) -> None:
    """What waits is spread anew; what was sent stays where it is read, and a second entry of it is harmless."""
    await world.queue(10)
    await world.relay().relay_once()
    later = await world.queue(20)
    for part in PARTS[1:]:
        await heal_rail(world.redis, world.store, part.shard(RAIL))
    assert sum(await relay_all(world)) == 20
    streamed = [await ids_in(world, part.shard(RAIL)) for part in PARTS]
    assert set().union(*streamed) >= set(later)
    assert len(streamed[0]) >= 10


async def test_what_differs_is_listed_part_by_part(spread: World) -> None:
    await spread.queue(30)
    await relay_all(spread)
    await spread.redis.delete(jobs_stream(PARTS[1].shard(RAIL)))
    await heal_rail(spread.redis, spread.store, PARTS[1].shard(RAIL))

    diffs = [await compare_streams(spread.redis, spread.store, RAIL, 0, part) for part in PARTS]
    assert [len(diff.lost) > 0 for diff in diffs] == [False, True, False]
    assert sum(diff.queued for diff in diffs) == 30


async def test_one_parts_full_results_hold_back_the_rails_permits(spread: World) -> None:
    throttle = ResultsThrottle(spread.servers, [(RAIL, part) for part in PARTS], GateBounds(high=2, low=1))
    await throttle.look()
    assert not throttle.throttled(RAIL)
    for _ in range(2):
        await spread.redis.xadd(results_stream(PARTS[1].shard(RAIL)), {"v": "1"})
    await throttle.look()
    assert throttle.throttled(RAIL)
