"""The ledger on a real database, as each of its roles."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from core.domain.context import Context
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from fleet.stack.provision import RoleUrls
from tests.support.ledger_engines import PostgresUnderTest
from tests.support.ledger_world import LedgerWorld, open_world
from tests.support.warm_sessions import WarmDatabase


@pytest.fixture
def tenant_id() -> UUID:
    return uuid4()


@pytest.fixture
async def app(fresh_database: RoleUrls) -> AsyncIterator[Database]:
    """Connections as the application."""
    database = await WarmDatabase.connect(fresh_database.app, max_size=8)
    yield database
    await database.close()


@pytest.fixture
async def worker(fresh_database: RoleUrls) -> AsyncIterator[Database]:
    """Connections as background work."""
    database = await WarmDatabase.connect(fresh_database.worker, max_size=4)
    yield database
    await database.close()


@pytest.fixture
def context(tenant_id: UUID) -> Context:
    return Context(tenant_id, "test")


@pytest.fixture
def ledger(app: Database, context: Context) -> PostgresLedger:
    """The engine as the application's role, confined to the test's tenant."""
    return PostgresLedger(app, context)


@pytest.fixture
async def world(app: Database, fresh_database: RoleUrls, tenant_id: UUID) -> LedgerWorld:
    """The tenant's accounts, made."""
    return await open_world(PostgresUnderTest(tenant_id, fresh_database, app, joins=False))
