"""A ledger of each engine and mode, with a tenant of its own for each test."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from fleet.stack.provision import RoleUrls
from tests.support.databases import Databases
from tests.support.ledger_engines import MODES, LedgerUnderTest, PostgresUnderTest


@pytest.fixture(scope="session")
async def ledger_urls(databases: Databases) -> AsyncIterator[RoleUrls]:
    """One database for the whole suite: tenants keep the tests apart."""
    name, urls = await databases.lend()
    yield urls
    await databases.take_back(name)


@pytest.fixture(params=MODES)
def joins(request: pytest.FixtureRequest) -> bool:
    """Whether the engine joins the caller's transaction."""
    return MODES[request.param]


@pytest.fixture
async def ledger(ledger_urls: RoleUrls, joins: bool) -> AsyncIterator[LedgerUnderTest]:
    """An empty ledger behind the port."""
    async with PostgresUnderTest.opened(uuid4(), ledger_urls, joins=joins, connections=8) as opened:
        yield opened
