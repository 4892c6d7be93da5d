"""Results and dead letters: acked after the commit alone, kept while the database is away, parked when unreadable."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from core.bus.inbox import Inbox
from core.bus.receivers import DeadLettersReceiver
from core.domain.context import Context
from core.store.on_call.dead_letters import DeadLetterStore
from core.store.settling.parking import PostgresParking
from core.store.vault import PostgresVault
from schemas.dead_letters import DEAD_LETTER_TYPE, DeadLetter
from schemas.envelope import Envelope
from schemas.streams import CORE_GROUP, jobs_dlq_stream, jobs_stream
from tests.integration.bus.conftest import JOBS, RAIL, World
from tests.support.waiting import PATIENCE_S, until, until_async
from wire.consumer import Delivery

DLQ = jobs_dlq_stream(RAIL)
GARBAGE = {"v": "1", "id": "x", "type": "no-letter", "body": "the raw text"}


@asynccontextmanager
async def running(inbox: Inbox) -> AsyncIterator[None]:
    inbox.start()
    try:
        yield
    finally:
        await inbox.stop(2)


def receiver(world: World) -> DeadLettersReceiver:
    letters = DeadLetterStore(PostgresVault(b"k" * 32))
    parking = PostgresParking(world.database, PostgresVault(b"k" * 32))
    return DeadLettersReceiver(letters, parking, lambda: world.database.unit_of_work(Context(None, "core")))


async def kept(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("SELECT entry_id FROM fleet.dead_letters ORDER BY received_at")
    return [row["entry_id"] for row in rows]


@pytest.mark.parametrize(
    "poison",
    [{"message": "\x00"}, {"fingerprint": "\x00"}, {"entry_id": "\x00"}, {"deliveries": 2**31}, {"body": "\x00"}],
    ids=lambda poison: next(iter(poison)),
)
async def test_a_letter_that_the_database_could_not_keep_takes_no_neighbour_along(
    world: World, admin_connection: asyncpg.Connection, poison: dict[str, Any]
) -> None:
    good = DeadLetter(
        job_id=None, rail=RAIL, stream=JOBS, entry_id="1-1", error_class="poison", fingerprint="f", message="m",
        deliveries=1, body="{}",
    )  # fmt: skip
    letters = [good.model_copy(update=poison), good.model_copy(update={"entry_id": "1-2"})]
    bodies = [Envelope("x", DEAD_LETTER_TYPE, letter.model_dump_json()) for letter in letters]
    batch = [Delivery(DLQ, f"{at}-5", envelope, None, 1) for at, envelope in enumerate(bodies, 1)]
    assert await receiver(world)(RAIL, batch) == ["1-5", "2-5"]
    rows = await admin_connection.fetch("SELECT error_class FROM fleet.dead_letters ORDER BY entry_id")
    assert [row["error_class"] for row in rows] in (["poison", "unreadable_dead_letter"], ["poison", "poison"])


async def test_a_dead_letter_buries_no_job_of_another_rail(world: World) -> None:
    (job_id,) = await world.queue(1)
    letter = DeadLetter(
        job_id=job_id, rail="mallory", stream=jobs_stream("mallory"), entry_id="1-1", error_class="poison",
        fingerprint="f", message="m", deliveries=1, body="{}",
    )  # fmt: skip
    for number, rail in enumerate(("mallory", RAIL), 1):
        own = letter.model_copy(update={"rail": rail, "stream": jobs_stream(rail)})
        envelope = Envelope("x", DEAD_LETTER_TYPE, own.model_dump_json())
        await receiver(world)(rail, [Delivery(jobs_dlq_stream(rail), f"{number}-5", envelope, None, 1)])
        assert (await world.states())[job_id] == ("READY" if rail == "mallory" else "DEAD")


async def test_an_entry_is_acked_only_after_the_commit(world: World, admin_connection: asyncpg.Connection) -> None:
    store, seen = receiver(world), []

    async def receive(rail: str, batch: Sequence[Delivery]) -> Sequence[str]:
        acked = await store(rail, batch)
        seen.append(((await world.redis.xpending(DLQ, CORE_GROUP))["pending"], len(await kept(admin_connection))))
        return acked

    await world.redis.xadd(DLQ, GARBAGE)
    async with running(Inbox(world.redis, RAIL, DLQ, "c", receive)):
        await until_async(lambda: _nothing_left(world))
    assert seen == [(1, 1)], "committed while still pending"


async def test_a_settler_that_dies_between_commit_and_ack_repeats_without_effect(
    world: World, admin_connection: asyncpg.Connection
) -> None:
    entry = (await world.redis.xadd(DLQ, GARBAGE)).decode()
    await world.redis.xreadgroup(CORE_GROUP, "dead", {DLQ: ">"})
    await receiver(world)(RAIL, [Delivery(DLQ, entry, None, None, 1, raw="the raw text")])
    async with running(Inbox(world.redis, RAIL, DLQ, "c", receiver(world), claim_idle_s=0.05)):
        await until_async(lambda: _nothing_left(world))
    assert await kept(admin_connection) == [entry]


@pytest.mark.parametrize("faults", [3])
async def test_a_database_that_is_away_costs_time_and_never_an_entry(
    world: World, admin_connection: asyncpg.Connection, faults: int
) -> None:
    store, left = receiver(world), [faults]

    async def receive(rail: str, batch: Sequence[Delivery]) -> Sequence[str]:
        if left[0]:
            left[0] -= 1
            raise ConnectionRefusedError
        return await store(rail, batch)

    entry = (await world.redis.xadd(DLQ, GARBAGE)).decode()
    async with running(Inbox(world.redis, RAIL, DLQ, "c", receive)):
        await until_async(lambda: _nothing_left(world))
    assert left == [0]
    assert await kept(admin_connection) == [entry]


async def test_while_whole_batches_wait_a_second_one_is_received_beside_the_first_and_none_twice(world: World) -> None:
    at_once, both, seen = 0, asyncio.Event(), list[str]()

    async def receive(rail: str, batch: Sequence[Delivery]) -> Sequence[str]:
        nonlocal at_once
        at_once += 1
        if at_once == 2:
            both.set()
        if len(seen) < 8:
            # Nobody goes on alone: without a second reader this is where it ends.
            async with asyncio.timeout(PATIENCE_S):
                await both.wait()
        seen.extend(each.entry_id for each in batch)
        at_once -= 1
        return [each.entry_id for each in batch]

    entries = [(await world.redis.xadd(DLQ, GARBAGE)).decode() for _ in range(40)]
    relief = Inbox(world.redis, RAIL, DLQ, "c-relief", receive, batch=4)
    relief.read_along(wanted=False)
    async with running(relief), running(Inbox(world.redis, RAIL, DLQ, "c", receive, batch=4, relief=relief)):
        await until_async(lambda: _nothing_left(world))
        consumers = await world.redis.xinfo_consumers(DLQ, CORE_GROUP)
    assert sorted(seen) == sorted(entries)
    assert {each["name"] for each in consumers} == {b"c", b"c-relief"}


@pytest.mark.parametrize(("at_a_time", "readers"), [(1, {"own", "relief"}), (6, {"own"})])
async def test_the_relief_reads_along_where_few_wait_and_no_more_where_less_than_a_batch_does(
    world: World, at_a_time: int, readers: set[str]
) -> None:
    names: list[str] = []

    def receiving(name: str) -> Callable[[str, Sequence[Delivery]], Any]:
        async def receive(rail: str, batch: Sequence[Delivery]) -> Sequence[str]:
            names.append(name)
            return [each.entry_id for each in batch]

        return receive

    relief = Inbox(world.redis, RAIL, DLQ, "c-relief", receiving("relief"), batch=8)
    relief.read_along(wanted=False)
    async with running(relief), running(Inbox(world.redis, RAIL, DLQ, "c", receiving("own"), batch=8, relief=relief)):
        for _ in range(10):
            # At once: were they to come one by one, less than all might be read together.
            async with world.redis.pipeline(transaction=True) as together:
                for _ in range(at_a_time):
                    together.xadd(DLQ, GARBAGE)
                await together.execute()
            await until_async(lambda: _nothing_left(world))
    assert set(names) == readers


async def test_one_result_does_not_wait_for_the_one_before_it(world: World) -> None:
    both, at_work = asyncio.Event(), 0

    async def receive(rail: str, batch: Sequence[Delivery]) -> Sequence[str]:
        nonlocal at_work
        at_work += 1
        if at_work > 1:
            both.set()
        async with asyncio.timeout(PATIENCE_S):
            await both.wait()
        return [each.entry_id for each in batch]

    relief = Inbox(world.redis, RAIL, DLQ, "c-relief", receive)
    async with running(relief), running(Inbox(world.redis, RAIL, DLQ, "c", receive, relief=relief)):
        for number in range(2):
            await world.redis.xadd(DLQ, GARBAGE)
            await until(lambda: at_work > number)  # noqa: B023 - called before the next turn
        await until_async(lambda: _nothing_left(world))


async def _nothing_left(world: World) -> bool:
    (group,) = [each for each in await world.redis.xinfo_groups(DLQ) if each["name"].decode() == CORE_GROUP]
    return not group["lag"] and not group["pending"]
