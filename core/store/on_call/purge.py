"""Losing old rows in PostgreSQL: by functions of the database alone, for no process has the right to delete them."""

from datetime import datetime

import asyncpg

from core.services.on_call.purge import Month
from core.store.unit_of_work import UnitOfWork


class PurgeStore:
    """See `core.services.on_call.purge.Losing`."""

    async def now(self, uow: UnitOfWork) -> datetime:
        """Return the database's time, by which ages count."""
        now: datetime = await uow.connection.fetchval("SELECT now()")
        return now

    async def count(self, uow: UnitOfWork, kind: str, before: datetime, most: int) -> int:
        """Return how many rows of a kind would go."""
        return int(await uow.connection.fetchval("SELECT fleet.purge($1, $2, $3, false)", kind, before, most))

    async def lose(self, uow: UnitOfWork, kind: str, before: datetime, most: int) -> int:
        """Delete so many rows at most; rows that somebody has locked are left for the next time."""
        return int(await uow.connection.fetchval("SELECT fleet.purge($1, $2, $3, true)", kind, before, most))

    async def old_months(self, uow: UnitOfWork, before: datetime) -> list[Month]:
        """Return the months of events that lie before a time, the oldest first."""
        rows = await uow.connection.fetch("SELECT month, kept_because FROM fleet.old_event_months($1)", before)
        return [Month(row["month"], row["kept_because"] or "") for row in rows]

    async def lose_month(self, uow: UnitOfWork, month: str, before: datetime) -> bool:
        """Detach and drop a month's partition; False where its table was in use for too long."""
        await uow.connection.execute("SAVEPOINT before_month")
        try:
            await uow.connection.execute("SELECT fleet.lose_event_month($1, $2)", month, before)
        except asyncpg.LockNotAvailableError:
            await uow.connection.execute("ROLLBACK TO SAVEPOINT before_month")
            return False
        return True
