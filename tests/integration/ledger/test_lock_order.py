"""Every writer locks accounts, then transfers, then resolutions: nobody ever waits in a circle."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from core.domain.context import Context
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from fleet.stack.provision import RoleUrls
from tests.support.ledger_world import LedgerWorld, fresh_id, linked
from tests.support.lock_waits import somebody_waits
from tests.support.waiting import PATIENCE_S


async def test_ids_holds_and_accounts_that_cross_never_meet_in_a_deadlock(
    fresh_database: RoleUrls, context: Context, world: LedgerWorld, admin_connection: asyncpg.Connection
) -> None:
    database = await Database.connect(fresh_database.app, min_size=8, max_size=8)
    ledger = PostgresLedger(database, context)
    for _ in range(60):
        ids = [fresh_id() for _ in range(4)]
        holds = [world.hold(world.bank, world.clearing, 2, timeout_s=60) for _ in range(4)]
        assert set(await ledger.apply(None, holds)) == {"ok"}
        # Safe in every order, hence one call; the chains of the other batch are judged in order, under the locks.
        one_call = [world.move(world.bank, world.clearing, 1, id=each) for each in ids]
        unsafe = world.move(world.wallet, world.clearing, 10**6)
        in_order = [unsafe, *(world.move(world.clearing, world.bank, 1, id=each) for each in reversed(ids))]
        chained = linked(*(world.post(hold, 1) for hold in holds))
        voided = [unsafe, *(world.void(hold) for hold in reversed(holds))]
        batches = [one_call, in_order, chained, voided]
        await asyncio.gather(
            *(ledger.apply(None, batch) for batch in [*batches, *batches[::-1]]), ledger.expire(None, 9)
        )
    report = await ledger.verify(None)
    assert report.holds, report.discrepancies
    await database.close()  # a session reports its counts at the latest when it ends
    assert (
        await admin_connection.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        == 0
    )


@pytest.fixture
async def patient(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection, world: LedgerWorld
) -> AsyncIterator[Database]:
    """Connections as the application to which a circle of waits is no error for a long time: it shows as a hang."""
    name = await admin_connection.fetchval("SELECT current_database()")
    await admin_connection.execute(f"ALTER ROLE fleet_app IN DATABASE \"{name}\" SET deadlock_timeout = '60s'")
    database = await Database.connect(fresh_database.app, max_size=4)
    yield database
    await database.close()


async def test_a_writer_that_waits_for_an_account_holds_no_id_yet(
    patient: Database, context: Context, world: LedgerWorld
) -> None:
    ledger = PostgresLedger(patient, context)
    raced = world.move(world.bank, world.wallet, 1)
    async with patient.unit_of_work(context) as holder:
        await holder.connection.execute("SELECT FROM fleet.accounts WHERE id = $1 FOR NO KEY UPDATE", world.wallet)
        waiting = asyncio.create_task(ledger.apply(None, [raced]))
        await somebody_waits(patient)
        # Were the id taken already, this would wait for the waiting one, that waits for us.
        async with asyncio.timeout(PATIENCE_S):
            assert await ledger.apply(holder, [raced]) == ["ok"]
    assert await waiting == ["exists"]


async def test_release_of_an_expired_hold_that_waits_has_resolved_nothing_yet(
    patient: Database, context: Context, world: LedgerWorld, admin_connection: asyncpg.Connection
) -> None:
    ledger = PostgresLedger(patient, context)
    hold = world.hold(world.bank, world.clearing, 5, timeout_s=60)
    assert await ledger.apply(None, [hold]) == ["ok"]
    async with patient.unit_of_work(context) as holder:
        assert await ledger.apply(holder, [world.move(world.bank, world.clearing, 1)]) == ["ok"]
        # Only now does the time pass: the holder's transaction began before, so to it the hold still pends.
        await admin_connection.execute("SET session_replication_role = replica")
        await admin_connection.execute(
            "UPDATE fleet.transfers SET expires_at = clock_timestamp() WHERE id = $1", hold.id
        )
        releasing = asyncio.create_task(ledger.expire(None, 10))
        await somebody_waits(patient)
        async with asyncio.timeout(PATIENCE_S):
            assert await ledger.apply(holder, [world.post(hold)]) == ["ok"]
    assert await releasing == 0
    report = await ledger.verify(None)
    assert report.holds
    assert report.pending_minor == 0
