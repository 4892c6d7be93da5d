"""Migrations: numbered SQL files, each applied once, in order, in a transaction of its own. Forward only.

`python -m core.store.migrate` reads DATABASE_ADMIN_URL, or DATABASE_URL, and brings that database up to date.
"""

import asyncio
import hashlib
import itertools
import sys
import time
from dataclasses import dataclass
from importlib import resources

import asyncpg

from wire.environment import SettingsError, read_variable

_LOCK_KEY = 0x666C656574  # "fleet": one runner at a time

_GIVES_WAY_AFTER_MS = 300
"""How long a migration waits for a lock, and payments behind it. Below PostgreSQL's deadlock_timeout."""
_BUSY_LONGEST_S = 300.0
_PAUSE_S = 0.5

_BOOTSTRAP = """
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['fleet_owner', 'fleet_app', 'fleet_worker'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I %s NOCREATEDB NOCREATEROLE', role_name,
                               CASE role_name WHEN 'fleet_owner' THEN 'NOLOGIN' ELSE 'LOGIN' END);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- roles belong to the cluster: a run on another database made it just now
            END;
        END IF;
    END LOOP;
    IF NOT pg_has_role(current_user, 'fleet_owner', 'MEMBER') THEN
        EXECUTE format('GRANT fleet_owner TO %I', current_user);
    END IF;
    -- Planning a small statement over all partitions costs more than running it; one plan fits arrays of any length.
    ALTER ROLE fleet_app SET plan_cache_mode = force_generic_plan;
    ALTER ROLE fleet_worker SET plan_cache_mode = force_generic_plan;
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'fleet') THEN
        CREATE SCHEMA fleet AUTHORIZATION fleet_owner;
    END IF;
END $$;
"""

_REGISTER = """
CREATE TABLE IF NOT EXISTS fleet.schema_migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""


class MigrationError(RuntimeError):
    """The database and the files disagree; nothing was changed by the step that raised."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of the migrations folder."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """The SHA-256 of the text, by which an edited file is found out."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations() -> list[Migration]:
    """Return the migrations in order. Raises MigrationError when two share a number."""
    folder = resources.files("core.store") / "migrations"
    found = [
        Migration(int(entry.name[:4]), entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    found.sort(key=lambda migration: migration.version)
    for earlier, later in itertools.pairwise(found):
        if earlier.version == later.version:
            raise MigrationError(f"{earlier.name} and {later.name} share a number: renumber one")
    return found


async def migrate(admin_url: str, *, target: int | None = None) -> list[str]:
    """Bring the database to `target` (default: the newest) and return the names that were applied now.

    The admin creates the roles fleet_owner, fleet_app and fleet_worker where they are missing (passwords are
    not set here); every object belongs to fleet_owner. A superuser is not needed: CREATEROLE and CREATE on
    the database do. Raises MigrationError for a file that changed after it was applied, or that is gone, and where
    what runs beside it never lets go of a table.
    """
    connection = await asyncpg.connect(admin_url, statement_cache_size=0)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
        await connection.execute(_BOOTSTRAP)
        async with connection.transaction():
            await connection.execute("SET LOCAL ROLE fleet_owner")
            await connection.execute(_REGISTER)
            rows = await connection.fetch("SELECT version, name, checksum FROM fleet.schema_migrations")
        pending = _pending(load_migrations(), {row["version"]: row["checksum"] for row in rows}, target)
        for migration in pending:
            await _apply_beside_payments(connection, migration)
        return [migration.name for migration in pending]
    finally:
        await connection.close()


def _pending(files: list[Migration], applied: dict[int, str], target: int | None) -> list[Migration]:
    known = {migration.version: migration for migration in files}
    for version, checksum in applied.items():
        if version not in known:
            raise MigrationError(f"migration {version:04d} is applied and its file is gone: use a newer release")
        if known[version].checksum != checksum:
            raise MigrationError(f"{known[version].name} changed after it was applied: restore it")
    wanted = [m for m in files if m.version not in applied and (target is None or m.version <= target)]
    newest = max(applied, default=0)
    if wanted and wanted[0].version < newest:
        raise MigrationError(f"{wanted[0].name} is older than what is applied ({newest:04d}): give it a new number")
    return wanted


async def _apply_beside_payments(connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> None:
    """Apply it once its locks are to be had: it gives way and tries again, so that no payment is its deadlock's victim.

    Raises MigrationError where the tables stay busy for `_BUSY_LONGEST_S`; nothing of this migration was done then.
    """
    until_s = time.monotonic() + _BUSY_LONGEST_S
    while True:
        try:
            return await _apply(connection, migration)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            if time.monotonic() > until_s:
                text = f"{migration.name} got no lock within {_BUSY_LONGEST_S:.0f} s: end what holds it, and run again"
                raise MigrationError(text) from error
            await asyncio.sleep(_PAUSE_S)


async def _apply(connection: "asyncpg.Connection[asyncpg.Record]", migration: Migration) -> None:
    async with connection.transaction():
        # The journal takes entries of every tenant from members of the worker alone: one for this transaction only.
        lent = not await connection.fetchval("SELECT pg_has_role(session_user, 'fleet_worker', 'MEMBER')")
        if lent:
            await connection.execute("GRANT fleet_worker TO SESSION_USER")
        await connection.execute("SET LOCAL ROLE fleet_owner")
        await connection.execute("SET LOCAL search_path = pg_catalog; SET LOCAL fleet.every_tenant = 'on'")
        await connection.execute(f"SET LOCAL lock_timeout = {_GIVES_WAY_AFTER_MS}")
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO fleet.schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
            migration.version,
            migration.name,
            migration.checksum,
        )
        if lent:
            await connection.execute("SET LOCAL ROLE NONE; REVOKE fleet_worker FROM SESSION_USER")


def main() -> int:
    """Run the migrations on the database that the environment names; print one line for each."""
    try:
        url = read_variable("DATABASE_ADMIN_URL") or read_variable("DATABASE_URL")
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if not url:
        sys.stderr.write("set DATABASE_ADMIN_URL (or DATABASE_URL); its role must be able to create roles\n")
        return 2
    try:
        applied = asyncio.run(migrate(url))
    except MigrationError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.writelines(f"applied {name}\n" for name in applied or ["nothing: up to date"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
