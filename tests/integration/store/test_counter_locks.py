"""What the locks of limits' counters are there for: each is shown by what goes wrong where it is taken out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import date
from typing import Final
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.ledger import Transfer, TransferResult
from core.domain.limits import Limit, Usage, UsageKey
from core.services.ledger_port import TrustMisplacedError
from core.services.terms.limits import Take, UsageMove
from core.store.database import Database, UnitOfWork
from core.store.ledger.ledger import PostgresLedger
from core.store.terms.limits import LimitStore
from fleet.stack.provision import RoleUrls
from schemas.limits import LimitKind, LimitRequest
from tests.support.lock_waits import somebody_waits, without

TENANT, DAY = uuid4(), date(2026, 3, 1)
LIMIT: Final = Limit.of(
    UUID(int=1),
    1,
    LimitRequest.model_validate({"name": "l", "kind": "DAY", "currency": "THB", "max_amount_minor": 99}),
    ZoneInfo("UTC"),
)
LOW, HIGH = (UsageKey(LIMIT.id, subject, DAY) for subject in ("a", "b"))
STORE = LimitStore()
ORDER = {
    "fleet.take_limit_usage": 'ORDER BY p_limits[k.place], k.subject COLLATE "C", p_periods[k.place]',
    "fleet.lock_limit_usage": 'ORDER BY k.limit_id, k.subject COLLATE "C", k.period',
    "fleet.move_limit_usage": "ORDER BY u.limit_id, u.subject, u.period FOR NO KEY UPDATE",
}


async def _take(uow: UnitOfWork) -> None:
    sums = {key.subject: UsageMove(used_minor=1) for key in (HIGH, LOW)}
    assert await STORE.take_usage(uow, [Take(TENANT, LIMIT, DAY, sums)])


async def _lock(uow: UnitOfWork) -> None:
    assert len(await STORE.lock_usage(uow, [(TENANT, HIGH), (TENANT, LOW)])) == 2


async def _move(uow: UnitOfWork) -> None:
    assert await STORE.move_usage(uow, {key: UsageMove(used_minor=1) for key in (HIGH, LOW)}, locked=False)


WRITERS = dict(zip(ORDER, (_take, _lock, _move), strict=True))


@pytest.fixture
async def pair(fresh_database: RoleUrls) -> AsyncIterator[Database]:
    """As many connections as two writers need; both counters exist."""
    database = await Database.connect(fresh_database.app, max_size=3)
    async with database.unit_of_work(Context(TENANT, "test")) as uow:
        for key in (HIGH, LOW):  # Rows lie where they were made, which is not in the order of their keys.
            await STORE.lock_usage(uow, [(TENANT, key)])
    yield database
    await database.close()


async def _leaves_the_later_one(pair: Database, write: Callable[[UnitOfWork], Awaitable[None]]) -> bool:
    """Whether a writer that waits for the first of two counters has the second one still to lock."""

    async def written() -> None:
        async with pair.unit_of_work(Context(TENANT, "test")) as uow:
            await write(uow)

    lock = "SELECT FROM fleet.limit_usage WHERE subject = $1 FOR NO KEY UPDATE"
    async with pair.unit_of_work(Context(TENANT, "test")) as holder:
        await holder.connection.fetch(lock, LOW.subject)
        waiting = asyncio.create_task(written())
        await somebody_waits(pair)
        free = await holder.connection.fetch(f"{lock} SKIP LOCKED", HIGH.subject)
    await waiting
    return bool(free)


async def test_counters_are_locked_in_the_one_order_however_they_are_asked_for(pair: Database) -> None:
    for function, write in WRITERS.items():
        assert await _leaves_the_later_one(pair, write), function


async def test_without_that_order_counters_are_locked_as_they_are_asked_for(
    pair: Database, admin_connection: asyncpg.Connection
) -> None:
    for function, write in WRITERS.items():
        await without(admin_connection, function, ORDER[function])
        assert not await _leaves_the_later_one(pair, write), function


async def test_who_decides_by_a_counter_waits_for_who_looked_before_and_sees_what_that_one_took(pair: Database) -> None:
    async def look() -> dict[UsageKey, Usage]:
        async with pair.unit_of_work(Context(TENANT, "test")) as uow:
            return await STORE.lock_usage(uow, [(TENANT, LOW)])

    async with pair.unit_of_work(Context(TENANT, "test")) as first:
        assert await STORE.lock_usage(first, [(TENANT, LOW)]) == {LOW: Usage(0, 0)}
        second = asyncio.create_task(look())
        await somebody_waits(pair)
        assert await STORE.move_usage(first, {LOW: UsageMove(used_minor=90, used_count=2)}, locked=True)
    assert await second == {LOW: Usage(90, 2)}


async def test_who_trusts_locks_counters_at_its_end_alone_but_before_any_account(pair: Database) -> None:
    lock = "SELECT subject FROM fleet.limit_usage FOR NO KEY UPDATE SKIP LOCKED"
    ledger = PostgresLedger(pair, Context(TENANT, "test"))
    twice = Transfer(uuid4(), TENANT, uuid4(), uuid4(), 1, ledger=764, code=1, user_data=TENANT)

    async def free() -> int:
        async with pair.unit_of_work(Context(TENANT, "test")) as other:
            return len(await other.connection.fetch(lock))

    async with pair.unit_of_work(Context(TENANT, "test")) as uow:
        uow.trusting = True
        await _take(uow)
        assert await free() == 2
        # Transfers that are judged one by one lock their accounts at once.
        assert await ledger.apply(uow, [twice, twice]) == [TransferResult.DEBIT_ACCOUNT_NOT_FOUND] * 2
        assert await free() == 0

    async def too_much() -> None:
        async with pair.unit_of_work(Context(TENANT, "test")) as uow:
            uow.trusting = True
            assert await STORE.take_usage(uow, [Take(TENANT, LIMIT, DAY, {"a": UsageMove(used_minor=99)})])

    with pytest.raises(TrustMisplacedError):
        await too_much()
    async with pair.unit_of_work(Context(TENANT, "test")) as uow:
        assert (await STORE.lock_usage(uow, [(TENANT, LOW)]))[LOW].amount_minor == 1


async def test_who_takes_a_counter_that_another_is_making_waits_and_takes_what_that_one_leaves(pair: Database) -> None:
    tomorrow = date(2026, 3, 2)

    async def take(uow: UnitOfWork, minor: int) -> bool:
        sums = {subject: UsageMove(used_minor=minor, used_count=1) for subject in ("c", "d")}
        return await STORE.take_usage(uow, [Take(TENANT, LIMIT, tomorrow, sums)])

    async def taken(minor: int) -> bool:
        async with pair.unit_of_work(Context(TENANT, "test")) as uow:
            return await take(uow, minor)

    async with pair.unit_of_work(Context(TENANT, "test")) as first:
        assert await take(first, 60)
        second = asyncio.create_task(taken(39))
        await somebody_waits(pair)
    assert await second
    assert not await taken(1)
    keys = [(TENANT, UsageKey(LIMIT.id, subject, tomorrow)) for subject in ("c", "d")]
    async with pair.unit_of_work(Context(TENANT, "test")) as uow:
        assert list((await STORE.lock_usage(uow, keys)).values()) == [Usage(99, 2)] * 2


async def test_limits_that_count_the_same_take_it_at_each_of_them_or_at_none(pair: Database) -> None:
    month = replace(LIMIT, id=UUID(int=2), kind=LimitKind.MONTH, max_amount_minor=200)
    payments = {f"w{number}": UsageMove(used_minor=30 + number, used_count=1) for number in range(40)}
    takes = [Take(TENANT, LIMIT, DAY, payments), Take(TENANT, month, DAY.replace(day=1), dict(payments))]
    keys = [UsageKey(take.limit.id, subject, take.period) for take in takes for subject in payments]

    async def take(tenant_id: UUID = TENANT) -> bool:
        async with pair.unit_of_work(Context(TENANT, "test")) as uow:
            return await STORE.take_usage(uow, [each._replace(tenant_id=tenant_id) for each in takes])

    async def said() -> list[UsageMove]:
        async with pair.unit_of_work(Context(TENANT, "test")) as uow:
            found = await STORE.read_usage(uow, keys)
        return [found[key] for key in keys]

    assert await take()
    assert await said() == [*payments.values()] * 2
    # Of most wallets the day has no room for the same again, and so takes it of none.
    assert not await take()
    assert await said() == [*payments.values()] * 2
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await take(uuid4())
