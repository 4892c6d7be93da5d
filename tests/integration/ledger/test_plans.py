"""What the ledger costs does not grow with what it holds: it meets its rows by index before any statistics exist."""

from core.domain.context import Context
from core.store.database import Database, UnitOfWork
from core.store.ledger.ledger import PostgresLedger
from tests.support.ledger_world import LedgerWorld

# What this session has counted and not yet told anybody, which it never does inside a transaction: nothing of other
# sessions is in it, and nothing comes late.
_READ = """
SELECT sum(seq_tup_read)::bigint AS walked, sum(idx_scan)::bigint AS looked_up FROM pg_stat_xact_user_tables
WHERE relid IN (SELECT relid FROM pg_partition_tree('fleet.transfers')) OR relid = 'fleet.accounts'::regclass
"""


async def _read(uow: UnitOfWork) -> dict[str, int]:
    [row] = await uow.connection.fetch(_READ)
    return dict(row)


async def test_a_transfer_walks_no_table_though_all_plans_were_made_while_they_were_empty(
    ledger: PostgresLedger, world: LedgerWorld, app: Database, context: Context
) -> None:
    async with app.unit_of_work(context) as uow:
        for _ in range(8):
            assert await ledger.apply(uow, [world.move(world.bank, world.wallet, 1)]) == ["ok"]
        await ledger.apply(uow, [world.move(world.bank, world.wallet, 1) for _ in range(500)])

        before = await _read(uow)
        hold = world.hold(world.wallet, world.bank, 5)
        assert await ledger.apply(uow, [hold]) == ["ok"]
        assert await ledger.apply(uow, [world.post(hold)]) == ["ok"]
        after = await _read(uow)

    assert after["looked_up"] > before["looked_up"] + 4
    assert after["walked"] == before["walked"]
