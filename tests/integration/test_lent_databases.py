"""What a test gets is a database as the migrations left it, whatever the test before did to its own."""

import asyncpg
import pytest

from fleet.stack.provision import RoleUrls
from tests.support.databases import SHAPE, Databases
from tests.support.moved_clock import MovedClock
from tests.support.warm_sessions import WarmDatabase, warm_connection

TABLES = "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'fleet'::regnamespace AND relkind = 'r'"


async def contents(url: str) -> dict[str, list[asyncpg.Record]]:
    connection = await asyncpg.connect(url)
    try:
        tables = [row[0] for row in await connection.fetch(TABLES)]
        found = {table: await connection.fetch(f"SELECT * FROM {table} t ORDER BY t::text") for table in tables}
        found["sequences"] = await connection.fetch("SELECT sequencename, last_value FROM pg_sequences ORDER BY 1")
        return found
    finally:
        await connection.close()


async def test_a_database_is_lent_again_as_the_migrations_left_it(databases: Databases) -> None:
    name, urls = await databases.lend()
    before = await contents(urls.admin)
    left_open = await asyncpg.connect(urls.admin)
    await left_open.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES (gen_random_uuid(), 'shop')")
    await left_open.execute("INSERT INTO fleet.ledger_epochs (epoch, reason) VALUES (2, 'test')")
    await left_open.execute("SELECT nextval(seqrelid::regclass) FROM pg_sequence")
    changed = await contents(urls.admin)
    assert len([table for table in before if changed[table] != before[table]]) >= 3
    await databases.take_back(name)
    again, urls = await databases.lend()
    assert again == name
    assert await contents(urls.admin) == before
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await left_open.execute("SELECT 1")
    left_open.terminate()
    await databases.take_back(again)


CHANGES = [
    "CREATE TABLE fleet.added (id int)",
    "ALTER TABLE fleet.tenants DISABLE ROW LEVEL SECURITY",
    "GRANT DELETE ON fleet.tenants TO fleet_app",
    "GRANT UPDATE (name) ON fleet.tenants TO fleet_app",
    "ALTER TABLE fleet.transfers DISABLE TRIGGER ALL",
    "ALTER TABLE fleet.tenants ALTER COLUMN name SET DEFAULT 'x'",
    "CREATE FUNCTION fleet.added() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER FUNCTION fleet.first_id_at COST 7",
    "DROP POLICY app_reads_system ON fleet.rail_pauses",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 65', current_database()); END $$",
]


async def test_every_change_of_the_schema_is_seen(databases: Databases) -> None:
    name, urls = await databases.lend()
    connection = await asyncpg.connect(urls.admin)
    for change in CHANGES:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(change)
        assert await connection.fetchval(SHAPE) != databases.template.shape, change
        await transaction.rollback()
        assert await connection.fetchval(SHAPE) == databases.template.shape, change
    await connection.close()
    await databases.take_back(name)
    assert name in databases.free


async def test_a_database_whose_schema_was_changed_is_not_lent_again(databases: Databases) -> None:
    name, urls = await databases.lend()
    connection = await asyncpg.connect(urls.admin)
    await connection.execute(CHANGES[0])
    await connection.close()
    await databases.take_back(name)
    assert name not in databases.free


async def test_many_rows_are_gone_like_few(databases: Databases) -> None:
    name, urls = await databases.lend()
    before = await contents(urls.admin)
    connection = await asyncpg.connect(urls.admin)
    await connection.execute(
        "INSERT INTO fleet.ledger_epochs (epoch, reason) SELECT n, repeat('x', 600) FROM generate_series(2, 3000) n"
    )
    await connection.close()
    await databases.take_back(name)
    again, urls = await databases.lend()
    assert (again, await contents(urls.admin)) == (name, before)
    await databases.take_back(again)


async def test_a_database_whose_every_session_was_ended_is_emptied_and_lent_again(databases: Databases) -> None:
    name, _ = await databases.lend()
    await databases.take_back(name)
    name, urls = await databases.lend()
    connection = await asyncpg.connect(urls.admin)
    await connection.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES (gen_random_uuid(), 'shop')")
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
    await databases.take_back(name)
    again, urls = await databases.lend()
    assert again == name
    assert "shop" not in str(await contents(urls.admin))
    await databases.take_back(again)


LEFT = """
SET work_mem = 77; LISTEN left_by_a_test; SELECT pg_advisory_lock(7);
CREATE TEMP TABLE left_by_a_test (id int)
"""
HAS_LEFT = """
SELECT pg_backend_pid(), current_setting('work_mem'), (SELECT count(*) FROM pg_listening_channels()),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), to_regclass('pg_temp.left_by_a_test')
"""


async def test_a_warm_session_keeps_nothing_that_a_test_has_set(fresh_database: RoleUrls) -> None:
    async with warm_connection(fresh_database.admin) as connection:
        before = await connection.fetchrow(HAS_LEFT)
        await connection.execute(LEFT)
        assert await connection.fetchrow(HAS_LEFT) != before
    async with warm_connection(fresh_database.admin) as connection:
        assert await connection.fetchrow(HAS_LEFT) == before, "the same process, as it was"


async def test_a_closed_warm_pool_serves_nobody_but_who_opens_one_alike(fresh_database: RoleUrls) -> None:
    closed = await WarmDatabase.connect(fresh_database.app, max_size=2)
    async with closed.acquire() as connection:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
    await closed.close()
    with pytest.raises(asyncpg.InterfaceError):
        async with closed.acquire():
            pass
    other, alike = [await WarmDatabase.connect(fresh_database.app, max_size=size) for size in (3, 2)]
    for database, warm in ((other, False), (alike, True)):
        async with database.acquire() as connection:
            assert (await connection.fetchval("SELECT pg_backend_pid()") == pid) is warm
        await database.close()


async def test_settings_of_a_database_count_though_its_sessions_are_warm(fresh_database: RoleUrls) -> None:
    await (await WarmDatabase.connect(fresh_database.worker)).close()
    async with warm_connection(fresh_database.admin) as connection:
        await MovedClock(connection).install()
    database = await WarmDatabase.connect(fresh_database.worker)
    async with database.acquire() as session:
        assert (await session.fetchval("SHOW search_path")).startswith("moved")
    await database.close()


async def test_a_warm_session_that_a_test_ended_is_followed_by_a_new_one(fresh_database: RoleUrls) -> None:
    await (await WarmDatabase.connect(fresh_database.worker)).close()
    async with warm_connection(fresh_database.admin) as kept:
        assert not kept.is_closed()
    connection = await asyncpg.connect(fresh_database.admin)
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
    database = await WarmDatabase.connect(fresh_database.worker)
    async with database.acquire() as session:
        assert await session.fetchval("SELECT 1") == 1
    await database.close()
    async with warm_connection(fresh_database.admin) as another:
        assert await another.fetchval("SELECT 1") == 1
