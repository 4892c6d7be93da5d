"""Files that pay, in PostgreSQL: no payment is in two, bytes never change, and what was decided is not paid again."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID, uuid4

import pytest

from core.domain.jobs import mint_reference
from core.store.database import UnitOfWork
from core.store.settling.files import FileStore, MemberTakenError, MemberUnknownError
from schemas.files import FileMember
from tests.integration.permits.conftest import RAIL, World, pay_job
from tests.support.lock_waits import somebody_waits

BODY = "<Document>ฝาก</Document>"


@pytest.fixture
def store(world: World) -> FileStore:
    return FileStore(world.core.worker_ports.vault)


async def members(world: World, count: int) -> list[FileMember]:
    await world.register()
    wallet = await world.wallet(1_000)
    jobs = [pay_job(await world.pay(wallet)) for _ in range(count)]
    return [FileMember(job_id=job, reference=mint_reference(job, 24)) for job in jobs]


async def place(world: World, store: FileStore, parts: Sequence[FileMember], name: str = "PF-1") -> UUID:
    file_id = uuid4()
    async with world.uow() as uow:
        await store.insert_file(uow, RAIL, file_id, name, BODY, parts)
    return file_id


async def live(world: World, store: FileStore, parts: Sequence[FileMember]) -> dict[str, str]:
    async with world.uow() as uow:
        found = await store.holding(uow, RAIL, [each.reference for each in parts])
    return {each.reference: each.message_id for each in found}


async def test_a_payment_is_in_one_live_file_and_a_second_stores_nothing(world: World, store: FileStore) -> None:
    first, second = await members(world, 2)
    await place(world, store, [first])
    with pytest.raises(MemberTakenError):
        await place(world, store, [first, second], "PF-2")
    assert await live(world, store, [first, second]) == {first.reference: "PF-1"}
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.rail_files") == 1


async def test_who_comes_second_in_a_race_is_told_so_in_a_transaction_that_still_works(
    world: World, store: FileStore
) -> None:
    first, second = await members(world, 2)
    file_id = uuid4()
    races: list[Callable[[UnitOfWork], Awaitable[None]]] = [
        lambda uow: store.insert_file(uow, RAIL, uuid4(), "PF-2", BODY, [first, second]),
        lambda uow: store.bury(uow, RAIL, uuid4(), first),
        # The same file once more, as it is repeated where the first answer was lost.
        lambda uow: store.insert_file(uow, RAIL, file_id, "PF-1", BODY, [first]),
    ]

    async def late(race: Callable[[UnitOfWork], Awaitable[None]]) -> int:
        answered = 0
        with contextlib.suppress(MemberTakenError):
            async with world.uow() as uow:
                try:
                    await race(uow)
                except MemberTakenError:
                    # Where the server had to refuse it, the transaction would answer nothing more.
                    answered = await uow.connection.fetchval("SELECT 1")
                    raise
        return answered

    async with world.uow() as uow:
        await store.insert_file(uow, RAIL, file_id, "PF-1", BODY, [first])
        racing = [asyncio.create_task(late(race)) for race in races]
        await somebody_waits(world.core.worker_database, len(races))
    assert await asyncio.gather(*racing) == [1, 1, 1]
    assert await live(world, store, [first, second]) == {first.reference: "PF-1"}
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.rail_files") == 1


async def test_files_and_burials_at_once_leave_each_payment_to_one_of_them(world: World, store: FileStore) -> None:
    parts = await members(world, 6)

    async def place_or_lose(number: int) -> int:
        own = [parts[(number + each) % 6] for each in (3, 0, 1)]
        try:
            await place(world, store, own, f"PF-{number}")
        except MemberTakenError:
            return 0
        return 3

    async def bury_or_lose(member: FileMember) -> int:
        try:
            async with world.uow() as uow:
                await store.bury(uow, RAIL, uuid4(), member)
        except MemberTakenError:
            return 0
        return 1

    won = await asyncio.gather(*map(place_or_lose, range(6)), *map(bury_or_lose, parts))
    taken = await world.admin.fetch("SELECT reference FROM fleet.rail_file_members WHERE live")
    assert sum(won) == len(taken) == len({row["reference"] for row in taken}) > 0
    # Who lost left nothing behind: every file that is there holds its members.
    files = await world.admin.fetchval("SELECT count(*) FROM fleet.rail_files")
    assert files == sum(bool(each) for each in won)


async def test_a_file_is_sealed_and_comes_back_as_the_same_bytes(world: World, store: FileStore) -> None:
    file_id = await place(world, store, await members(world, 1))
    sealed = await world.admin.fetchval("SELECT ciphertext FROM fleet.rail_files")
    assert b"Document" not in sealed
    async with world.uow() as uow:
        assert [await store.again(uow, RAIL, file_id) for _ in range(2)] == [BODY, BODY]
        assert await store.again(uow, "another", file_id) is None


async def test_what_never_left_lets_its_members_go_into_another_file(world: World, store: FileStore) -> None:
    parts = await members(world, 2)
    file_id = await place(world, store, parts)
    async with world.uow() as uow:
        # The answer may be lost and asked for again.
        assert [await store.give_up(uow, RAIL, file_id) for _ in range(2)] == [True, True]
        assert await store.again(uow, RAIL, file_id) is None
    await place(world, store, parts[:1], "PF-2")
    assert await live(world, store, parts) == {parts[0].reference: "PF-2"}


async def test_a_file_that_another_handed_in_meanwhile_keeps_its_members(world: World, store: FileStore) -> None:
    parts = await members(world, 1)
    file_id = await place(world, store, parts)
    async with world.uow() as uow:
        assert await store.again(uow, RAIL, file_id) == BODY
        assert not await store.give_up(uow, RAIL, file_id)
    assert await live(world, store, parts) == {parts[0].reference: "PF-1"}


async def test_a_file_with_a_payment_that_was_decided_against_is_never_handed_in_again(
    world: World, store: FileStore
) -> None:
    parts = await members(world, 2)
    file_id = await place(world, store, parts)
    [granted] = await world.ask([parts[0].job_id])
    await world.tell(parts[0].job_id, "DECLINED", fence=granted.fence, reason="account_closed")
    async with world.uow() as uow:
        assert await store.again(uow, RAIL, file_id) is None
    assert len(await live(world, store, parts)) == 2


async def test_a_member_that_is_no_job_of_the_rail_is_refused(world: World, store: FileStore) -> None:
    [known] = await members(world, 1)
    foreign = FileMember(job_id=known.job_id, reference="SOMEBODYELSES")
    with pytest.raises(MemberUnknownError):
        await place(world, store, [foreign])
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.rail_files") == 0


async def test_a_buried_reference_never_comes_into_a_file_and_one_in_a_file_is_not_buried(
    world: World, store: FileStore
) -> None:
    first, second = await members(world, 2)
    async with world.uow() as uow:
        await store.bury(uow, RAIL, uuid4(), first)
    with pytest.raises(MemberTakenError):
        await place(world, store, [first, second])
    await place(world, store, [second])
    for each in (first, second):  # again, or too late
        with pytest.raises(MemberTakenError):
            async with world.uow() as uow:
                await store.bury(uow, RAIL, uuid4(), each)
    async with world.uow() as uow:
        assert [await store.is_buried(uow, RAIL, each.reference) for each in (first, second)] == [True, False]
        held = await store.holding(uow, RAIL, [first.reference, second.reference])
    assert {each.reference: each.buried for each in held} == {first.reference: True, second.reference: False}


async def test_a_key_for_some_tenants_stores_sees_hands_in_and_buries_files_of_those_alone(
    world: World, store: FileStore
) -> None:
    first, second = await members(world, 2)
    file_id = await place(world, store, [first])
    ours, others = {world.caller.tenant_id}, {uuid4()}
    attempts: list[Callable[[UnitOfWork], Awaitable[None]]] = [
        lambda uow: store.insert_file(uow, RAIL, uuid4(), "PF-2", BODY, [second], others),
        lambda uow: store.bury(uow, RAIL, uuid4(), second, others),
        # A job of one's own is no leave to bury another payment's reference.
        lambda uow: store.bury(uow, RAIL, uuid4(), FileMember(job_id=first.job_id, reference=second.reference), ours),
    ]
    for refused in attempts:
        with pytest.raises(MemberUnknownError):
            async with world.uow() as uow:
                await refused(uow)
    async with world.uow() as uow:
        held = [await store.holding(uow, RAIL, [first.reference], each) for each in (ours, others)]
        assert [len(each) for each in held] == [1, 0]
        assert [await store.is_of(uow, RAIL, file_id, each) for each in (ours, others)] == [True, False]
        await store.bury(uow, RAIL, uuid4(), second, ours)
        assert [each.buried for each in await store.holding(uow, RAIL, [second.reference], ours)] == [True]


async def test_a_job_that_is_closed_comes_into_no_file(world: World, store: FileStore) -> None:
    [member] = await members(world, 1)
    [granted] = await world.ask([member.job_id])
    await world.tell(member.job_id, "DECLINED", fence=granted.fence, reason="account_closed")
    with pytest.raises(MemberUnknownError):
        await place(world, store, [member])
