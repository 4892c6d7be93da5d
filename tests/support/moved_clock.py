"""A database whose `now()` is what a test says: calendars are tried where they are read.

The name is resolved by the session's search path, and ours stands before PostgreSQL's own. Defaults of columns and
functions with a path of their own keep the real clock.
"""

from dataclasses import dataclass
from datetime import datetime

import asyncpg

_INSTALL = """
CREATE SCHEMA moved;
CREATE TABLE moved.clock (at timestamptz);
INSERT INTO moved.clock VALUES (NULL);
CREATE FUNCTION moved.now() RETURNS timestamptz LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
    AS 'SELECT coalesce(at, now()) FROM moved.clock';
GRANT USAGE ON SCHEMA moved TO PUBLIC;
"""


@dataclass(frozen=True, slots=True)
class MovedClock:
    """The clock of one database. Sessions that are opened after `install` read it."""

    admin: asyncpg.Connection

    async def install(self) -> None:
        """Put the clock before PostgreSQL's; it shows the real time until it is set."""
        await self.admin.execute(_INSTALL)
        name = await self.admin.fetchval("SELECT current_database()")
        await self.admin.execute(f'ALTER DATABASE "{name}" SET search_path = moved, pg_catalog')

    async def set(self, at: datetime) -> None:
        """Let transactions that begin from now on see this moment, until it is set again."""
        await self.admin.execute("UPDATE moved.clock SET at = $1", at)
