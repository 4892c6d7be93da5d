"""Migrated databases for tests: copied from a template once, emptied between tests, thrown away where they changed.

A copy makes some 600 files and removes them again, which took most of the time of a run; a test touches few tables.
"""

import io
import secrets
from dataclasses import dataclass, field

import asyncpg

from fleet.stack.provision import RoleUrls, Secrets, create_database, drop_database, role_urls, with_database
from tests.support import warm_sessions

# Everything that a statement of DDL touches. What it writes has the newest transaction, what it removes is missing in
# the count: ten thousand rows need not be named one by one. TRUNCATE writes pg_class as well, so of that table only
# what no TRUNCATE changes counts.
SHAPE = """
WITH ours AS (SELECT oid FROM pg_class WHERE relnamespace NOT IN
                (SELECT oid FROM pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema', 'pg_toast')))
SELECT md5(string_agg(line, ';' ORDER BY line)) FROM (
    SELECT concat_ws(',', 'class', oid, relname, relnamespace, relkind, relowner, relacl, relrowsecurity,
                     relforcerowsecurity, relispartition, reloptions, relpersistence, relnatts) AS line
      FROM pg_class WHERE oid IN (SELECT oid FROM ours)
    UNION ALL SELECT concat_ws(',', 'attribute', count(*), max(xmin::text::bigint)) FROM pg_attribute
      WHERE attrelid IN (SELECT oid FROM ours)
    UNION ALL SELECT concat_ws(',', 'default', count(*), max(xmin::text::bigint)) FROM pg_attrdef
    UNION ALL SELECT concat_ws(',', 'constraint', count(*), max(xmin::text::bigint)) FROM pg_constraint
    UNION ALL SELECT concat_ws(',', 'trigger', count(*), max(xmin::text::bigint)) FROM pg_trigger
    UNION ALL SELECT concat_ws(',', 'policy', count(*), max(xmin::text::bigint)) FROM pg_policy
    UNION ALL SELECT concat_ws(',', 'function', count(*), max(xmin::text::bigint)) FROM pg_proc
    UNION ALL SELECT concat_ws(',', 'type', count(*), max(xmin::text::bigint)) FROM pg_type
    UNION ALL SELECT concat_ws(',', 'schema', oid, xmin) FROM pg_namespace
    UNION ALL SELECT concat_ws(',', 'extension', oid, xmin) FROM pg_extension
    UNION ALL SELECT concat_ws(',', 'privileges', oid, xmin) FROM pg_default_acl
    UNION ALL SELECT concat_ws(',', 'setting', setrole, setconfig) FROM pg_db_role_setting
      WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS lines(line)
"""

_TABLES = "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'fleet'::regnamespace AND relkind = 'r'"

_GROWN_BYTES = 1024 * 1024
"""A table that is larger, by rows that are there or were, is truncated: deleted rows leave their room behind."""

_SEQUENCES = "SELECT seqrelid::regclass::text FROM pg_sequence"

_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND pid <> ALL ($1)
"""


@dataclass
class _Template:
    """A migrated database, what is in its tables, and the shape that its copies must still have."""

    name: str
    shape: str
    rows: dict[str, bytes]
    sequences: list[str]
    filled: str
    """The statement that names the tables that hold rows."""


@dataclass
class Databases:
    """Lends databases that are as the migrations left them. One at a time holds each."""

    server_url: str
    role_secrets: Secrets
    template: _Template
    free: list[str] = field(default_factory=list)
    _keepers: dict[str, asyncpg.Connection] = field(default_factory=dict)
    """By database, the connection that empties it: one that has done so before does it in a third of the time."""

    async def lend(self) -> tuple[str, RoleUrls]:
        """Return the name of a database and its URLs."""
        if self.free:
            name = self.free.pop()
        else:
            name = f"fleet_test_{secrets.token_hex(6)}"
            await create_database(self.server_url, name, template=self.template.name)
            warm_sessions.lent(name)
        return name, role_urls(with_database(self.server_url, name), self.role_secrets)

    async def take_back(self, name: str) -> None:
        """End the sessions that a test left, and empty the database; drop it where its schema was changed."""
        try:
            unchanged = await self._put_right(name)
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError):
            self._keepers.pop(name).terminate()  # a test ended every session, ours among them
            unchanged = await self._put_right(name)
        if unchanged:
            self.free.append(name)
        else:
            await self._keepers.pop(name).close()
            await warm_sessions.end(name)
            await drop_database(self.server_url, name)

    async def close(self) -> None:
        """End the connections that are kept and drop every database that is not lent."""
        for keeper in self._keepers.values():
            await keeper.close()
        for name in self.free:
            await warm_sessions.end(name)
            await drop_database(self.server_url, name)

    async def _put_right(self, name: str) -> bool:
        """Empty the database, and say so, if its schema is the template's."""
        if name not in self._keepers:
            # Triggers guard history against TRUNCATE; none of them fires for a replica. Said once: each change of it
            # makes the server plan all that the connection has prepared anew.
            self._keepers[name] = await asyncpg.connect(
                with_database(self.server_url, name), server_settings={"session_replication_role": "replica"}
            )
        keeper = self._keepers[name]
        await keeper.execute(_END_SESSIONS, warm_sessions.idle_pids(name))
        unchanged = bool(await keeper.fetchval(SHAPE) == self.template.shape)
        if unchanged:
            await self._empty(keeper)
        return unchanged

    async def _empty(self, connection: asyncpg.Connection) -> None:
        async with connection.transaction():
            filled = {row["name"]: row["bytes"] for row in await connection.fetch(self.template.filled)}
            grown = {name for name, size_bytes in filled.items() if size_bytes > _GROWN_BYTES}
            if grown:
                await connection.execute(f"TRUNCATE {', '.join(sorted(grown))} CASCADE")
            # TRUNCATE makes new files for a table, each index and whatever refers to it, which is nearly everything:
            # some rows are deleted in a tenth of that time.
            few = (filled.keys() | self.template.rows.keys()) - grown
            await connection.execute("; ".join(f"DELETE FROM {name}" for name in sorted(few)))
            for name, rows in self.template.rows.items():
                schema, _, table = name.partition(".")
                await connection.copy_to_table(table, schema_name=schema, source=io.BytesIO(rows))
            for statement in self.template.sequences:
                await connection.execute(statement)


async def open_databases(server_url: str, role_secrets: Secrets, template: str) -> Databases:
    """Read what the migrated database `template` holds. Nobody may be connected to it afterwards."""
    connection = await asyncpg.connect(with_database(server_url, template))
    try:
        tables = [row[0] for row in await connection.fetch(_TABLES)]
        parts = [
            f"SELECT '{table}' AS name, pg_relation_size('{table}') AS bytes WHERE EXISTS (SELECT FROM {table})"
            for table in tables
        ]
        filled = " UNION ALL ".join(parts)
        rows: dict[str, bytes] = {}
        for row in await connection.fetch(filled):
            schema, _, table = row["name"].partition(".")
            copied = io.BytesIO()
            await connection.copy_from_table(table, schema_name=schema, output=copied)
            rows[row["name"]] = copied.getvalue()
        sequences = []
        for (name,) in await connection.fetch(_SEQUENCES):
            text = f"SELECT format('SELECT setval(%L, %s, %L)', '{name}', last_value, is_called) FROM {name}"
            sequences.append(await connection.fetchval(text))
        shape = await connection.fetchval(SHAPE)
    finally:
        await connection.close()
    return Databases(server_url, role_secrets, _Template(template, shape, rows, sequences, filled))
