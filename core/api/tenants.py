"""Tenants over HTTP: made and listed under a key that names TENANTS. What no such key asks for stays in one tenant."""

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.requests import parse
from core.api.signed_routes import Route, SignedRoutes
from core.services.access.keys import TENANTS_SCOPE
from schemas.tenants import TenantList, TenantMade, TenantRequest


class TenantRoutes(SignedRoutes):
    """The routes of tenants."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("POST", "/v1/tenants", self.create_tenant, TenantMade, 201, TenantRequest),
            ("GET", "/v1/tenants", self.list_tenants, TenantList, 200, None),
        )

    async def create_tenant(self, request: Request) -> Response:
        """Make a tenant with its first key, whose secret is shown this once."""
        caller, body = await self._operator(request, TENANTS_SCOPE)
        asked = parse(TenantRequest, body, request.headers.get("content-type"))
        return json_answer(await self._core.tenants.create(caller.context().actor, asked), 201)

    async def list_tenants(self, request: Request) -> Response:
        """List every tenant, oldest first."""
        caller, _ = await self._operator(request, TENANTS_SCOPE)
        return json_answer(TenantList(items=await self._core.tenants.all(caller.context().actor)))
