"""The work list of money whose owner or reason is not known, and what a person decides about it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from schemas.base import Contract
from schemas.collections import PaymentSource
from schemas.jobs import CurrencyCode
from schemas.operations import OperationType

Reason = Annotated[str, Field(min_length=1, max_length=140, pattern=r"^\S(.*\S)?$")]


class SuspenseState(StrEnum):
    """Where an item stands. A return that the provider refused opens it again, unless it proves paid."""

    OPEN = "OPEN"
    IN_REVIEW = "IN_REVIEW"
    """One key decided, and a second one has not yet said yes: a no, or none in time, opens it again."""
    ASSIGNED = "ASSIGNED"
    RETURNING = "RETURNING"
    RETURNED = "RETURNED"


class SuspenseItem(Contract):
    """One payment in that rests in suspense; the amount is minor units."""

    id: UUID
    state: SuspenseState
    reason: str
    amount_minor: int
    """What rests, or rested until it was taken: less than what came where the provider took a part of it back."""
    returned_minor: int
    """The part that the provider took back while it rested."""
    currency: str
    rail: str
    provider_account: str
    transaction_id: str
    reference: str
    """What the payer's payment named; empty where it named nothing."""
    intent_id: UUID | None
    """The collection that it came under."""
    taken_by: UUID | None
    """The intent that took it out of suspense, or is about to."""
    occurred_at: datetime


class SuspenseTold(Contract):
    """Who told of the payment, and under which evidence."""

    source: PaymentSource
    evidence_id: UUID | None
    amount_minor: int
    currency: str
    differs: bool
    seen_at: datetime


class SuspenseDecided(Contract):
    """What a person decided, and why."""

    action: str
    intent_id: UUID
    actor: str
    reason: str
    at: datetime
    review: Literal["APPROVED", "REJECTED"] | None = None
    """What a second key said to it; none where one key decided alone, or nobody has."""
    reviewed_by: str | None = None


class SuspenseDetail(SuspenseItem):
    """An item with everything that is known of it."""

    sources: list[SuspenseTold]
    decisions: list[SuspenseDecided]


class SuspensePage(Contract):
    """A page of the work list, oldest first; `next_cursor` is absent on the last."""

    items: list[SuspenseItem]
    next_cursor: str | None = None


class AssignRequest(Contract):
    """Give the money to a wallet of its currency."""

    wallet_id: UUID
    reason: Reason


class ReturnRequest(Contract):
    """Pay the money back to who paid it, through the rail that it came by."""

    reason: Reason


class ToleranceRequest(Contract):
    """How far a payment may be below or above what was asked, and still be credited as it came; zeros end it."""

    operation: OperationType
    currency: CurrencyCode
    below_minor: Annotated[int, Field(strict=True, ge=0, le=10**12)]
    above_minor: Annotated[int, Field(strict=True, ge=0, le=10**12)]


class ToleranceView(ToleranceRequest):
    """A tolerance in force."""

    set_by: str
    set_at: datetime


class ToleranceList(Contract):
    """Every tolerance of the tenant."""

    items: list[ToleranceView]
