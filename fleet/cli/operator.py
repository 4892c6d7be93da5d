"""What operator commands share: PostgreSQL and Redis, the file of a rule, and what to say when they fail."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeVar
from uuid import UUID

import asyncpg
import typer
from pydantic import BaseModel, ValidationError
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from core.domain.context import Context
from core.services.problems import Refusal
from core.store.database import AWAY, Database, UnitOfWork
from fleet.cli.connection import Connection, find_connection, require
from fleet.cli.output import CommandError, ExitCode, invalid_field, why
from wire.client import StreamServers

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

ACTOR: Final = "fleet-cli"
"""Who did it, in events and versions, where an operator's command did."""

Tenant = Annotated[UUID, typer.Option(help="The tenant's id; left out, the one of ./dev up.")]

_CONNECT_WITHIN_S = 10
_NOT_MIGRATED = (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)
_NOT_LET_IN = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError)

_UNANSWERED: tuple[type[Exception], ...] = (*AWAY, asyncpg.PostgresError)


def with_database(work: Callable[[Database, Connection], Awaitable[T]], *also: str) -> T:
    """Run `work` under the worker role; `also` names further settings that it needs.

    Raises CommandError: what the core refuses, and whatever PostgreSQL answers or does not answer.
    """
    connection = find_connection()
    require(connection, "database_url", *also)

    async def run() -> T:
        async with open_database(connection) as database:
            return await work(database, connection)

    return _run(run())


def in_tenant(tenant: UUID | None, work: Callable[[UnitOfWork], Awaitable[T]], *, must_exist: bool = False) -> T:
    """Run `work` in one unit of work of the tenant; None sees every tenant.

    Raises CommandError: `tenant_unknown` where the tenant must exist and does not, and as `with_database` does.
    """

    async def run(database: Database, _: Connection) -> T:
        async with database.unit_of_work(Context(tenant, ACTOR)) as uow:
            if tenant is not None and must_exist:
                await require_tenant(uow, tenant)
            return await work(uow)

    return with_database(run)


def with_redis(work: Callable[[StreamServers, Connection], Awaitable[T]]) -> T:
    """Run `work` with the streams' servers. Raises CommandError where Redis refuses or does not answer."""
    connection = find_connection()
    require(connection, "redis_url")

    async def run() -> T:
        async with open_redis(connection) as servers:
            return await work(servers, connection)

    return _run(run())


@asynccontextmanager
async def open_database(connection: Connection) -> AsyncIterator[Database]:
    """Lend a pool of the worker role. Raises CommandError, also where the server dies in the middle."""
    with _postgres_in_words():
        try:
            async with asyncio.timeout(_CONNECT_WITHIN_S):
                database = await Database.connect(connection.database_url, max_size=2, application_name=ACTOR)
        except ValueError as error:
            text = f"DATABASE_WORKER_URL is no PostgreSQL address: {error}"
            raise CommandError("address_malformed", text) from error
        try:
            yield database
        finally:
            await database.close()


@asynccontextmanager
async def open_redis(connection: Connection) -> AsyncIterator[StreamServers]:
    """Lend the streams' servers. Raises CommandError, also where the server dies in the middle."""
    with _redis_in_words():
        try:
            servers = StreamServers(connection.redis_url, ACTOR)
        except ValueError as error:
            raise CommandError("address_malformed", f"REDIS_URL is no Redis address: {error}") from error
        try:
            yield servers
        finally:
            await servers.aclose()


def read_model(model: type[Model], file: str) -> Model:
    """Return the model in a JSON file; - reads stdin. Raises CommandError: file_unreadable, invalid_field."""
    try:
        return model.model_validate_json(text_of(file))
    except ValidationError as error:
        raise invalid_field(error) from error


def text_of(file: str) -> str:
    """Return what is in a text file; - reads stdin. Raises CommandError `file_unreadable`."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError("file_unreadable", f"{file}: {why(error)}") from error


async def require_tenant(uow: UnitOfWork, tenant: UUID) -> None:
    """Raise CommandError `tenant_unknown` where there is no such tenant."""
    if not await uow.connection.fetchval("SELECT true FROM fleet.tenants WHERE tenant_id = $1", tenant):
        raise CommandError("tenant_unknown", f"there is no tenant {tenant}: check --tenant")


def _run(work: Coroutine[None, None, T]) -> T:
    try:
        return asyncio.run(work)
    except Refusal as refused:
        raise CommandError(refused.code, refused.detail, ExitCode.REFUSED) from refused


@contextmanager
def _postgres_in_words() -> Iterator[None]:
    try:
        yield
    except _NOT_MIGRATED as error:
        text = f"this database is not one of this version ({error}): migrate it, or check DATABASE_WORKER_URL"
        raise CommandError("not_migrated", text, ExitCode.UNREACHABLE) from error
    except _NOT_LET_IN as error:
        text = f"PostgreSQL does not let the worker role in ({error}): check DATABASE_WORKER_URL"
        raise CommandError("server_refused", text, ExitCode.UNREACHABLE) from error
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        raise CommandError("invalid_field", f"PostgreSQL does not take a value: {error}") from error
    except _UNANSWERED as error:
        raise _away("PostgreSQL", "DATABASE_WORKER_URL", error) from error


@contextmanager
def _redis_in_words() -> Iterator[None]:
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        text = f"Redis does not let this user in ({error}): check REDIS_URL"
        raise CommandError("server_refused", text, ExitCode.UNREACHABLE) from error
    except (OSError, RedisError) as error:
        raise _away("Redis", "REDIS_URL", error) from error


def _away(server: str, variable: str, error: Exception) -> CommandError:
    why = str(error) or type(error).__name__
    text = f"{server} does not answer ({why}): start it or check {variable}"
    return CommandError("server_unreachable", text, ExitCode.UNREACHABLE)
