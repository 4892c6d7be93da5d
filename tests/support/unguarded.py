"""Losing rows that the database does not give up: what a restore of half a backup, or a fault of ours, would leave."""

from typing import Any

import asyncpg


async def without_guards(connection: asyncpg.Connection, statement: str, *arguments: Any) -> None:
    """Run one statement as a superuser for whom no trigger fires."""
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(statement, *arguments)
