"""Tables are partitioned by the time in their ids; what no month takes, the net does."""

from datetime import UTC, datetime

import asyncpg
import pytest

from core.domain.ids import mint_id
from core.store.ledger.ledger import PostgresLedger
from tests.support.ledger_world import LedgerWorld

FAR = int(datetime(2031, 5, 17, tzinfo=UTC).timestamp() * 1000)


async def _partition_of(connection: asyncpg.Connection, transfer_id: object) -> str:
    return str(await connection.fetchval("SELECT tableoid::regclass FROM fleet.transfers WHERE id = $1", transfer_id))


async def test_a_transfer_lands_in_the_month_of_its_id(
    ledger: PostgresLedger, world: LedgerWorld, admin_connection: asyncpg.Connection
) -> None:
    await admin_connection.execute("SELECT fleet.ensure_partitions(12, 1)")
    now = datetime.now(UTC)
    earlier = datetime(now.year - (now.month <= 2), (now.month - 3) % 12 + 1, 1, tzinfo=UTC)
    edges = [int(earlier.timestamp() * 1000), int(earlier.timestamp() * 1000) - 1]
    moves = [world.move(world.bank, world.wallet, 1, id=mint_id(edge)) for edge in edges]
    assert await ledger.apply(None, moves) == ["ok", "ok"]
    before = datetime(earlier.year - (earlier.month == 1), (earlier.month - 2) % 12 + 1, 1, tzinfo=UTC)
    for move, month in zip(moves, (earlier, before), strict=True):
        assert await _partition_of(admin_connection, move.id) == f"fleet.transfers_p{month:%Y%m}"


async def test_a_month_without_partition_lands_in_the_net_and_is_as_guarded(
    ledger: PostgresLedger, world: LedgerWorld, admin_connection: asyncpg.Connection
) -> None:
    hold = world.hold(world.bank, world.wallet, 5, id=mint_id(FAR))
    assert await ledger.apply(None, [hold]) == ["ok"]
    assert await _partition_of(admin_connection, hold.id) == "fleet.transfers_pdefault"
    assert await ledger.apply(None, [hold, world.post(hold, id=mint_id(FAR + 1))]) == ["exists", "ok"]
    with pytest.raises(asyncpg.RestrictViolationError):
        await admin_connection.execute("DELETE FROM fleet.transfers_pdefault")
    assert (await ledger.verify(None)).holds


async def test_rows_in_the_net_do_not_keep_other_months_from_their_partitions(
    ledger: PostgresLedger, world: LedgerWorld, admin_connection: asyncpg.Connection
) -> None:
    warnings: list[str] = []
    admin_connection.add_log_listener(lambda _, message: warnings.append(message.message))
    now = datetime.now(UTC)
    months = now.year * 12 + now.month - 1 + 6
    netted = datetime(months // 12, months % 12 + 1, 9, tzinfo=UTC)
    move = world.move(world.bank, world.wallet, 5, id=mint_id(int(netted.timestamp() * 1000)))
    assert await ledger.apply(None, [move]) == ["ok"]
    made = await admin_connection.fetchval("SELECT fleet.ensure_partitions(1, 8)")
    assert made > 0
    assert warnings == [f"no partition transfers_p{netted:%Y%m}: its rows are in transfers_pdefault"]
    exists = "SELECT to_regclass('fleet.transfers_p' || $1) IS NOT NULL"
    after = datetime((months + 1) // 12, (months + 1) % 12 + 1, 1, tzinfo=UTC)
    assert not await admin_connection.fetchval(exists, f"{netted:%Y%m}")
    assert await admin_connection.fetchval(exists, f"{after:%Y%m}")
    assert await ledger.apply(None, [move]) == ["exists"]


async def test_making_partitions_again_makes_none(admin_connection: asyncpg.Connection) -> None:
    assert await admin_connection.fetchval("SELECT fleet.ensure_partitions(2, 4)") > 0
    assert await admin_connection.fetchval("SELECT fleet.ensure_partitions(2, 4)") == 0


async def test_where_no_partition_is_missing_nobody_waits_for_a_lock(admin_connection: asyncpg.Connection) -> None:
    async with admin_connection.transaction():
        assert await admin_connection.fetchval("SELECT fleet.ensure_partitions(0, 1)") == 0
        locked = await admin_connection.fetch(
            "SELECT relation::regclass::text AS name, mode FROM pg_locks WHERE pid = pg_backend_pid()"
            " AND locktype = 'relation' AND mode <> 'AccessShareLock'"
        )
        assert [tuple(row) for row in locked] == []


async def test_a_new_database_has_this_month_the_next_and_the_net(admin_connection: asyncpg.Connection) -> None:
    found = await admin_connection.fetch(
        "SELECT inhparent::regclass::text AS parent, count(*) AS parts FROM pg_inherits i"
        " JOIN fleet.partitioned_tables t ON i.inhparent = ('fleet.' || t.table_name)::regclass GROUP BY 1"
    )
    assert {row["parent"]: row["parts"] for row in found if row["parts"] != 3} == {}
    assert len(found) >= 7
