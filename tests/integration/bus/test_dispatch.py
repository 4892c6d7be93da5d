"""The relay, the healer, the sweeper and the janitor on real servers."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID

import pytest

from core.bus.gate import BacklogGate, GateBounds
from core.bus.healer import heal_rail
from core.bus.janitor import trim_stream
from core.bus.relay import StreamRelay
from core.domain.context import Context
from core.store.on_call.figures import read_figures
from core.store.settling import rails
from core.store.settling.jobs import lock_jobs, requeue_jobs
from schemas.operations import OperationType
from schemas.streams import ADAPTERS_GROUP, CORE_GROUP, results_stream
from tests.integration.bus.conftest import JOBS, RAIL, World
from tests.support.lock_waits import somebody_waits
from tests.support.servers import BOTH_FAMILIES
from tests.support.waiting import PATIENCE_S
from wire.client import connect_redis

pytestmark = BOTH_FAMILIES


async def test_due_jobs_are_dispatched_once_and_marked(world: World) -> None:
    ids = await world.queue(5)
    assert await world.relay().relay_once() == 5
    assert await world.relay().relay_once() == 0
    assert sorted(await world.streamed()) == sorted(map(str, ids))
    assert set((await world.states()).values()) == {"QUEUED"}


async def test_the_relay_puts_jobs_out_whether_nobody_reads_them_or_a_reader_hangs_with_them(world: World) -> None:
    """The first promise of the streams: dispatch waits for no adapter, up to the bound of its backlog."""
    await world.queue(300)
    async with asyncio.timeout(PATIENCE_S):
        assert await _relay_all(world) == 300
    assert not await world.redis.xinfo_consumers(JOBS, ADAPTERS_GROUP), "nobody has ever read this stream"
    # Now one takes some, and is never heard of again.
    await world.redis.xreadgroup(ADAPTERS_GROUP, "hangs", {JOBS: ">"}, count=100)
    await world.queue(300)
    async with asyncio.timeout(PATIENCE_S):
        assert await _relay_all(world) == 300
    [group] = await world.redis.xinfo_groups(JOBS)
    assert (int(group["pending"]), int(group["lag"])) == (100, 500)


async def _relay_all(world: World) -> int:
    done, relay = 0, world.relay()
    while moved := await relay.relay_once():
        done += moved
    return done


async def test_a_full_stream_closes_the_gate_until_the_backlog_is_below_low_water(world: World) -> None:
    await world.queue(10)
    relay = world.relay(GateBounds(high=4, low=2))
    assert await relay.relay_once() == 4
    assert await relay.relay_once() == 0
    entries = await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}, count=3)
    taken = [entry for entry, _ in entries[0][1]]
    await world.redis.xack(JOBS, ADAPTERS_GROUP, *taken[:2])
    assert await relay.relay_once() == 0
    await world.redis.xack(JOBS, ADAPTERS_GROUP, taken[2])
    assert await relay.relay_once() == 3


async def test_what_is_paused_leaves_its_room_in_the_stream_to_the_rails_other_operations(world: World) -> None:
    bounds = GateBounds(high=40, low=30)
    relay = world.relay(bounds)
    paused, [sent] = await world.queue(200), await world.queue(1)
    async with world.database.unit_of_work(Context(None, "test")) as uow:
        await rails.pause_rail(uow, RAIL, "PAYOUT", "test", "maintenance")
        await uow.connection.execute("UPDATE fleet.jobs SET fence = 1 WHERE id = $1", sent)
    others = await world.queue(5, operation=OperationType.BILL_PAYMENT)
    while await relay.relay_once():
        pass
    assert sorted(await world.streamed()) == sorted(map(str, [sent, *others])), "what was ever sent goes on"
    figures = {(name, label): value for name, label, _, value in await read_figures(world.database)}
    assert figures["outbox_depth", JOBS] == len(paused)
    assert figures["outbox_age", JOBS] == 0, "what a pause holds is not stuck"
    async with world.database.unit_of_work(Context(None, "test")) as uow:
        await rails.resume_rail(uow, RAIL, "PAYOUT")
    assert await relay.relay_once() == bounds.high - 6


async def outbox_times(world: World) -> dict[UUID, datetime]:
    async with world.database.acquire() as connection:
        return {row["job_id"]: row["not_before"] for row in await connection.fetch("SELECT * FROM fleet.outbox")}


async def test_who_meets_what_is_paused_puts_it_off_and_a_resume_puts_it_back_where_it_was(world: World) -> None:
    relay, other = world.relay(), OperationType.BILL_PAYMENT
    paused = [*await world.queue(40), *await world.queue(3, operation=other, rail="otherrail")]
    for operation, rail in [("PAYOUT", RAIL), ("*", "otherrail")]:
        async with world.database.unit_of_work(Context(None, "test")) as uow:
            await rails.pause_rail(uow, rail, operation, "test", "maintenance")
    before = await outbox_times(world)
    started = datetime.now(UTC)
    assert await relay.relay_once() == 0
    after = await outbox_times(world)
    away = [(after[job] - started).total_seconds() for job in paused[:40]]
    assert 299 < min(away) < max(away) < 700, "not looked at by every relay at every turn"
    assert max(away) - min(away) > 60, "and not all at one moment again"
    assert [after[job] for job in paused[40:]] == [before[job] for job in paused[40:]], "each relay its own rail's"
    async with world.store.take_due(RAIL, JOBS, 100, paused=True) as batch:
        assert {row.job_id for row in batch.rows} == set(paused[:40]), "who asks for what is paused gets it"
    late = await world.queue(1, operation=other)
    assert await relay.relay_once() == len(late)
    async with world.database.unit_of_work(Context(None, "test")) as uow:
        await rails.resume_rail(uow, RAIL, "PAYOUT")
    assert await outbox_times(world) == before
    assert await relay.relay_once() == 40


async def test_a_pause_that_ends_at_this_moment_puts_nothing_off(world: World) -> None:
    jobs = await world.queue(5)
    async with world.database.unit_of_work(Context(None, "test")) as uow:
        await rails.pause_rail(uow, RAIL, "PAYOUT", "test", "maintenance")
    async with world.database.unit_of_work(Context(None, "test")) as uow:
        await rails.resume_rail(uow, RAIL, "PAYOUT")
        relaying = asyncio.create_task(world.relay().relay_once())
        await somebody_waits(world.database)
    assert await relaying == len(jobs)


async def test_a_resume_waits_for_a_relay_that_puts_off_and_puts_back_what_it_did(world: World) -> None:
    jobs = await world.queue(5)
    async with world.database.unit_of_work(Context(None, "test")) as uow:
        await rails.pause_rail(uow, RAIL, "PAYOUT", "test", "maintenance")

    async def resume() -> None:
        async with world.database.unit_of_work(Context(None, "test")) as uow:
            await rails.resume_rail(uow, RAIL, "PAYOUT")

    async with world.store.take_due(RAIL, JOBS, 10) as batch:
        assert batch.rows == []
        resuming = asyncio.create_task(resume())
        await somebody_waits(world.database)
    await resuming
    assert await world.relay().relay_once() == len(jobs)


async def test_near_the_high_water_the_relay_waits_for_room_that_is_worth_a_transaction(world: World) -> None:
    await world.queue(30)
    relay = world.relay(GateBounds(high=16, low=8))
    assert await relay.relay_once() == 16
    taken = (await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}, count=11))[0][1]
    entries = [entry for entry, _ in taken]
    await world.redis.xack(JOBS, ADAPTERS_GROUP, *entries[:9])
    assert await relay.relay_once() == 9, "below low-water it opens again"
    await world.redis.xack(JOBS, ADAPTERS_GROUP, entries[9])
    assert await relay.relay_once() == 0, "room for one of sixteen"
    await world.redis.xack(JOBS, ADAPTERS_GROUP, entries[10])
    assert await relay.relay_once() == 2


async def test_jobs_in_a_wiped_server_are_dispatched_again_under_the_same_ids(world: World) -> None:
    ids = await world.queue(3)
    await world.relay().relay_once()
    await world.redis.flushall()
    assert await world.relay().relay_once() == 0
    assert await heal_rail(world.redis, world.store, RAIL)
    assert await world.sweeper(3600).sweep_once() == 3
    await world.relay().relay_once()
    assert sorted(await world.streamed()) == sorted(map(str, ids))
    assert await world.sweeper(3600).sweep_once() == 0


async def test_the_sweeper_finds_a_deleted_entry_and_leaves_the_others(world: World) -> None:
    await world.queue(3)
    await world.relay().relay_once()
    gone, fields = (await world.redis.xrange(JOBS))[1]
    await world.redis.xdel(JOBS, gone)
    assert await world.sweeper(0).sweep_once() == 1
    assert (await world.states())[UUID(fields[b"id"].decode())] == "READY"


async def test_the_janitor_trims_only_what_is_finished(world: World) -> None:
    await world.queue(6)
    await world.relay().relay_once()
    entries = await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}, count=4)
    taken = [entry for entry, _ in entries[0][1]]
    await world.redis.xack(JOBS, ADAPTERS_GROUP, taken[0], taken[1], taken[3])
    assert await trim_stream(world.redis, JOBS, ADAPTERS_GROUP, 600_000) == 2
    assert (await world.redis.xrange(JOBS, count=1))[0][0] == taken[2]
    assert await world.redis.xlen(JOBS) == 4


@pytest.mark.parametrize("trimmed", [False, True])
async def test_an_acked_entry_without_a_verdict_is_lost_only_once_all_verdicts_since_are_committed(
    world: World,
    trimmed: bool,
) -> None:
    await world.queue(2)
    await world.relay().relay_once()
    sweeper, results = world.sweeper(0), results_stream(RAIL)
    entries = (await world.redis.xreadgroup(ADAPTERS_GROUP, "a", {JOBS: ">"}))[0][1]
    assert await sweeper.sweep_once() == 0
    await world.redis.xack(JOBS, ADAPTERS_GROUP, entries[0][0])
    await world.redis.xadd(results, {"v": "1"})
    if trimmed:
        assert await trim_stream(world.redis, JOBS, ADAPTERS_GROUP, 600_000) == 1
    for _ in range(2):
        assert await sweeper.sweep_once() == 0, "the verdict that waits may be its own"
    ((verdict, _),) = (await world.redis.xreadgroup(CORE_GROUP, "core", {results: ">"}))[0][1]
    assert await sweeper.sweep_once() == 0
    await world.redis.xack(results, CORE_GROUP, verdict)
    assert await sweeper.sweep_once() == 1
    assert (await world.states())[UUID(entries[0][1][b"id"].decode())] == "READY"
    assert await world.relay().relay_once() == 1
    assert await world.relay().relay_once() == 0


async def test_a_retry_that_is_settled_before_the_relay_commits_is_dispatched_again_without_a_wait(
    world: World,
) -> None:
    (job_id,) = await world.queue(1)
    async with AsyncExitStack() as relaying:
        batch = await relaying.enter_async_context(world.store.take_due(RAIL, JOBS, 10))
        async with asyncio.timeout(PATIENCE_S), world.database.unit_of_work(Context(None, "settle")) as uow:
            found = await lock_jobs(uow, [job_id])
            await requeue_jobs(uow, [(found[job_id], 0.0)])
            await batch.mark(["1-1"])
            # The relay's note now waits for this transaction, and this one for nobody.
            committing = asyncio.create_task(relaying.aclose())
            await asyncio.sleep(0.1)
            assert not committing.done()
        await committing
    assert (await world.states())[job_id] == "READY"
    assert await world.relay().relay_once() == 1
    assert (await world.states())[job_id] == "QUEUED"
    assert await world.relay().relay_once() == 0


async def test_while_a_relays_note_waits_for_its_process_nobody_finds_the_job_locked(world: World) -> None:
    (job_id,) = await world.queue(1)
    async with world.store.take_due(RAIL, JOBS, 10) as batch:
        await batch.mark(["1-1"])
        async with asyncio.timeout(PATIENCE_S), world.database.unit_of_work(Context(None, "settle")) as uow:
            assert list(await lock_jobs(uow, [job_id])) == [job_id]
    assert (await world.states())[job_id] == "QUEUED"


async def test_streams_that_cannot_be_reached_are_noted_so_that_nothing_expires_over_them(world: World) -> None:
    away = connect_redis("redis://127.0.0.1:1", "away")
    gate = BacklogGate(away, JOBS, ADAPTERS_GROUP, GateBounds())
    relay = StreamRelay(world.store, away, gate, RAIL, JOBS)
    await world.queue(1)
    for _ in range(3):
        assert await relay.relay_once() == 0
    await away.aclose()
    async with world.database.acquire() as connection:
        noted = await connection.fetch(
            "SELECT rail, operation, cause, holds_until > now() AS holds FROM fleet.rail_waits"
        )
    assert [tuple(row) for row in noted] == [(RAIL, "*", "dispatch", True)]
