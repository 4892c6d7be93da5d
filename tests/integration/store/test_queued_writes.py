"""Writes that travel with the next statement: in order, all or nothing, and never silently short."""

import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest

from core.domain.context import Context
from core.store.database import Database
from core.store.literals import array, text
from core.store.unit_of_work import UnitOfWork, Write, WriteMissedError
from fleet.stack.provision import RoleUrls

_CONTEXT = Context(None, "test")
_ADD = Write(
    "added AS (INSERT INTO noted SELECT unnest($1::int[]) RETURNING n)",
    frozenset({"noted"}),
    "SELECT count(*) FROM added",
)
_RAISE = Write(
    "raised AS (UPDATE counted SET n = n + $1 WHERE id = ANY ($2::int[]) RETURNING id)",
    frozenset({"counted"}),
    "SELECT count(*) FROM raised",
)


@pytest.fixture
async def database(fresh_database: RoleUrls) -> AsyncIterator[Database]:
    """A database with two small tables."""
    made = await Database.connect(fresh_database.admin, max_size=2)
    async with made.acquire() as connection:
        await connection.execute(
            "CREATE TABLE noted (n int); CREATE TABLE counted (id int, n int);INSERT INTO counted VALUES (1, 0), (2, 0)"
        )
    yield made
    await made.close()


async def _noted(uow: UnitOfWork) -> list[int]:
    return [row["n"] for row in await uow.connection.fetch("SELECT n FROM noted ORDER BY n")]


async def test_a_queued_write_is_there_for_the_next_statement_and_after_the_commit(database: Database) -> None:
    async with database.unit_of_work(_CONTEXT) as uow:
        await uow.later(_ADD, [1, 2])
        assert await _noted(uow) == [1, 2]
        await uow.later(_RAISE, 5, [1], expected=1)
        await uow.later(_ADD, [3])
    async with database.unit_of_work(_CONTEXT) as uow:
        assert await _noted(uow) == [1, 2, 3]
        assert await uow.connection.fetchval("SELECT n FROM counted WHERE id = 1") == 5


async def test_a_value_is_read_in_the_statement_that_sends_the_writes(database: Database) -> None:
    async with database.unit_of_work(_CONTEXT) as uow:
        await uow.later(_ADD, [7])
        await uow.later(_RAISE, 2, [1, 2], expected=2)
        assert await uow.value_after_writes("$1::int + $2::int", 40, 2) == 42
        assert await _noted(uow) == [7]


async def test_a_value_that_locks_is_computed_when_the_writes_are_done(database: Database) -> None:
    number = Write(
        "numbered AS (INSERT INTO noted SELECT nextval('turns') FROM generate_series(1, $1) RETURNING n)",
        frozenset({"noted"}),
        "SELECT count(*) FROM numbered",
    )
    async with database.unit_of_work(_CONTEXT) as uow:
        await uow.connection.execute("CREATE SEQUENCE turns")
        await uow.later(number, 3)
        assert await uow.value_after_writes("nextval('turns')") == 4


async def test_writes_to_one_table_follow_each_other(database: Database) -> None:
    async with database.unit_of_work(_CONTEXT) as uow:
        for _ in range(3):
            await uow.later(_RAISE, 1, [1], expected=1)
    async with database.unit_of_work(_CONTEXT) as uow:
        assert await uow.connection.fetchval("SELECT n FROM counted WHERE id = 1") == 3


async def test_a_write_that_meets_too_few_rows_undoes_the_transaction(database: Database) -> None:
    async def write() -> None:
        async with database.unit_of_work(_CONTEXT) as uow:
            await uow.later(_ADD, [9])
            await uow.later(_RAISE, 1, [1, 99], expected=2)

    with pytest.raises(WriteMissedError, match="1 of 2 rows"):
        await write()
    async with database.unit_of_work(_CONTEXT) as uow:
        assert await _noted(uow) == []
        assert await uow.connection.fetchval("SELECT n FROM counted WHERE id = 1") == 0


async def test_nothing_that_was_queued_survives_an_error(database: Database) -> None:
    async def write() -> None:
        async with database.unit_of_work(_CONTEXT) as uow:
            await uow.later(_ADD, [9])
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        await write()
    async with database.unit_of_work(_CONTEXT) as uow:
        assert await _noted(uow) == []


