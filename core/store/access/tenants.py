"""Tenants in PostgreSQL: what each is called, and what it wants done."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from core.services.access.tenants import TimezoneUnknownError
from core.store.unit_of_work import UnitOfWork
from schemas.tenants import ReturnsTo, TenantRequest, TenantView

_COLUMNS: Final = "tenant_id AS id, name, business_timezone, returns_to, created_at, created_by"
# One maker at a time: who waits here sees the name that those before it took.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('fleet.tenants', 0))"
_INSERT: Final = f"""
INSERT INTO fleet.tenants (tenant_id, name, business_timezone, returns_to, created_by)
SELECT $1, $2, $3, $4, $5 WHERE NOT EXISTS (SELECT FROM fleet.tenants WHERE name = $2)
RETURNING {_COLUMNS}
"""  # noqa: S608 - a constant
_LIST: Final = f"""
SELECT {_COLUMNS} FROM fleet.tenants
WHERE tenant_id <> '00000000-0000-0000-0000-000000000000' ORDER BY created_at, tenant_id
"""  # noqa: S608 - a constant


class TenantStore:
    """The tenants, as the role may see them: the worker's sees all, the application's its own."""

    async def returns_to(self, uow: UnitOfWork, tenant_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Return where each tenant wants what providers give back: WALLET or SUSPENSE."""
        rows = await uow.connection.fetch(
            "SELECT tenant_id, returns_to FROM fleet.tenants WHERE tenant_id = ANY ($1::uuid[])", tenant_ids
        )
        return {row["tenant_id"]: row["returns_to"] for row in rows}

    async def insert_tenant(
        self, uow: UnitOfWork, tenant_id: UUID, asked: TenantRequest, actor: str
    ) -> TenantView | None:
        """Insert; None where the name is taken. Raises TimezoneUnknownError."""
        await uow.connection.execute(_LOCK)
        try:
            row = await uow.connection.fetchrow(
                _INSERT, tenant_id, asked.name, asked.business_timezone, asked.returns_to, actor
            )
        except (asyncpg.CheckViolationError, asyncpg.InvalidParameterValueError) as error:
            raise TimezoneUnknownError(asked.business_timezone) from error
        return None if row is None else TenantView.model_validate(dict(row))

    async def list_tenants(self, uow: UnitOfWork) -> Sequence[TenantView]:
        """Return every tenant but the system's own, oldest first."""
        return [TenantView.model_validate(dict(row)) for row in await uow.connection.fetch(_LIST)]

    async def set_returns_to(self, uow: UnitOfWork, tenant_id: UUID, returns_to: ReturnsTo) -> bool:
        """Set it; False where there is no such tenant."""
        return bool(
            await uow.connection.fetchval(
                "UPDATE fleet.tenants SET returns_to = $2 WHERE tenant_id = $1 RETURNING true", tenant_id, returns_to
            )
        )

    async def adjusts_alone_minor(self, uow: UnitOfWork, tenant_id: UUID) -> int:
        """Return up to which amount one key adjusts by hand alone; 0, and so nothing, of a tenant that is not kept."""
        found: int | None = await uow.connection.fetchval(
            "SELECT adjusts_alone_minor FROM fleet.tenants WHERE tenant_id = $1", tenant_id
        )
        return found or 0

    async def set_adjusts_alone(self, uow: UnitOfWork, tenant_id: UUID, up_to_minor: int) -> bool:
        """Set it; False where there is no such tenant."""
        return bool(
            await uow.connection.fetchval(
                "UPDATE fleet.tenants SET adjusts_alone_minor = $2 WHERE tenant_id = $1 RETURNING true",
                tenant_id,
                up_to_minor,
            )
        )
