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
