"""The engine inside its caller's transaction, and behind a pool that keeps no statements."""

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.ledger import AccountFlags
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from fleet.stack.provision import RoleUrls
from tests.support.ledger_world import LedgerWorld, fresh_id, linked


class _GivenUpError(Exception):
    pass


async def test_what_the_caller_rolls_back_never_happened(
    app: Database, context: Context, ledger: PostgresLedger, world: LedgerWorld
) -> None:
    moved = world.move(world.bank, world.wallet, 5)
    account = world.account(fresh_id())

    async def use_and_give_up() -> None:
        async with app.unit_of_work(context) as uow:
            assert await ledger.create_accounts(uow, [account]) == ["ok"]
            assert await ledger.apply(uow, [moved]) == ["ok"]
            chain = linked(world.move(world.wallet, world.bank, 5), moved)
            assert await ledger.apply(uow, chain) == ["linked_event_failed", "exists"]
            raise _GivenUpError

    with pytest.raises(_GivenUpError):
        await use_and_give_up()
    assert await ledger.lookup_transfers(None, [moved.id]) == {}
    assert await ledger.lookup_accounts(None, [account.id]) == {}
    assert await ledger.apply(None, [moved]) == ["ok"]
    assert (await ledger.verify(None)).transfers == 1


async def test_a_refused_batch_leaves_the_callers_transaction_usable(
    app: Database, context: Context, ledger: PostgresLedger, world: LedgerWorld
) -> None:
    """Whatever the database refuses on the way to an answer, the caller's own rows are still committed."""
    async with app.unit_of_work(context) as uow:
        assert await ledger.create_accounts(uow, [world.account(own := fresh_id())]) == ["ok"]
        assert await ledger.apply(uow, [world.move(world.wallet, world.bank, 5)]) == ["exceeds_credits"]
        assert await ledger.apply(uow, [world.move(world.bank, world.euros, 5)]) == [
            "accounts_must_have_the_same_ledger"
        ]
        near_full = world.move(world.bank, world.clearing, 2**63 - 1)
        over = world.move(world.bank, world.clearing, 1)
        assert await ledger.apply(uow, [near_full, over]) == ["ok", "overflows_debits_posted"]
        assert await ledger.apply(uow, [over]) == ["overflows_debits_posted"]
    assert own in await ledger.lookup_accounts(None, [own])
    assert (await ledger.verify(None)).holds


async def test_one_transaction_may_hold_fund_and_post_in_several_calls(
    app: Database, context: Context, ledger: PostgresLedger, world: LedgerWorld
) -> None:
    hold = world.hold(world.wallet, world.clearing, 5, timeout_s=60)
    async with app.unit_of_work(context) as uow:
        assert await ledger.apply(uow, [world.move(world.bank, world.wallet, 5)]) == ["ok"]
        assert await ledger.apply(uow, [hold]) == ["ok"]
        assert await ledger.apply(uow, [world.post(hold, 3)]) == ["ok"]
        assert await ledger.apply(uow, [world.void(hold)]) == ["pending_transfer_already_posted"]
    assert (await ledger.lookup_accounts(None, [world.wallet]))[world.wallet].available_minor == 2


async def test_a_closed_account_lets_an_earlier_hold_end_and_takes_nothing_new(
    ledger: PostgresLedger, world: LedgerWorld, admin_connection: asyncpg.Connection
) -> None:
    assert await ledger.apply(None, [world.move(world.bank, world.purse, 20)]) == ["ok"]
    holds = [world.hold(world.purse, world.clearing, 5) for _ in range(3)]
    assert await ledger.apply(None, holds) == ["ok"] * 3
    await admin_connection.execute(
        "UPDATE fleet.accounts SET flags = flags | $2::smallint WHERE id = $1", world.purse, int(AccountFlags.CLOSED)
    )
    assert await ledger.apply(None, [world.post(holds[0])]) == ["ok"]
    in_order = [world.move(world.purse, world.bank, 1), world.void(holds[1]), world.move(world.bank, world.purse, 1)]
    assert await ledger.apply(None, in_order) == ["debit_account_already_closed", "ok", "credit_account_already_closed"]
    assert await ledger.apply(None, [world.post(holds[2]), world.move(world.purse, world.bank, 1)]) == [
        "ok",
        "debit_account_already_closed",
    ]


async def test_it_works_behind_a_pool_without_a_statement_cache(
    fresh_database: RoleUrls, context: Context, world: LedgerWorld
) -> None:
    database = await Database.connect(fresh_database.app, max_size=1, statement_cache_size=0)
    try:
        ledger = PostgresLedger(database, context)
        hold = world.hold(world.bank, world.wallet, 5)
        assert await ledger.apply(None, [hold]) == ["ok"]
        assert await ledger.apply(None, linked(world.post(hold), world.move(world.wallet, world.bank, 5))) == ["ok"] * 2
        assert (await ledger.verify(None)).holds
    finally:
        await database.close()
