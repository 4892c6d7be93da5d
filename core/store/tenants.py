"""Tenants in PostgreSQL: what each wants done."""

from collections.abc import Sequence
from uuid import UUID

from core.store.unit_of_work import UnitOfWork


class TenantStore:
    """The tenants, as the role may see them."""

    async def returns_to(self, uow: UnitOfWork, tenant_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Return where each tenant wants what providers give back: WALLET or SUSPENSE."""
        rows = await uow.connection.fetch(
            "SELECT tenant_id, returns_to FROM fleet.tenants WHERE tenant_id = ANY ($1::uuid[])", tenant_ids
        )
        return {row["tenant_id"]: row["returns_to"] for row in rows}
