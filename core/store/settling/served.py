"""Which tenants' money moves through an account of a provider, in PostgreSQL."""

from typing import Final
from uuid import UUID

from core.store.database import UnitOfWork

# Routes stay, disabled ones too: these are all whose money the account ever moved.
_TENANTS: Final = """
SELECT DISTINCT tenant_id FROM fleet.routes WHERE (rail, provider_account, environment) = ($1, $2, $3)
"""

_TENANTS_OF_RAIL: Final = "SELECT DISTINCT tenant_id FROM fleet.routes WHERE rail = $1"


async def tenants_of_rail(uow: UnitOfWork, rail: str) -> frozenset[UUID]:
    """Return the tenants of a rail, whatever account and whether their routes are enabled or not."""
    return frozenset(row["tenant_id"] for row in await uow.connection.fetch(_TENANTS_OF_RAIL, rail))


async def tenants_of(uow: UnitOfWork, rail: str, account: str, environment: str) -> frozenset[UUID]:
    """Return the tenants of an account, whether their routes are enabled or not."""
    rows = await uow.connection.fetch(_TENANTS, rail, account, environment)
    return frozenset(row["tenant_id"] for row in rows)
