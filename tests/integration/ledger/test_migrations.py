"""Migrations run once, in order, by one runner at a time, and say so when files and database disagree."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from core.store import migrate as runner
from core.store.migrate import MigrationError, load_migrations, migrate
from fleet.stack.provision import create_database, drop_database
from schemas.ids import mint_id


@pytest.fixture
async def empty_url(postgres_url: str) -> AsyncIterator[str]:
    """The administrator's URL of a database with nothing in it."""
    name = f"fleet_empty_{secrets.token_hex(4)}"
    yield await create_database(postgres_url, name)
    await drop_database(postgres_url, name)


async def _applied(url: str) -> list[tuple[int, str]]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT version, name FROM fleet.schema_migrations ORDER BY version")
        return [(row["version"], row["name"]) for row in rows]
    finally:
        await connection.close()


async def test_each_file_is_applied_once_and_belongs_to_the_owner(empty_url: str) -> None:
    names = [migration.name for migration in load_migrations()]
    assert await migrate(empty_url) == names
    assert await migrate(empty_url) == []
    assert [name for _, name in await _applied(empty_url)] == names
    connection = await asyncpg.connect(empty_url)
    try:
        owners = await connection.fetch(
            "SELECT DISTINCT pg_get_userbyid(relowner) AS name FROM pg_class WHERE relnamespace = 'fleet'::regnamespace"
            " UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'fleet'::regnamespace"
        )
        assert [row["name"] for row in owners] == ["fleet_owner"]
        roles = await connection.fetch(
            "SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname IN ('fleet_owner', 'fleet_app', 'fleet_worker')"
            " AND NOT rolsuper AND NOT rolbypassrls AND NOT rolcreaterole AND NOT rolcreatedb"
        )
        assert {row["rolname"]: row["rolcanlogin"] for row in roles} == {
            "fleet_owner": False,
            "fleet_app": True,
            "fleet_worker": True,
        }
    finally:
        await connection.close()


async def test_two_runners_at_once_apply_each_file_once(empty_url: str) -> None:
    both = await asyncio.gather(migrate(empty_url), migrate(empty_url))
    assert sorted(both, key=len) == [[], [migration.name for migration in load_migrations()]]


