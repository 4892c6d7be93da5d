"""Waiting until a writer waits, and functions of the database with a lock of theirs taken out."""

import asyncio

import asyncpg

from core.store.database import Database
from tests.support.waiting import PATIENCE_S


async def somebody_waits(database: Database, count: int = 1) -> None:
    """Return when so many statements wait for a lock: the server tells nobody when one begins to."""
    async with asyncio.timeout(PATIENCE_S), database.acquire() as watcher:
        while not await watcher.fetchval(
            "SELECT pg_sleep(0.01) IS NULL OR count(*) >= $1 FROM pg_locks WHERE NOT granted", count
        ):
            pass


async def without(connection: asyncpg.Connection, function: str, clause: str, instead: str = "") -> None:
    """Let a function stand without a clause, which it must have: what a test sees then is the clause's doing."""
    text: str = await connection.fetchval("SELECT pg_get_functiondef($1::text::regproc)", function)
    assert clause in text, f"{function} has no {clause}"
    await connection.execute(text.replace(clause, instead, 1))
