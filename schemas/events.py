"""The life of an intent."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from schemas.base import Contract


class IntentState(StrEnum):
    """CREATED → VALIDATED → (AWAITING_CONFIRMATION) → (REVIEW) → AUTHORIZED → DISPATCHED → SETTLED, or another end."""

    CREATED = "CREATED"
    VALIDATED = "VALIDATED"
    AWAITING_CONFIRMATION = "AWAITING_CONFIRMATION"
    REVIEW = "REVIEW"
    AUTHORIZED = "AUTHORIZED"
    DISPATCHED = "DISPATCHED"
    SETTLED = "SETTLED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    UNRESOLVED = "UNRESOLVED"

    @property
    def is_terminal(self) -> bool:
        """True where no later fact moves the intent. UNRESOLVED is not: money is held, a person owns it."""
        return self in TERMINAL_STATES


TERMINAL_STATES = frozenset({IntentState.SETTLED, IntentState.FAILED, IntentState.CANCELLED, IntentState.EXPIRED})


class EventType(StrEnum):
    """What an event tells. Events are narrowed by these; an answer's `type` is a text: a newer core may know more."""

    ACCEPTED = "accepted"
    AUTHORIZED = "authorized"
    REVIEW = "review"
    REVIEW_APPROVED = "review_approved"
    REVIEW_REJECTED = "review_rejected"
    PAYEE_FOUND = "payee_found"
    DISPATCHED = "dispatched"
    AWAITING_PAYMENT = "awaiting_payment"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELLED_BY_CLIENT = "cancelled_by_client"
    MANDATE_CANCELLED = "mandate_cancelled"
    SETTLED = "settled"
    SETTLED_BY_HAND = "settled_by_hand"
    PAID_AFTER_VOID = "paid_after_void"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    ABANDONED = "abandoned"
    UNRESOLVED = "unresolved"


class IntentEvent(Contract):
    """One change of one intent; `seq` counts from 1 without gaps."""

    intent_id: UUID
    seq: int
    type: str
    state: IntentState
    at: datetime
    actor: str
    data: dict[str, Any]


class EventView(IntentEvent):
    """An event as a follower gets it."""

    id: str
    """Its place in the tenant's order; the last one that was seen is where a follower goes on."""


class EventPage(Contract):
    """Events, oldest first. `next_cursor` is absent where nothing more has happened yet."""

    items: list[EventView]
    next_cursor: str | None = None
