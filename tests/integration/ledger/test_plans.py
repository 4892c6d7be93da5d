"""What the ledger costs does not grow with what it holds: it meets its rows by index before any statistics exist."""

import asyncpg

from core.store.ledger.ledger import PostgresLedger
from tests.support.ledger_world import LedgerWorld
from tests.support.waiting import until_async

_READ = """
SELECT sum(seq_tup_read)::bigint AS walked, sum(idx_scan)::bigint AS looked_up FROM pg_stat_user_tables
WHERE relid IN (SELECT relid FROM pg_partition_tree('fleet.transfers')) OR relid = 'fleet.accounts'::regclass
"""


async def test_a_transfer_walks_no_table_though_all_plans_were_made_while_they_were_empty(
    ledger: PostgresLedger, world: LedgerWorld, admin_connection: asyncpg.Connection
) -> None:
    for _ in range(8):
        assert await ledger.apply(None, [world.move(world.bank, world.wallet, 1)]) == ["ok"]
    await ledger.apply(None, [world.move(world.bank, world.wallet, 1) for _ in range(500)])

    async def read() -> dict[str, int]:
        [row] = await admin_connection.fetch(_READ)
        return dict(row)

    before = await read()
    hold = world.hold(world.wallet, world.bank, 5)
    assert await ledger.apply(None, [hold]) == ["ok"]
    assert await ledger.apply(None, [world.post(hold)]) == ["ok"]

    async def looked_up() -> bool:
        return (await read())["looked_up"] > before["looked_up"] + 4

    await until_async(looked_up)
    assert (await read())["walked"] == before["walked"]
