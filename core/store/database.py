"""The pool of PostgreSQL connections and the unit of work: one transaction of one tenant.

No session state is left on a connection: the tenant is set for the transaction alone, nothing listens and
nothing is prepared by hand. A transaction pooler works with `statement_cache_size=0`.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Self

import asyncpg

from core.domain.context import Context
from core.store.codecs import teach
from core.store.slow_queries import telling_connections
from core.store.unit_of_work import UnitOfWork
from core.telemetry.catalogue import POOL

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    from core.store.unit_of_work import Connection

__all__ = ["AWAY", "Database", "UnitOfWork"]

AWAY: tuple[type[Exception], ...] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)
"""Errors that say that the server is away or restarting: nobody's fault, and worth a repeat."""


BEHIND_LONGEST_MS: Final = 1_500
"""How long a transaction waits for the one that it stands behind: it holds a connection that others need."""


class Database:
    """A pool of connections as one role. Built by `connect`, ended by `close`."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        min_size: int = 1,
        max_size: int = 10,
        statement_cache_size: int = 256,
        application_name: str = "psp-fleet",
        slow_query_s: float = 0,
    ) -> Self:
        """Open the pool with `min_size` warm connections.

        Raises OSError or asyncpg.PostgresError when the server does not take them.
        """
        pool = await asyncpg.create_pool(
            url,
            min_size=min_size,
            max_size=max_size,
            statement_cache_size=statement_cache_size,
            server_settings={"application_name": application_name},
            connection_class=telling_connections(application_name, slow_query_s)
            if slow_query_s
            else asyncpg.Connection,
            init=_learn_types,
            reset=_leave_as_it_is,
        )
        POOL.labels(application_name, "open").set_function(pool.get_size)
        POOL.labels(application_name, "idle").set_function(pool.get_idle_size)
        return cls(pool)

    async def close(self) -> None:
        """Wait for the connections in use, then end them all."""
        await self._pool.close()

    def acquire(self) -> "AbstractAsyncContextManager[PoolConnectionProxy[asyncpg.Record]]":
        """Lend a connection outside any transaction, for reads that need no tenant."""
        return self._pool.acquire()

    @asynccontextmanager
    async def unit_of_work(
        self, context: Context, *, durable: bool = True, behind: str | None = None
    ) -> AsyncIterator[UnitOfWork]:
        """BEGIN, confine the transaction to the context's tenant, COMMIT; ROLLBACK when the body raises.

        What is not `durable` may be lost by a crash of the server within a moment after its commit. Of transactions
        that stand `behind` the same name one runs at a time: a repeat sees what the first one did, and one that waits
        for `BEHIND_LONGEST_MS` ends with asyncpg.LockNotAvailableError.
        """
        begin = "BEGIN" if durable else "BEGIN; SET LOCAL synchronous_commit = off"
        if behind is not None:
            # Never a number that the caller chose: all locks of this kind share one space.
            number = int.from_bytes(blake2b(behind.encode(), digest_size=8).digest(), signed=True)
            begin += (
                f"; SET LOCAL lock_timeout = {BEHIND_LONGEST_MS}; SELECT pg_advisory_xact_lock({number})"
                "; SET LOCAL lock_timeout TO DEFAULT"
            )
        if context.tenant_id is not None:
            # In the same round trip; the text of a UUID holds nothing to escape. The actor is for the audit journal.
            actor = context.actor.replace("'", "''")
            begin += f"; SET LOCAL fleet.tenant = '{context.tenant_id}'; SET LOCAL fleet.actor = '{actor}'"
        async with self._pool.acquire() as connection:
            try:
                await connection.execute(begin)
                uow = UnitOfWork(connection, context)
                yield uow
                await uow.finish()
                if uow.closing:
                    await connection.execute(f"{uow.closing}; COMMIT")
                    return
            except BaseException:
                if not connection.is_closed():
                    await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    @asynccontextmanager
    async def looking(self, context: Context) -> AsyncIterator[UnitOfWork]:
        """Lend a unit of work in which each statement is a transaction of its own: a third of the round trips.

        For looks that nearly always find nothing, and for single writes. What a look has found is locked no longer: it
        is taken in a unit of work. Raises ValueError for a tenant's context, to which nothing would be confined.
        """
        if context.tenant_id is not None:
            raise ValueError("a look is confined to no tenant")
        async with self._pool.acquire() as connection:
            uow = UnitOfWork(connection, context)
            yield uow
            await uow.finish()

    async def value_alone(self, context: Context, expression: str, *arguments: Any) -> Any:
        """Return the value of one SQL expression, a transaction of its own: one round trip where a unit of work has
        three. It is confined to the context's tenant in the same way.
        """
        own = len(arguments)
        # A select list is evaluated from the left.
        text = (
            f"SELECT set_config('fleet.tenant', ${own + 1}, true), set_config('fleet.actor', ${own + 2}, true),"
            f" {expression}"
        )
        async with self._pool.acquire() as connection:
            return await connection.fetchval(text, *arguments, str(context.tenant_id or ""), context.actor, column=2)


async def _learn_types(connection: "Connection") -> None:
    """Ask for the types of arrays now: at their first use it would be in the middle of somebody's payment."""
    teach(connection)
    await connection.fetchrow(
        "SELECT NULL::boolean[], NULL::smallint[], NULL::timestamptz[], NULL::interval[], NULL::jsonb[]"
    )


async def _leave_as_it_is(_: "Connection") -> None:
    """A connection comes back without session state: its transaction ended, and nothing else was set."""
