"""Tenants: made at run time under the worker's role, each with a first key of its own."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from core.domain.context import Context
from core.domain.ids import mint_id
from core.services.access.keys import KNOWN_SCOPES, TENANTS_SCOPE, KeyService
from core.services.problems import Refusal
from schemas.tenants import ReturnsTo, TenantMade, TenantRequest, TenantView


class TimezoneUnknownError(ValueError):
    """Our calendars know the timezone, those of the database do not."""


class Tenants(Protocol):
    """Where tenants are kept."""

    async def insert_tenant(self, uow: Any, tenant_id: UUID, asked: TenantRequest, actor: str) -> TenantView | None:
        """Insert; None where the name is taken. Raises TimezoneUnknownError."""
        ...

    async def list_tenants(self, uow: Any) -> Sequence[TenantView]: ...
    async def set_returns_to(self, uow: Any, tenant_id: UUID, returns_to: ReturnsTo) -> bool: ...
    async def set_adjusts_alone(self, uow: Any, tenant_id: UUID, up_to_minor: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class TenantService:
    """Makes and lists tenants. The caller has been let; the unit of work is the worker's, which sees every tenant."""

    unit_of_work: Callable[[Context], AbstractAsyncContextManager[Any]]
    tenants: Tenants
    keys: KeyService

    async def create(self, actor: str, asked: TenantRequest) -> TenantMade:
        """Make a tenant and its first key, both or neither. Raises Refusal: invalid_request, tenant_name_taken."""
        if unknown := sorted(set(asked.operations) - KNOWN_SCOPES):
            text = f"{', '.join(unknown)[:200]}: choose among {', '.join(sorted(KNOWN_SCOPES))}"
            raise Refusal("invalid_request", text, field="operations")
        if TENANTS_SCOPE in asked.operations:
            text = f"a tenant's own key does not carry {TENANTS_SCOPE}: an operator gives it, by `fleet keys create`"
            raise Refusal("invalid_request", text, field="operations")
        tenant_id = mint_id(time.time_ns() // 1_000_000)
        async with self.unit_of_work(Context(None, actor)) as uow:
            try:
                made = await self.tenants.insert_tenant(uow, tenant_id, asked, actor)
            except TimezoneUnknownError as error:
                text = f"the database knows no timezone {error}: use another name of the same clocks"
                raise Refusal("invalid_request", text, field="business_timezone") from error
            if made is None:
                raise Refusal("tenant_name_taken", f"there is a tenant {asked.name}: choose another name", field="name")
            key = await self.keys.create_in(uow, tenant_id=tenant_id, name=asked.name, operations=asked.operations)
        return TenantMade(tenant=made, key_id=key.id, secret=key.secret)

    async def all(self, actor: str) -> list[TenantView]:
        """Return every tenant, oldest first."""
        async with self.unit_of_work(Context(None, actor)) as uow:
            return list(await self.tenants.list_tenants(uow))

    async def set_returns_to(self, actor: str, tenant_id: UUID, returns_to: ReturnsTo) -> None:
        """Say where a tenant wants what providers give back. Raises Refusal `not_found`."""
        async with self.unit_of_work(Context(None, actor)) as uow:
            if not await self.tenants.set_returns_to(uow, tenant_id, returns_to):
                raise Refusal("not_found", f"there is no tenant {tenant_id}")

    async def set_adjusts_alone(self, actor: str, tenant_id: UUID, up_to_minor: int) -> None:
        """Say up to which amount, in minor units, one key adjusts by hand alone. Raises Refusal `not_found`."""
        async with self.unit_of_work(Context(None, actor)) as uow:
            if not await self.tenants.set_adjusts_alone(uow, tenant_id, up_to_minor):
                raise Refusal("not_found", f"there is no tenant {tenant_id}")
