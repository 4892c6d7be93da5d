"""Tenants take turns at the relay: whoever has ten thousand jobs waiting delays another's one by a bounded few."""

import asyncio
from uuid import UUID, uuid4

from core.bus.gate import GateBounds
from schemas.streams import ADAPTERS_GROUP
from tests.integration.bus.conftest import JOBS, RAIL, World

LARGE, SMALL, THIRD = uuid4(), uuid4(), uuid4()


async def place_of(world: World, job_id: UUID) -> int:
    return (await world.streamed()).index(str(job_id))


async def read(world: World, count: int) -> None:
    """Let an adapter get so many entries and finish them."""
    entries = (await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}, count=count))[0][1]
    await world.redis.xack(JOBS, ADAPTERS_GROUP, *(entry for entry, _ in entries))


async def test_one_job_of_a_tenant_passes_ten_thousand_of_another(world: World) -> None:
    await world.queue(10_000, LARGE)
    relay = world.relay(GateBounds(unread_high=200))
    assert await relay.relay_once() == 200
    assert await relay.relay_once() == 0, "what adapters have not got is bounded, however much there is"
    (late,) = await world.queue(1, SMALL)
    await read(world, 50)
    assert await relay.relay_once() == 50
    assert await place_of(world, late) in (200, 201)


async def test_jobs_of_many_tenants_are_taken_in_turn(world: World) -> None:
    whose: dict[UUID, UUID] = {}
    for tenant, count in ((LARGE, 30), (SMALL, 3), (THIRD, 1)):
        whose |= dict.fromkeys(await world.queue(count, tenant), tenant)
    assert await world.relay().relay_once() == 34
    turns = [whose[UUID(each)] for each in await world.streamed()]
    assert [set(turns[:3]), set(turns[3:5]), set(turns[5:7]), set(turns[7:])] == [
        {LARGE, SMALL, THIRD}, {LARGE, SMALL}, {LARGE, SMALL}, {LARGE},
    ]  # fmt: skip


async def test_a_second_relay_takes_what_the_first_has_not_locked(world: World) -> None:
    jobs = {*await world.queue(12, LARGE), *await world.queue(2, SMALL)}
    async with world.store.take_due(RAIL, JOBS, 7) as first, world.store.take_due(RAIL, JOBS, 7) as second:
        taken = [{row.job_id for row in batch.rows} for batch in (first, second)]
    assert [len(each) for each in taken] == [7, 7]
    assert taken[0] | taken[1] == jobs


async def test_relays_that_race_dispatch_each_job_once(world: World) -> None:
    jobs = [*await world.queue(300, LARGE), *await world.queue(10, SMALL)]
    relays = [world.relay(), world.relay(), world.relay()]
    while sum(await asyncio.gather(*(relay.relay_once() for relay in relays))):
        pass
    assert sorted(await world.streamed()) == sorted(map(str, jobs))
