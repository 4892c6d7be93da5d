"""PostgreSQL as the stores need it: read committed, row locks that wait or skip, commits that may fail or lie."""

import asyncio
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from core.domain.context import Context
from core.domain.intents import IntentRow
from core.domain.jobs import JobRow
from tests.simulation.hosts import Clockwork, Host

Key = tuple[str, Any]
Tables = dict[str, dict[Any, Any]]

TABLES = (
    "intents",
    "jobs",
    "jobs_of",
    "dispatch",
    "outbox",
    "attempts",
    "claims",
    "facts",
    "alerts",
    "letters",
    "evidence",
    "keys",
    "registrations",
    "pauses",
    "epochs",
    "accounts",
    "transfers",
    "resolutions",
    "void_minutes",
)


class DatabaseError(Exception):
    """A fault that passes: nothing is known to be wrong with the items of the batch."""


class ConnectionLostError(DatabaseError):
    """The session is gone. A commit under way may have happened."""


class RolledBackError(DatabaseError):
    """The server rolled the transaction back."""


class DeadlockError(DatabaseError):
    """Two transactions wait for each other; this one is the victim."""


_PARTS = {kind: attrgetter(*(each.name for each in fields(kind))) for kind in (JobRow, IntentRow)}


def _copied(row: Any) -> Any:
    parts = _PARTS.get(type(row))
    return copy(row) if parts is None else type(row)(*parts(row))


@dataclass(slots=True)
class Database:
    """Committed rows, locks, and how often its sessions were cut."""

    world: Clockwork
    tables: Tables = field(default_factory=lambda: {name: {} for name in TABLES})
    locks: dict[Key, "Transaction"] = field(default_factory=dict)
    waiting: dict[Key, list[asyncio.Future[None]]] = field(default_factory=dict)
    open_jobs: dict[UUID, None] = field(default_factory=dict)
    watchers: list[Callable[[dict[Key, Any]], None]] = field(default_factory=list)
    generation: int = 0
    deadlocks: int = 0
    commits: int = 0

    def snapshot(self) -> Tables:
        """Return a backup of what is committed."""
        return {name: dict(rows) for name, rows in self.tables.items()}

    def restore(self, backup: Tables) -> None:
        """Become the backup: every session is cut, what was committed since is gone."""
        self.tables = {name: dict(rows) for name, rows in backup.items()}
        jobs = self.tables["jobs"]
        self.open_jobs = {job_id: None for job_id, job in jobs.items() if job.closed_at is None}
        self.generation += 1
        held, self.locks = list(self.locks), {}
        for key in held:
            self.wake(key)

    def wake(self, key: Key) -> None:
        """Let those who wait for the lock look again."""
        for waiter in self.waiting.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)

    def publish(self, writes: dict[Key, Any]) -> None:
        """Make a transaction's writes what everybody sees."""
        self.commits += 1
        for (table, key), row in writes.items():
            rows = self.tables[table]
            if row is None:
                rows.pop(key, None)
            elif table == "jobs_of":
                rows[key] = tuple(dict.fromkeys((*rows.get(key, ()), *row)))
            else:
                rows[key] = row
            if table == "jobs" and row is not None:
                if row.closed_at is None:
                    self.open_jobs[key] = None
                else:
                    self.open_jobs.pop(key, None)
        for watch in self.watchers:
            watch(writes)


