"""The log of events in PostgreSQL: read in one order that skips nothing, whatever order transactions commit in."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import orjson

from core.services.told.events import EventFilter, TenantChanges
from core.store.database import Database
from core.store.payments.sights import sees, sees_all
from core.store.unit_of_work import UnitOfWork
from schemas.events import EventView

_TOP: Final = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM fleet.event_positions"
# A number of its own, which is above every other that was given out before; a snapshot's xmax is not: it is next to the
# newest that has ended, and what is above it may be open.
_NEXT_TRANSACTION: Final = "SELECT pg_current_xact_id()::text::bigint"
_OLDEST_OPEN: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_MARKS_MAX: Final = 1000
_LOOK_AGAIN_S: Final = 0.005
_COLUMNS: Final = "e.position, e.intent_id, e.seq, e.type, e.state, e.at"
# Somebody listens for a little longer than it takes to say so again.
_WANTED: Final = """
SELECT setval('fleet.events_wanted_until', greatest(last_value, extract(epoch FROM now())::bigint + $1))
FROM fleet.events_wanted_until
"""
_CHANGED: Final = """
SELECT tenant_id, array_agg(DISTINCT intent_id) AS intents FROM fleet.intent_events
WHERE tenant_id = ANY ($1::uuid[]) AND position > $2 AND position <= $3 GROUP BY tenant_id
"""


class EventHorizon:
    """How far the log is settled: no transaction will yet add an event at or below it.

    A position is taken by a transaction that has its number already, and before it commits. So once all transactions
    have ended whose numbers were given out by when the sequence stood at V, all positions up to V are decided.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known = 0
        self._marks: deque[tuple[int, int]] = deque(maxlen=_MARKS_MAX)

    async def settled(self, wait_s: float = 0.25) -> int:
        """Return the horizon, after waiting for what is open now, at most `wait_s`; it never goes back."""
        async with self._database.acquire() as connection:
            # Two statements and two transactions: the second's number is younger than what the first has read.
            top: int = await connection.fetchval(_TOP)
            if top <= self._known:
                return self._known
            bound: int = await connection.fetchval(_NEXT_TRANSACTION)
            self._marks.append((top, bound))
            give_up = time.monotonic() + wait_s
            while True:
                self._confirm(await connection.fetchval(_OLDEST_OPEN))
                if self._known >= top or time.monotonic() >= give_up:
                    return self._known
                await asyncio.sleep(_LOOK_AGAIN_S)

    def _confirm(self, oldest_open: int) -> None:
        for top, bound in self._marks:
            if bound <= oldest_open:
                self._known = max(self._known, top)
        self._marks = deque((mark for mark in self._marks if mark[0] > self._known), maxlen=_MARKS_MAX)


class EventStore:
    """Events of the unit of work's tenant, oldest first."""

    async def events_of_intent(
        self, uow: UnitOfWork, intent_id: UUID, accounts: Sequence[UUID] | None, after: int, limit: int
    ) -> list[EventView]:
        """Return an intent's events behind a position. They are written under its lock: none is skipped."""
        conditions, values = ["e.intent_id = $1 AND e.position > $2"], [intent_id, after]
        return await _found(uow, conditions, values, accounts, "e.seq", limit)

    async def events_between(
        self, uow: UnitOfWork, wanted: EventFilter, after: int, upto: int, limit: int
    ) -> list[EventView]:
        """Return the tenant's events behind `after`, up to `upto`, that are wanted."""
        conditions = ["e.tenant_id = $1 AND e.position > $2 AND e.position <= $3"]
        values: list[Any] = [uow.context.tenant_id, after, upto]
        if wanted.types:
            values += [list(wanted.types), list(wanted.ends)]
            types, ends = len(values) - 1, len(values)
            conditions.append(f"(e.type = ANY (${types}::text[]) OR e.state = ANY (${ends}::text[]))")
        return await _found(uow, conditions, values, wanted.accounts, "e.position", limit)

    async def position_after(self, uow: UnitOfWork, after: int, upto: int, count: int) -> int:
        """Return the position of the tenant's `count`-th event behind `after`, or `upto` where there are fewer."""
        found: int | None = await uow.connection.fetchval(
            "SELECT position FROM fleet.intent_events WHERE tenant_id = $1 AND position > $2 AND position <= $3"
            " ORDER BY position OFFSET $4 LIMIT 1",
            uow.context.tenant_id,
            after,
            upto,
            count - 1,
        )
        return upto if found is None else found


class EventWatch:
    """What the hub asks for all who follow, under the worker role."""

    def __init__(self, database: Database) -> None:
        self._database, self._horizon = database, EventHorizon(database)

    async def settled(self) -> int:
        """Return how far the log is settled."""
        return await self._horizon.settled()

    async def want_wakes(self, for_s: int) -> None:
        """Ask every writer for a notification, for this long."""
        async with self._database.acquire() as connection:
            await connection.fetchval(_WANTED, for_s)

    async def changed(self, tenants: Sequence[UUID], after: int, upto: int) -> list[TenantChanges]:
        """Return the intents of these tenants that have events in between."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(_CHANGED, tenants, after, upto)
        return [TenantChanges(row["tenant_id"], frozenset(row["intents"])) for row in rows]


async def _found(
    uow: UnitOfWork,
    conditions: list[str],
    values: list[Any],
    accounts: Sequence[UUID] | None,
    order: str,
    limit: int,
) -> list[EventView]:
    """Return events; to who covers these accounts and gets the money alone, that it came, and not by whose hand.

    What one may see of an event never changes, so a place in the log stays what it was.
    """
    columns, join = f"{_COLUMNS}, e.actor, e.data", ""
    if accounts is not None:
        values = [*values, list(accounts)]
        own = f"ANY (${len(values)}::uuid[])"
        join = "JOIN fleet.intents i ON i.id = e.intent_id"
        conditions = [*conditions, sees(own, state="e.state", of="i.")]
        whole = sees_all(own, of="i.")
        columns = (
            f"{_COLUMNS}, CASE WHEN {whole} THEN e.actor ELSE '' END AS actor,"
            f" CASE WHEN {whole} THEN e.data ELSE '{{}}' END AS data"
        )
    rows = await uow.connection.fetch(
        f"SELECT {columns} FROM fleet.intent_events e {join} WHERE {' AND '.join(conditions)}"  # noqa: S608
        f" ORDER BY {order} LIMIT {int(limit)}",
        *values,
    )
    return [_event(row) for row in rows]


def _event(row: Any) -> EventView:
    return EventView(
        id=str(row["position"]),
        intent_id=row["intent_id"],
        seq=row["seq"],
        type=row["type"],
        state=row["state"],
        at=row["at"],
        actor=row["actor"],
        data=orjson.loads(row["data"]),
    )
