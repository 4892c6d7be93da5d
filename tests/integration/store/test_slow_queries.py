"""A statement that takes too long is told by its name; what it is about is not."""

import asyncio
import logging
from uuid import uuid4

import pytest

from core.domain.context import Context
from core.store.database import Database
from core.store.slow_queries import name_of
from fleet.stack.provision import RoleUrls


async def test_a_slow_statement_is_logged_by_its_name_and_a_quick_one_is_not(
    fresh_database: RoleUrls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "core.store.slow_queries")
    database = await Database.connect(fresh_database.worker, max_size=1, slow_query_s=0.15)
    secret = f"payee-{uuid4()}"
    for _ in range(2):  # of the second one the connection came from the pool
        async with database.unit_of_work(Context(uuid4(), secret)) as uow:
            await uow.connection.fetchval("SELECT count(*) FROM fleet.intents")
            await uow.connection.fetchval("SELECT pg_sleep(0.2) FROM fleet.tenants WHERE name <> $1 LIMIT 1", secret)
    await database.close()
    await asyncio.sleep(0)
    lines = [record.getMessage() for record in caplog.records]
    slow = [line for line in lines if line.startswith("slow statement: SELECT tenants #")]
    assert len(slow) == 2, lines
    assert not [line for line in lines if secret in line or "intents" in line]


async def test_nothing_is_measured_where_the_threshold_is_zero(
    fresh_database: RoleUrls, caplog: pytest.LogCaptureFixture
) -> None:
    database = await Database.connect(fresh_database.worker, max_size=1)
    async with database.acquire() as connection:
        await connection.fetchval("SELECT pg_sleep(0.05)")
    await database.close()
    assert not [record for record in caplog.records if record.name == "core.store.slow_queries"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("WITH a AS (SELECT 1) INSERT INTO fleet.intents SELECT FROM fleet.jobs", "INSERT intents, jobs"),
        ("BEGIN; SELECT set_config('fleet.tenant', '0812345678', true)", "BEGIN"),
        ("SELECT fleet.purge($1, $2)", "SELECT purge"),
    ],
)
def test_a_name_is_the_verb_and_the_tables(query: str, name: str) -> None:
    assert name_of(query).rpartition(" #")[0] == name
    assert name_of(query.replace("0812345678", "0898765432")) == name_of(query)
