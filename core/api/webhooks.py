"""Endpoints of webhooks over HTTP."""

from starlette.requests import Request
from starlette.responses import Response

from core.api.answers import json_answer
from core.api.openapi import tells
from core.api.requests import Page, parse, path_id, query_of
from core.api.signed_routes import Route, SignedRoutes
from schemas.webhooks import (
    DeliveryState,
    WebhookChangeRequest,
    WebhookDeliveryPage,
    WebhookDeliveryView,
    WebhookEndpointList,
    WebhookEndpointRequest,
    WebhookEndpointView,
    WebhookRedriveRequest,
    WebhookRedriveView,
    WebhookSecret,
)

_ONE = "/v1/webhook-endpoints/{endpoint_id}"


class _DeliveryQuery(Page):
    state: DeliveryState | None = None


class WebhookRoutes(SignedRoutes):
    """The routes of webhooks."""

    def table(self) -> tuple[Route, ...]:
        """Return each route."""
        return (
            ("POST", "/v1/webhook-endpoints", self.create_endpoint, WebhookSecret, 201, WebhookEndpointRequest),
            ("GET", "/v1/webhook-endpoints", self.list_endpoints, WebhookEndpointList, 200, None),
            ("GET", _ONE, self.get_endpoint, WebhookEndpointView, 200, None),
            ("DELETE", _ONE, self.delete_endpoint, WebhookEndpointView, 200, None),
            ("POST", f"{_ONE}/switch", self.switch_endpoint, WebhookEndpointView, 200, WebhookChangeRequest),
            ("POST", f"{_ONE}/rotate", self.rotate_secret, WebhookSecret, 200, None),
            ("POST", f"{_ONE}/test", self.test_endpoint, WebhookDeliveryView, 202, None),
            ("GET", f"{_ONE}/deliveries", self.list_deliveries, WebhookDeliveryPage, 200, None),
            ("POST", f"{_ONE}/redrive", self.redrive, WebhookRedriveView, 202, WebhookRedriveRequest),
        )

    async def create_endpoint(self, request: Request) -> Response:
        """Name an address that events are sent to from now on; its secret is shown this once."""
        caller, body = await self._signed(request)
        asked = parse(WebhookEndpointRequest, body, request.headers.get("content-type"))
        return json_answer(await self._core.webhooks.create(caller, asked), 201)

    async def list_endpoints(self, request: Request) -> Response:
        """List the tenant's endpoints."""
        caller, _ = await self._signed(request)
        return json_answer(await self._core.webhooks.all(caller))

    async def get_endpoint(self, request: Request) -> Response:
        """Show one endpoint, and how much waits or was given up."""
        caller, _ = await self._signed(request)
        return json_answer(await self._core.webhooks.get(caller, path_id(request, "endpoint_id")))

    async def delete_endpoint(self, request: Request) -> Response:
        """Take an endpoint away."""
        caller, _ = await self._signed(request)
        return json_answer(await self._core.webhooks.delete(caller, path_id(request, "endpoint_id")))

    async def switch_endpoint(self, request: Request) -> Response:
        """Switch an endpoint on or off."""
        caller, body = await self._signed(request)
        asked = parse(WebhookChangeRequest, body, request.headers.get("content-type"))
        return json_answer(
            await self._core.webhooks.set_enabled(caller, path_id(request, "endpoint_id"), asked.enabled)
        )

    async def rotate_secret(self, request: Request) -> Response:
        """Make a new secret beside the one that is live."""
        caller, _ = await self._signed(request)
        return json_answer(await self._core.webhooks.rotate(caller, path_id(request, "endpoint_id")))

    async def test_endpoint(self, request: Request) -> Response:
        """Send a test."""
        caller, _ = await self._signed(request)
        return json_answer(await self._core.webhooks.test(caller, path_id(request, "endpoint_id")), 202)

    @tells(query=_DeliveryQuery)
    async def list_deliveries(self, request: Request) -> Response:
        """List what was sent, newest first."""
        caller, _ = await self._signed(request)
        query = query_of(_DeliveryQuery, request)
        endpoint_id = path_id(request, "endpoint_id")
        page = await self._core.webhooks.deliveries(caller, endpoint_id, query.state, query.cursor, query.limit)
        return json_answer(page)

    async def redrive(self, request: Request) -> Response:
        """Send the dead ones again, or everything since a moment."""
        caller, body = await self._signed(request)
        asked = parse(WebhookRedriveRequest, body, request.headers.get("content-type"))
        return json_answer(await self._core.webhooks.redrive(caller, path_id(request, "endpoint_id"), asked), 202)
