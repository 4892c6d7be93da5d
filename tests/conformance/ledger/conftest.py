"""A ledger of each engine and mode, with a tenant of its own for each test."""

import secrets
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from fleet.stack.provision import RoleUrls, Secrets, create_database, drop_database, role_urls, with_database
from tests.support.ledger_engines import MODES, LedgerUnderTest, PostgresUnderTest


@pytest.fixture(scope="session")
async def ledger_urls(postgres_url: str, template_database: str, role_secrets: Secrets) -> AsyncIterator[RoleUrls]:
    """One database for the whole suite: tenants keep the tests apart."""
    name = f"fleet_ledger_{secrets.token_hex(4)}"
    await create_database(postgres_url, name, template=template_database)
    yield role_urls(with_database(postgres_url, name), role_secrets)
    await drop_database(postgres_url, name)


@pytest.fixture(params=MODES)
def joins(request: pytest.FixtureRequest) -> bool:
    """Whether the engine joins the caller's transaction."""
    return MODES[request.param]


@pytest.fixture
async def ledger(ledger_urls: RoleUrls, joins: bool) -> AsyncIterator[LedgerUnderTest]:
    """An empty ledger behind the port."""
    async with PostgresUnderTest.opened(uuid4(), ledger_urls, joins=joins, connections=8) as opened:
        yield opened
