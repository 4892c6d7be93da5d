"""The database itself refuses what the ledger never does, whoever asks."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.ledger import Transfer
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from core.store.ledger.ledger_rows import transfer_columns
from tests.support.ledger_world import EURO, LedgerWorld, fresh_id, linked

CHANGES = (
    "UPDATE fleet.{} SET tenant_id = tenant_id",
    "DELETE FROM fleet.{}",
    "TRUNCATE fleet.{}",
)
INSERT = """INSERT INTO fleet.transfers (id, tenant_id, debit_account_id, credit_account_id, amount_minor, ledger, code,
    flags, pending_id, timeout_s, user_data, chain_id, chain_length)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::integer[], $7::integer[],
        $8::smallint[], $9::uuid[], $10::integer[], $11::uuid[], $12::uuid[], $13::integer[])"""


@pytest.fixture(params=["app", "worker"])
def role(request: pytest.FixtureRequest, app: Database, worker: Database) -> Database:
    """Connections as either role that the fleet's processes have."""
    return {"app": app, "worker": worker}[request.param]


async def _insert(role: Database, context: Context, transfers: Iterable[Transfer]) -> None:
    async with role.unit_of_work(context) as uow:
        await uow.connection.execute(INSERT, *transfer_columns(list(transfers)))


async def test_neither_role_may_change_history(
    role: Database, context: Context, ledger: PostgresLedger, world: LedgerWorld
) -> None:
    assert await ledger.apply(None, [world.move(world.bank, world.wallet, 5)]) == ["ok"]
    for table in ("transfers", "transfer_resolutions"):
        for change in CHANGES:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with role.unit_of_work(context) as uow:
                    await uow.connection.execute(change.format(table))


async def test_nobody_changes_history_not_even_its_owner(
    admin_connection: asyncpg.Connection, ledger: PostgresLedger, world: LedgerWorld
) -> None:
    assert await ledger.apply(None, [world.move(world.bank, world.wallet, 5)]) == ["ok"]
    partition = await admin_connection.fetchval("SELECT tableoid::regclass::text FROM fleet.transfers")
    for table in ("transfers", "transfer_resolutions", partition.removeprefix("fleet.")):
        for change in CHANGES:
            for who in ("SET ROLE fleet_owner", "RESET ROLE"):
                await admin_connection.execute(who)
                with pytest.raises(asyncpg.RestrictViolationError, match="history is not edited"):
                    await admin_connection.execute(change.format(table))


async def test_every_partition_has_its_guards(admin_connection: asyncpg.Connection) -> None:
    await admin_connection.execute("SELECT fleet.ensure_partitions(5, 5)")
    rows = await admin_connection.fetch(
        """SELECT c.relname, array_agg(t.tgname::text ORDER BY t.tgname) AS guards
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind = 'r'
        LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname IN ('refuse_change', 'insert_guard')
        WHERE i.inhparent = 'fleet.transfers'::regclass GROUP BY c.relname"""
    )
    assert len(rows) == 12  # eleven months and the net
    assert all(row["guards"] == ["insert_guard", "refuse_change"] for row in rows), rows


async def test_partitions_cannot_be_written_around_their_parent(
    role: Database, context: Context, admin_connection: asyncpg.Connection
) -> None:
    names = await admin_connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'fleet.transfers'::regclass"
        " AND inhrelid::regclass::text LIKE '%transfers%'"
    )
    assert names
    for row in names:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with role.unit_of_work(context) as uow:
                await uow.connection.execute(f"SELECT FROM {row['name']}")


async def test_an_insert_past_the_ledger_meets_the_same_rules(
    role: Database, context: Context, world: LedgerWorld
) -> None:
    plain = world.move(world.bank, world.wallet, 5)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"ledger": EURO}, "transfers_accounts"),
        ({"credit_account_id": world.euros}, "transfers_accounts"),
        ({"debit_account_id": fresh_id()}, "transfers_accounts"),
        ({"amount_minor": 0}, "transfers_amount_minor_check"),
        ({"amount_minor": -5}, "transfers_amount_minor_check"),
        ({"credit_account_id": world.bank}, "transfers_check"),
        ({"code": 0}, "transfers_code_check"),
        ({"flags": 16}, "transfers_flags_check"),
        ({"flags": 4}, "transfers_check"),
        ({"flags": 1}, "transfers_check"),
        ({"timeout_s": 5}, "transfers_check"),
    ]
    for change, constraint in refused:
        with pytest.raises(asyncpg.CheckViolationError) as raised:
            await _insert(role, context, [replace(plain, **change)])
        assert (raised.value.constraint_name or "").startswith(constraint), (change, raised.value)
    await _insert(role, context, [plain])


async def test_half_a_chain_is_refused(role: Database, context: Context, world: LedgerWorld) -> None:
    chain = linked(*(world.move(world.bank, world.wallet, 1) for _ in range(3)))
    columns = transfer_columns(chain)
    for kept in (slice(0, 2), slice(1, 3)):
        with pytest.raises(asyncpg.CheckViolationError, match="written whole"):
            async with role.unit_of_work(context) as uow:
                await uow.connection.execute(INSERT, *(column[kept] for column in columns))
    await _insert(role, context, chain)


async def test_no_balance_can_be_written_that_breaks_its_flag(
    role: Database, context: Context, world: LedgerWorld
) -> None:
    for column, account_id in (("debits_posted", world.wallet), ("credits_pending", world.debtor)):
        with pytest.raises(asyncpg.CheckViolationError):
            async with role.unit_of_work(context) as uow:
                await uow.connection.execute(f"UPDATE fleet.accounts SET {column} = 1 WHERE id = $1", account_id)


async def test_flags_and_owners_of_accounts_do_not_change(role: Database, context: Context, world: LedgerWorld) -> None:
    for change in ("UPDATE fleet.accounts SET flags = 0", "UPDATE fleet.accounts SET tenant_id = id",
                   "DELETE FROM fleet.accounts"):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with role.unit_of_work(context) as uow:
                await uow.connection.execute(change)


async def test_only_the_fleet_may_call_the_ledger(admin_connection: asyncpg.Connection) -> None:
    may = await admin_connection.fetch(
        """SELECT proname, has_function_privilege('public', p.oid, 'EXECUTE') AS anyone
        FROM pg_proc p WHERE pronamespace = 'fleet'::regnamespace AND proname IN
            ('ledger_apply', 'ledger_apply_one', 'ledger_apply_chains', 'ledger_expire', 'ensure_partitions',
            'guard_table', 'confine_to_tenant', 'take_limit_usage', 'take_limit_usage_alike')"""
    )
    assert len(may) == 9
    assert not any(row["anyone"] for row in may), may
