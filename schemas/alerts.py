"""What people on call see of alerts about payments, and how they close them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from schemas.base import Contract
from schemas.on_call import Reason

AlertKind = Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")]


class AlertState(StrEnum):
    """Whether anybody has looked after it."""

    OPEN = "OPEN"
    PROPOSED = "PROPOSED"
    """A person asked to close it, and a second one has to agree."""
    CLOSED = "CLOSED"


class AlertsWanted(StrEnum):
    """Which alerts a list has."""

    WAITING = "WAITING"
    """Open ones, and those that somebody proposed to close."""
    OPEN = "OPEN"
    PROPOSED = "PROPOSED"
    CLOSED = "CLOSED"
    ALL = "ALL"


class AlertView(Contract):
    """One alert about a payment, or about the core's own work."""

    id: UUID
    tenant_id: UUID
    severity: Literal["ticket", "page"]
    """`page` is about money: two people close it."""
    kind: str
    """Its section is in docs/runbook.md."""
    detail: str
    intent_id: UUID | None
    job_id: UUID | None
    state: AlertState
    stands: str
    """Why it cannot be closed yet: what it tells of is still so. Empty: it can."""
    raised_at: datetime
    age_s: int
    proposed_by: str | None
    proposed_at: datetime | None
    closed_by: str | None
    """`core` where it made good by itself what the alert told of."""
    closed_because: str
    closed_at: datetime | None


class AlertList(Contract):
    """Alerts, the oldest first."""

    items: list[AlertView]
    next_cursor: str | None = None


class AlertClosing(Contract):
    """Why an alert is closed, or why a second person agrees to that."""

    reason: Reason
