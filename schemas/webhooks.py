"""Webhooks out: endpoints, deliveries, and what is sent (Standard Webhooks)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from schemas.base import AnyMoment, Contract, Flag
from schemas.events import EventType, IntentState


class WebhookOrdering(StrEnum):
    """What waits behind a delivery that fails: later events of its intent, or all later ones of the endpoint."""

    INTENT = "INTENT"
    ENDPOINT = "ENDPOINT"


class DeliveryState(StrEnum):
    """PENDING is tried until it is DELIVERED, or DEAD after the last attempt."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    DEAD = "DEAD"


class WebhookEndpointRequest(Contract):
    """Where a tenant wants its events sent."""

    url: Annotated[str, Field(min_length=1, max_length=2000)]
    event_types: Annotated[list[EventType], Field(max_length=32, default_factory=list)]
    """Which events; left out: all. `settled`, `failed`, `cancelled` and `expired` name all that end a payment so."""
    ordering: WebhookOrdering = WebhookOrdering.INTENT


class WebhookEndpointView(Contract):
    """An endpoint, without its secrets."""

    id: UUID
    url: str
    event_types: list[str]
    ordering: WebhookOrdering
    enabled: bool
    disabled_reason: str | None = None
    created_at: datetime
    rotated_at: datetime | None = None
    pending_count: int
    dead_count: int


class WebhookEndpointList(Contract):
    """A tenant's endpoints, oldest first."""

    items: list[WebhookEndpointView]


class WebhookSecret(Contract):
    """An endpoint and its secret, which is shown this once."""

    endpoint: WebhookEndpointView
    secret: str


class WebhookChangeRequest(Contract):
    """Switch deliveries to an endpoint on or off; what is due waits meanwhile."""

    enabled: Flag


class WebhookDeliveryView(Contract):
    """What became of one event at one endpoint."""

    id: str
    """The webhook-id that the receiver sees, the same at every attempt."""
    position: str
    intent_id: UUID
    type: str
    state: DeliveryState
    attempts: int
    status: int | None = None
    error: str | None = None
    due_at: datetime
    created_at: datetime
    ended_at: datetime | None = None


class WebhookDeliveryPage(Contract):
    """Deliveries of one endpoint, newest first."""

    items: list[WebhookDeliveryView]
    next_cursor: str | None = None


class WebhookRedriveRequest(Contract):
    """Send the dead ones again, or, with `since`, everything that happened from a moment on."""

    since: AnyMoment | None = None


class WebhookRedriveView(Contract):
    """How many dead deliveries are due again, or from which position everything is sent again."""

    redriven_count: int
    replays_from: str | None = None


class WebhookData(Contract):
    """What a webhook says of an intent: ids, amounts in minor units and states, nothing personal."""

    event_id: str
    intent_id: UUID
    seq: int
    state: IntentState
    operation: str
    wallet_id: UUID
    counterparty_wallet_id: UUID | None = None
    original_intent_id: UUID | None = None
    amount_minor: int
    currency: str
    fee_minor: int
    reference: str
    failure_code: str | None = None


class WebhookMessage(Contract):
    """The body of a webhook. `data` is absent from a test."""

    type: str
    timestamp: datetime
    data: WebhookData | None = None
