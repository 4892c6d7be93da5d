"""What operator commands share: a worker connection to PostgreSQL or an admin one to Redis, opened and closed once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.services.problems import Refusal
from core.store.database import Database
from fleet.cli.connection import Connection, find_connection, require
from fleet.cli.output import CommandError, ExitCode
from wire.client import connect_redis

T = TypeVar("T")


def with_database(work: Callable[[Database, Connection], Awaitable[T]], *also: str) -> T:
    """Run `work` under the worker role; `also` names further settings that it needs."""
    connection = find_connection()
    require(connection, "database_url", *also)

    async def run() -> T:
        try:
            database = await Database.connect(connection.database_url, max_size=2, application_name="fleet-cli")
        except (OSError, asyncpg.PostgresError) as error:
            raise _away("PostgreSQL", "DATABASE_WORKER_URL", error) from error
        try:
            return await work(database, connection)
        except Refusal as refused:
            raise CommandError(refused.code, refused.detail, ExitCode.REFUSED) from refused
        finally:
            await database.close()

    return asyncio.run(run())


def with_redis(work: Callable[["Redis", Connection], Awaitable[T]]) -> T:
    """Run `work` with the core's Redis client."""
    connection = find_connection()
    require(connection, "redis_url")

    async def run() -> T:
        client = connect_redis(connection.redis_url, "fleet-cli")
        try:
            return await work(client, connection)
        except (OSError, RedisError) as error:
            raise _away("Redis", "REDIS_URL", error) from error
        finally:
            await client.aclose()

    return asyncio.run(run())


def _away(server: str, variable: str, error: Exception) -> CommandError:
    return CommandError(
        "server_unreachable", f"{server} does not answer ({error}); check {variable}", ExitCode.UNREACHABLE
    )