class Transaction:
    """A unit of work of one host. What it writes others see after its commit."""

    def __init__(self, database: Database, host: Host, context: Context) -> None:
        self.database, self.host, self.context = database, host, context
        self._writes: dict[Key, Any] = {}
        self._locks: list[Key] = []
        self._waits_for: Key | None = None
        self._generation = database.generation
        self.began_at = host.world.now

    @property
    def now(self) -> datetime:
        """`now()`: when the transaction began."""
        return self.began_at

    @property
    def clock(self) -> datetime:
        """`clock_timestamp()`."""
        return self.host.world.now

    async def __aenter__(self) -> Self:
        await self.host.step()
        self._generation, self.began_at = self.database.generation, self.host.world.now
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._release()
            return
        try:
            await self._commit()
        finally:
            self._release()
        await self.host.step()

    async def step(self) -> None:
        """Send one statement. Raises ConnectionLostError where the session is gone."""
        await self.host.step()
        if self._generation != self.database.generation:
            raise ConnectionLostError("the server was restored")

    def get(self, table: str, key: Any) -> Any:
        """Return a row as this transaction sees it, None where there is none. It is the caller's to change."""
        row = self._writes[table, key] if (table, key) in self._writes else self.database.tables[table].get(key)
        return _copied(row)

    def look(self, table: str, key: Any) -> Any:
        """Return a row to be read only."""
        return self._writes[table, key] if (table, key) in self._writes else self.database.tables[table].get(key)

    def rows(self, table: str) -> dict[Any, Any]:
        """Return all rows of a small table, to be read only."""
        seen = dict(self.database.tables[table])
        for (name, key), row in self._writes.items():
            if name == table:
                if row is None:
                    seen.pop(key, None)
                else:
                    seen[key] = row
        return seen

    def put(self, table: str, key: Any, row: Any) -> None:
        """Write a row; None deletes it. Rows that two could write are locked by the caller."""
        self._writes[table, key] = row

    def append(self, table: str, key: Any, item: Any) -> None:
        """Add an item to a tuple of rows under one key, once."""
        found = self.look(table, key) or ()
        if item not in found:
            self.put(table, key, (*found, item))

    async def lock(self, table: str, keys: Sequence[Any]) -> None:
        """Lock rows in the order given, waiting for their holders. Raises DeadlockError."""
        for key in keys:
            await self._lock((table, key))

    def try_lock(self, table: str, key: Any) -> bool:
        """Lock a row unless another holds it: SKIP LOCKED."""
        holder = self.database.locks.get((table, key))
        if holder is None:
            self.database.locks[table, key] = self
            self._locks.append((table, key))
        return holder is None or holder is self

    async def _lock(self, key: Key) -> None:
        database = self.database
        while (holder := database.locks.get(key)) is not self:
            if holder is None:
                database.locks[key] = self
                self._locks.append(key)
                return
            self._refuse_deadlock(key, holder)
            waiter: asyncio.Future[None] = database.world.loop.create_future()
            database.waiting.setdefault(key, []).append(waiter)
            self._waits_for = key
            try:
                await waiter
            finally:
                self._waits_for = None
            if self._generation != database.generation:
                raise ConnectionLostError("the server was restored")

    def _refuse_deadlock(self, key: Key, holder: "Transaction | None") -> None:
        chain = f"wants {key[0]} {key[1]}"
        while holder is not None and holder._waits_for is not None:
            chain += f" of {holder.host.name}, who wants {holder._waits_for[0]} {holder._waits_for[1]}"
            holder = self.database.locks.get(holder._waits_for)
            if holder is self:
                self.database.deadlocks += 1
                self.host.world.note(self.host.name, f"{chain}: a deadlock")
                raise DeadlockError("two transactions wait for each other")

    async def _commit(self) -> None:
        await self.step()
        world = self.host.world
        if world.happens(world.rates.rollback):
            world.note(self.host.name, "its transaction is rolled back")
            raise RolledBackError("the server rolled back")
        unknown = world.happens(world.rates.commit_unknown)
        if unknown and world.chance.random() < 0.5:
            world.note(self.host.name, "loses its connection before the commit")
            raise ConnectionLostError("before the commit")
        if self._writes:
            self.database.publish(self._writes)
        if unknown:
            world.note(self.host.name, "loses its connection after the commit")
            raise ConnectionLostError("after the commit")

    def _release(self) -> None:
        locks = self.database.locks
        for key in self._locks:
            if locks.get(key) is self:
                del locks[key]
                self.database.wake(key)
        self._locks.clear()
