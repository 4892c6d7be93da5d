"""What the locks of accounts are there for: each is shown by what goes wrong where it is taken out."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.ledger import AccountChange, Transfer
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from fleet.stack.provision import RoleUrls
from tests.support.ledger_world import LedgerWorld, fresh_id
from tests.support.lock_waits import somebody_waits, without


@pytest.fixture
async def pair(fresh_database: RoleUrls) -> AsyncIterator[Database]:
    """As many connections as two writers need."""
    database = await Database.connect(fresh_database.app, max_size=3)
    yield database
    await database.close()


async def _stamps_are_in_order(pair: Database, context: Context, world: LedgerWorld, *, alone: bool = True) -> bool:
    """Whether a transfer that waited for an account is stamped after what it waited for."""
    ledger = PostgresLedger(pair, context)
    first, waited, second = (world.move(world.bank, world.clearing, amount) for amount in (1, 2, 3))
    beside = [] if alone else [world.move(world.bank, world.purse, 1)]
    async with pair.unit_of_work(context) as holder:
        assert await ledger.apply(holder, [first]) == ["ok"]
        waiting = asyncio.create_task(ledger.apply(None, [waited, *beside]))
        await somebody_waits(pair)
        assert await ledger.apply(holder, [second]) == ["ok"]
    assert set(await waiting) == {"ok"}
    page = await ledger.account_history(None, world.clearing, None, 10)
    in_order = sorted(page.entries, key=lambda entry: entry.at)
    return [entry.transfer.id for entry in in_order] == [first.id, second.id, waited.id]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a batch"])
async def test_a_transfer_that_waits_for_an_account_is_stamped_after_what_it_waits_for(
    pair: Database, context: Context, world: LedgerWorld, alone: bool
) -> None:
    assert await _stamps_are_in_order(pair, context, world, alone=alone)


def _in_order(world: LedgerWorld, hold: Transfer) -> list[Transfer]:
    """The hold and its end: a batch whose parts depend on each other is judged in order, and never tried at once."""
    return [hold, world.post(hold)]


async def test_what_is_judged_in_order_waits_for_the_account_and_is_judged_by_what_it_has_then(
    pair: Database, context: Context, world: LedgerWorld
) -> None:
    ledger = PostgresLedger(pair, context)
    assert await ledger.apply(None, [world.move(world.bank, world.wallet, 10)]) == ["ok"]
    hold = world.hold(world.wallet, world.clearing, 10)
    async with pair.unit_of_work(context) as holder:
        assert await ledger.apply(holder, [world.move(world.wallet, world.clearing, 10)]) == ["ok"]
        waiting = asyncio.create_task(ledger.apply(None, _in_order(world, hold)))
        await somebody_waits(pair)
    assert await waiting == ["exceeds_credits", "pending_transfer_not_found"]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a batch"])
async def test_an_end_of_a_hold_that_waits_for_another_end_of_it_hears_of_that_one(
    pair: Database, context: Context, world: LedgerWorld, alone: bool
) -> None:
    ledger = PostgresLedger(pair, context)
    hold = world.hold(world.bank, world.clearing, 5)
    assert await ledger.apply(None, [hold]) == ["ok"]
    beside = [] if alone else [world.move(world.bank, world.purse, 1)]
    async with pair.unit_of_work(context) as holder:
        assert await ledger.apply(holder, [world.void(hold)]) == ["ok"]
        waiting = asyncio.create_task(ledger.apply(None, [world.post(hold), *beside]))
        await somebody_waits(pair)
    assert (await waiting)[0] == "pending_transfer_already_voided"


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in order"])
async def test_what_waits_for_a_freeze_obeys_it(
    pair: Database, context: Context, world: LedgerWorld, alone: bool
) -> None:
    ledger = PostgresLedger(pair, context)
    assert await ledger.apply(None, [world.move(world.bank, world.wallet, 10)]) == ["ok"]
    hold = world.hold(world.wallet, world.clearing, 10)
    async with pair.unit_of_work(context) as holder:
        assert await ledger.change_account(holder, world.wallet, AccountChange.FREEZE) == "ok"
        waiting = asyncio.create_task(ledger.apply(None, [hold] if alone else _in_order(world, hold)))
        await somebody_waits(pair)
    assert await waiting == ["debit_account_frozen", *([] if alone else ["pending_transfer_not_found"])]


async def test_a_lone_transfer_that_names_another_tenants_account_does_not_lock_it(
    pair: Database, context: Context, world: LedgerWorld, admin_connection: asyncpg.Connection
) -> None:
    stranger = fresh_id()
    other_tenant = uuid4()
    account = replace(world.account(stranger), tenant_id=other_tenant)
    assert await PostgresLedger(pair, Context(other_tenant, "test")).create_accounts(None, [account]) == ["ok"]
    async with pair.unit_of_work(context) as holder:
        asked = world.move(world.bank, stranger, 1)
        assert await PostgresLedger(pair, context).apply(holder, [asked]) == ["credit_account_not_found"]
        lock = "SELECT id FROM fleet.accounts WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED"
        assert await admin_connection.fetchval(lock, stranger) == stranger


async def _locks_upwards(
    pair: Database, context: Context, world: LedgerWorld, admin_connection: asyncpg.Connection, way: str
) -> bool:
    """Whether a writer that waits for the lower of two accounts has the higher one still to lock."""
    # By way of its index the server meets the rows in order, whether it was asked for it or not: here it has one other.
    await admin_connection.execute("ALTER FUNCTION fleet.ledger_apply RESET enable_bitmapscan")
    ledger = PostgresLedger(pair, context)
    low, high = sorted((fresh_id(), fresh_id()))
    for each in (high, low):  # Rows lie where they were made, which is not in the order of their ids.
        assert await ledger.create_accounts(None, [world.account(each)]) == ["ok"]
    hold = world.hold(high, low, 1)
    moves = {"alone": [hold], "at once": [hold, replace(hold, id=fresh_id())], "in order": _in_order(world, hold)}[way]

    async def write() -> list[str]:
        async with pair.unit_of_work(context) as uow:
            await uow.connection.execute("SET LOCAL enable_indexscan = off")
            return list(await ledger.apply(uow, moves))

    lock = "SELECT id FROM fleet.accounts WHERE id = $1 FOR NO KEY UPDATE"
    async with pair.unit_of_work(context) as holder:
        await holder.connection.fetch(lock, low)
        waiting = asyncio.create_task(write())
        await somebody_waits(pair)
        free = await holder.connection.fetch(f"{lock} SKIP LOCKED", high)
    assert set(await waiting) == {"ok"}
    return bool(free)


@pytest.mark.parametrize("way", ["alone", "at once", "in order"])
async def test_accounts_are_locked_in_the_order_of_their_ids_wherever_their_rows_lie(
    pair: Database, context: Context, world: LedgerWorld, admin_connection: asyncpg.Connection, way: str
) -> None:
    assert await _locks_upwards(pair, context, world, admin_connection, way)


@pytest.mark.parametrize(("function", "way"), [("ledger_apply_one", "alone"), ("ledger_apply", "at once")])
async def test_without_its_order_or_its_locks_the_ledger_does_neither(
    pair: Database,
    context: Context,
    world: LedgerWorld,
    admin_connection: asyncpg.Connection,
    function: str,
    way: str,
) -> None:
    await without(admin_connection, f"fleet.{function}", "ORDER BY id FOR NO KEY UPDATE", "FOR NO KEY UPDATE")
    assert not await _locks_upwards(pair, context, world, admin_connection, way)
    await without(admin_connection, f"fleet.{function}", "FOR NO KEY UPDATE")
    assert not await _stamps_are_in_order(pair, context, world, alone=way == "alone")


async def test_an_accounts_past_is_settled_after_whoever_writes_to_it(
    pair: Database, context: Context, world: LedgerWorld
) -> None:
    ledger = PostgresLedger(pair, context)
    async with pair.unit_of_work(context) as holder:
        assert await ledger.apply(holder, [world.move(world.bank, world.clearing, 1)]) == ["ok"]
        asked = asyncio.create_task(ledger.settle_past(None, world.clearing))
        await somebody_waits(pair)
    settled = await asked
    assert (await ledger.balance_at(None, world.clearing, settled)).posted_minor == 1
