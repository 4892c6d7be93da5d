"""Webhooks for the service that receives them: what the client asks of the core, and verifying what came."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel
from standardwebhooks import Webhook, WebhookVerificationError

from schemas.webhooks import (
    WebhookChangeRequest,
    WebhookDeliveryPage,
    WebhookDeliveryView,
    WebhookEndpointList,
    WebhookEndpointRequest,
    WebhookEndpointView,
    WebhookMessage,
    WebhookRedriveRequest,
    WebhookRedriveView,
    WebhookSecret,
)

Model = TypeVar("Model", bound=BaseModel)
_ENDPOINTS = "/v1/webhook-endpoints"


def verify_webhook(secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> WebhookMessage:
    """Return what a webhook says, if one of our live secrets signed it within the last five minutes.

    It may come more than once: `webhook-id` is the same each time, and the receiver remembers what it has worked off.
    Raises standardwebhooks.WebhookVerificationError, and pydantic.ValidationError for a body that is not the core's.
    """
    for place, secret in enumerate(secrets, start=1):
        try:
            Webhook(secret).verify(body, dict(headers), json_parse=False)
        except WebhookVerificationError:
            if place == len(secrets):
                raise
        else:
            break
    else:
        raise WebhookVerificationError("there is no secret to verify with")
    return WebhookMessage.model_validate_json(body, extra="ignore")


class _Sends(Protocol):
    """Whoever signs and sends requests."""

    async def _send(
        self,
        method: str,
        path: str,
        model: type[Model],
        *,
        body: BaseModel | Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        attempts: int | None = None,
    ) -> Model: ...


class WebhookCalls:
    """The part of the client that says where events are sent, and sends again. Each raises Refused or Unreachable."""

    async def create_webhook_endpoint(self: _Sends, endpoint: WebhookEndpointRequest) -> WebhookSecret:
        """Name an address that events are sent to from now on. Asked once: a repeat would make another one."""
        return await self._send("POST", _ENDPOINTS, WebhookSecret, body=endpoint, attempts=1)

    async def list_webhook_endpoints(self: _Sends) -> WebhookEndpointList:
        """Return the tenant's endpoints."""
        return await self._send("GET", _ENDPOINTS, WebhookEndpointList)

    async def delete_webhook_endpoint(self: _Sends, endpoint_id: UUID) -> WebhookEndpointView:
        """Take an endpoint away."""
        return await self._send("DELETE", f"{_ENDPOINTS}/{endpoint_id}", WebhookEndpointView, attempts=1)

    async def switch_webhook_endpoint(self: _Sends, endpoint_id: UUID, *, enabled: bool) -> WebhookEndpointView:
        """Switch an endpoint on or off; what is due waits meanwhile."""
        body = WebhookChangeRequest(enabled=enabled)
        return await self._send("POST", f"{_ENDPOINTS}/{endpoint_id}/switch", WebhookEndpointView, body=body)

    async def rotate_webhook_secret(self: _Sends, endpoint_id: UUID) -> WebhookSecret:
        """Make a new secret; the one before stays live until the next rotation. Asked once."""
        return await self._send("POST", f"{_ENDPOINTS}/{endpoint_id}/rotate", WebhookSecret, attempts=1)

    async def test_webhook_endpoint(self: _Sends, endpoint_id: UUID) -> WebhookDeliveryView:
        """Send a message of type `test`."""
        return await self._send("POST", f"{_ENDPOINTS}/{endpoint_id}/test", WebhookDeliveryView)

    async def page_of_webhook_deliveries(
        self: _Sends, endpoint_id: UUID, *, state: str | None = None, cursor: str | None = None
    ) -> WebhookDeliveryPage:
        """Return one page of what was sent, newest first."""
        query = {name: value for name, value in (("state", state), ("cursor", cursor)) if value is not None}
        return await self._send("GET", f"{_ENDPOINTS}/{endpoint_id}/deliveries", WebhookDeliveryPage, query=query)

    async def redrive_webhooks(self: _Sends, endpoint_id: UUID, *, since: datetime | None = None) -> WebhookRedriveView:
        """Send the dead ones again, or everything since a moment."""
        body = WebhookRedriveRequest(since=since)
        return await self._send("POST", f"{_ENDPOINTS}/{endpoint_id}/redrive", WebhookRedriveView, body=body)