class RefusedError(Exception):
    """What was to come last is not true."""


async def test_what_comes_last_sees_every_write_and_undoes_them_all_where_it_is_not_true(database: Database) -> None:
    for wanted in (3, 2):
        with contextlib.suppress(RefusedError):
            async with database.unit_of_work(_CONTEXT) as uow:
                await uow.at_last("pg_temp.noted_now() = $1::int", wanted, refused=RefusedError)
                await uow.connection.execute(
                    "CREATE FUNCTION pg_temp.noted_now() RETURNS bigint LANGUAGE plpgsql"
                    " AS 'BEGIN RETURN (SELECT count(*) FROM public.noted); END'"
                )
                await uow.later(_ADD, [1, 2])
    async with database.unit_of_work(_CONTEXT) as uow:
        assert await _noted(uow) == [1, 2], "the first was undone, the second is there once"


async def test_of_two_that_come_last_both_come_in_their_order_and_the_first_that_is_not_true_is_raised(
    database: Database,
) -> None:
    noting = "INSERT INTO public.noted VALUES ($1 + (SELECT 10 * count(*) FROM public.noted)::int)"
    async with database.unit_of_work(_CONTEXT) as uow:
        await uow.connection.execute(
            "CREATE FUNCTION pg_temp.note(integer, boolean) RETURNS boolean LANGUAGE plpgsql"
            f" AS 'BEGIN {noting}; RETURN $2; END'"
        )
        for number in (1, 2):
            await uow.at_last("pg_temp.note($1::int, $2::boolean)", number, True, refused=RefusedError)
        assert await _noted(uow) == []
        await uow.finish()
        assert await _noted(uow) == [1, 12]
        for refused in (ValueError, RefusedError):
            await uow.at_last("pg_temp.note($1::int, $2::boolean)", 0, False, refused=refused)
        with pytest.raises(ValueError, match="come last"):
            await uow.finish()


@pytest.fixture
async def said(database: Database) -> Database:
    """A database with a function that keeps what it is told."""
    async with database.acquire() as connection:
        await connection.execute(
            "CREATE TABLE said (what text, parts text[], UNIQUE (what));"
            "CREATE FUNCTION say(p_what text, p_parts text[]) RETURNS void LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO said VALUES (p_what, p_parts); END $$"
        )
    return database


@pytest.mark.parametrize(
    "what", ["plain", "it's", 'a \\ and a "', "{a,b}", "'); DROP TABLE said; --", "", "NULL", "ราคา"]
)
async def test_what_is_sent_with_the_commit_is_kept_whatever_it_holds(said: Database, what: str) -> None:
    async with said.unit_of_work(_CONTEXT) as uow:
        await uow.later(_ADD, [1])
        uow.with_commit("say", text(what), array([what, 7, what]))
    async with said.unit_of_work(_CONTEXT) as uow:
        assert await _noted(uow) == [1]
        kept = await uow.connection.fetch("SELECT * FROM said")
    assert [tuple(row) for row in kept] == [(what, [what, "7", what])]


async def test_nothing_is_asked_behind_what_is_sent_with_the_commit(said: Database) -> None:
    async with said.unit_of_work(_CONTEXT) as uow:
        uow.with_commit("say", text("first"), array([]))
        with pytest.raises(RuntimeError, match="the last of its transaction"):
            await _noted(uow)
    async with said.unit_of_work(_CONTEXT) as uow:
        assert await uow.connection.fetchval("SELECT count(*) FROM said") == 1


async def test_what_is_refused_with_the_commit_undoes_the_transaction_and_ends_it(said: Database) -> None:
    for refused in (False, True):
        with pytest.raises(asyncpg.UniqueViolationError) if refused else contextlib.nullcontext():
            async with said.unit_of_work(_CONTEXT) as uow:
                await uow.later(_ADD, [1])
                uow.with_commit("say", text("once"), array([]))
    async with said.unit_of_work(_CONTEXT) as uow:
        assert await _noted(uow) == [1]
