"""Sessions of lent databases that serve one test after another: the first use of a session costs most of a test.

A new one reads the catalogue, compiles the functions and plans every statement: most of what PostgreSQL did in a run
was that. Whatever a test set in a session is undone before the next test gets it.
"""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Self
from unittest.mock import patch
from urllib.parse import urlsplit

import asyncpg

from core import bootstrap
from core.bootstrap import Core, open_core
from core.settings import Settings
from core.store.database import AWAY, Database
from fleet.stack.provision import RoleUrls

_Key = tuple[Any, ...]
_Sessions = asyncpg.Pool | asyncpg.Connection

_idle: dict[str, list[tuple[_Key, _Sessions]]] = {}
"""By lent database, what nobody uses, and how it was opened. No database that is not in here has warm sessions."""

_loops: set[asyncio.AbstractEventLoop] = set()
"""The loops that lend: the sessions' only lives as long as the run, and some tests have one of their own."""

_SETTINGS = """
SELECT EXISTS (SELECT FROM pg_db_role_setting
                WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
"""Whether a test gave its database settings: they count for new sessions alone."""


class WarmDatabase(Database):
    """A pool that stays open on a lent database for whoever opens one alike there; elsewhere it is like any."""

    _key: _Key | None = None

    @classmethod
    async def connect(cls, url: str, **options: Any) -> Self:
        """Return a pool that a test before has closed, or a new one."""
        key = _key(url, **options)
        pool = await _take(url, key)
        made = cls(pool) if isinstance(pool, asyncpg.Pool) else await super().connect(url, **options)
        made._key = key
        return made

    async def close(self) -> None:
        """Wait for the connections in use; who goes on working with this pool meets a closed one."""
        pool, self._pool = self._pool, asyncpg.create_pool()
        await asyncio.gather(*(holder.wait_until_released() for holder in _holders(pool)))
        if self._key is None or not _keep(self._key, pool):
            await pool.close()


def warm_settings(urls: RoleUrls) -> Settings:
    """Return what a core on this database needs; it has no streams.

    So many transactions at a time let payments at once under keys of their own meet in the locks of the database.
    """
    return Settings(
        DATABASE_URL=urls.app,
        DATABASE_WORKER_URL=urls.worker,
        REDIS_URL="redis://127.0.0.1:1/0",
        master_key=base64.b64encode(os.urandom(32)).decode(),
        accept_in_flight=8,
    )


@asynccontextmanager
async def warm_core(settings: Settings) -> AsyncIterator[Core]:
    """Open a core whose pools are warm."""
    async with AsyncExitStack() as stack:
        with patch.object(bootstrap, "Database", WarmDatabase):
            core = await stack.enter_async_context(open_core(settings))
        yield core


@asynccontextmanager
async def warm_connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Open one connection."""
    key = _key(url)
    connection = await _take(url, key)
    if not isinstance(connection, asyncpg.Connection) or connection.is_closed():
        connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        if connection.is_closed() or not _keep(key, connection):
            await connection.close()


def lent(name: str) -> None:
    """Let this database's sessions serve one test after another."""
    _idle.setdefault(name, [])
    _loops.add(asyncio.get_running_loop())


def idle_pids(name: str) -> list[int]:
    """Return the processes of the server that wait for the database's next test."""
    return [each.get_server_pid() for _, kept in _idle.get(name, []) for each in _connections(kept)]


async def end(name: str) -> None:
    """End the database's idle sessions; it keeps none from now on."""
    for _, kept in _idle.pop(name, []):
        await kept.close()


def _key(url: str, **options: Any) -> _Key:
    # Connections belong to the loop that opened them: some tests have one of their own.
    return (url, asyncio.get_running_loop(), *sorted(options.items()))


def _name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


async def _take(url: str, key: _Key) -> _Sessions | None:
    """Return idle sessions that were opened so, as if they were new."""
    idle = _idle.get(_name(url), [])
    for place, (known, kept) in enumerate(idle):
        if known == key:
            del idle[place]
            with suppress(*AWAY):  # a test ended them
                if await _as_new(kept):
                    return kept
            await kept.close()
            return None
    return None


async def _as_new(kept: _Sessions) -> bool:
    for each in _connections(kept):
        # Plans stay, as in a process that has worked for a while; what a test filled and analysed is planned anew.
        await each.reset()
        await each.execute("DISCARD TEMP; DISCARD SEQUENCES")
        if await each.fetchval(_SETTINGS):
            return False
    return True


def _keep(key: _Key, sessions: _Sessions) -> bool:
    idle = _idle.get(_name(key[0]))
    if idle is None or key[1] not in _loops:
        return False
    idle.append((key, sessions))
    return True


def _connections(kept: _Sessions) -> Iterator[asyncpg.Connection]:
    every = [holder._con for holder in _holders(kept)] if isinstance(kept, asyncpg.Pool) else [kept]
    yield from (each for each in every if each is not None and not each.is_closed())


def _holders(pool: asyncpg.Pool) -> list[Any]:
    holders: list[Any] = pool._holders  # type: ignore[attr-defined]  # the stubs know only what is public
    return holders