async def test_a_migration_gives_way_to_what_uses_its_table_and_names_what_is_never_let_go(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = next(m for m in reversed(load_migrations()) if "ALTER TABLE fleet.routes" in m.sql)
    await migrate(empty_url, target=newest.version - 1)
    before = await _applied(empty_url)
    holder, other = await asyncpg.connect(empty_url), await asyncpg.connect(empty_url)
    try:
        held = holder.transaction()
        await held.start()
        await holder.execute("LOCK TABLE fleet.routes IN ROW EXCLUSIVE MODE")
        with monkeypatch.context() as patched:
            patched.setattr(runner, "_BUSY_LONGEST_S", 0.5)
            with pytest.raises(MigrationError, match=f"{newest.name} got no lock"):
                await migrate(empty_url, target=newest.version)
        assert await _applied(empty_url) == before
        migrating = asyncio.create_task(migrate(empty_url, target=newest.version))
        for _ in range(20):
            # Behind a migration that waited without end, this would wait without end.
            await other.fetchval("SELECT count(*) FROM fleet.routes", timeout=1)
            await asyncio.sleep(0.05)
        assert not migrating.done()
        await held.commit()
        assert await migrating == [newest.name]
    finally:
        await holder.close()
        await other.close()


async def test_a_target_stops_there_and_the_rest_follows(empty_url: str) -> None:
    names = [migration.name for migration in load_migrations()]
    assert await migrate(empty_url, target=1) == names[:1]
    assert await migrate(empty_url) == names[1:]


async def test_an_administrator_who_is_no_superuser_upgrades_a_database_with_open_letters(empty_url: str) -> None:
    tenant, job, role = uuid4(), mint_id(time.time_ns() // 1_000_000), f"admin_{secrets.token_hex(4)}"
    await migrate(empty_url, target=1)  # the roles belong to the cluster, and may be missing in it
    superuser = await asyncpg.connect(empty_url)
    try:
        await superuser.execute(f"CREATE ROLE {role} LOGIN CREATEROLE PASSWORD 'of-the-test'")
        database = await superuser.fetchval("SELECT current_database()")
        await superuser.execute(f'GRANT CREATE ON DATABASE "{database}" TO {role}')
        if superuser.get_server_version() >= (16,):
            # There nobody grants what is not theirs to grant, and whoever creates a role has this by that.
            for name in ("fleet_owner", "fleet_app", "fleet_worker"):
                await superuser.execute(f"GRANT {name} TO {role} WITH ADMIN OPTION")
        parts = urlsplit(empty_url)
        url = parts._replace(netloc=f"{role}:of-the-test@{parts.netloc.rpartition('@')[2]}").geturl()
        await migrate(url, target=88)
        await superuser.execute(
            "INSERT INTO fleet.jobs (id, tenant_id, intent_id, kind, operation, rail, provider, provider_account,"
            " environment, reference, amount_minor, currency, deadline, stream, closed_at) VALUES ($1, $2, $1, 'pay',"
            " 'PAYOUT', 'bank', 'p', 'main', 'sandbox', 'R1', 1, 'THB', now(), '{bank}:jobs', now())", job, tenant
        )  # fmt: skip
        await superuser.execute(
            "INSERT INTO fleet.dead_letters (id, tenant_id, stream, entry_id, rail, job_id, error_class, fingerprint,"
            " message, deliveries, body) VALUES ($1, $2, '{bank}:jobs', '1-0', 'bank', $1, 'poison', 'f', 'm', 3, '')",
            job, tenant,
        )  # fmt: skip
        assert (await migrate(url))[0].startswith("0089")
        assert await superuser.fetchval("SELECT state FROM fleet.dead_letters") == "CLOSED"
        told = await superuser.fetch("SELECT tenant_id, action FROM fleet.audit_entries WHERE action = 'letter_closed'")
        assert [tuple(each) for each in told] == [(tenant, "letter_closed")]
        # What the journal wanted was lent for the time of each file where the role had it not.
        own = superuser.get_server_version() >= (16,)
        assert await superuser.fetchval("SELECT pg_has_role($1, 'fleet_worker', 'MEMBER')", role) is own
    finally:
        await superuser.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await superuser.close()


async def test_an_edited_file_is_refused_and_nothing_is_applied(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = load_migrations()
    await migrate(empty_url, target=1)
    monkeypatch.setattr(runner, "load_migrations", lambda: [replace(files[0], sql=files[0].sql + " "), *files[1:]])
    with pytest.raises(MigrationError, match="changed after it was applied"):
        await migrate(empty_url)
    assert len(await _applied(empty_url)) == 1


async def test_a_database_of_a_newer_release_is_refused(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = load_migrations()
    await migrate(empty_url)
    monkeypatch.setattr(runner, "load_migrations", lambda: files[:-1])
    with pytest.raises(MigrationError, match="its file is gone"):
        await migrate(empty_url)


async def test_a_number_older_than_what_is_applied_is_refused(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = load_migrations()
    monkeypatch.setattr(runner, "load_migrations", lambda: [files[0], *files[2:]])
    # Without the second file the third does not fit: what was applied before it stays.
    with pytest.raises(asyncpg.PostgresError):
        await migrate(empty_url)
    assert await _applied(empty_url) == [(1, files[0].name)]
    late = replace(files[1], version=0, name="0000_late", sql="SELECT 1")
    monkeypatch.setattr(runner, "load_migrations", lambda: [late, files[0]])
    with pytest.raises(MigrationError, match="give it a new number"):
        await migrate(empty_url)


async def test_a_step_that_fails_leaves_nothing_of_itself(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = load_migrations()
    broken = replace(files[1], sql="CREATE TABLE fleet.half (id int); SELECT 1/0")
    monkeypatch.setattr(runner, "load_migrations", lambda: [files[0], broken])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_url)
    monkeypatch.undo()
    assert await migrate(empty_url) == [migration.name for migration in files[1:]]
