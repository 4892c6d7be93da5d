"""Mandates: what a debtor signed so that money may be pulled from the debtor's account."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Final, Self
from uuid import UUID

from pydantic import Field, model_validator

from schemas.base import Contract, Day
from schemas.events import IntentState
from schemas.jobs import AmountMinor
from schemas.suspense import Reason

MANDATE_PAYEE: Final = "mandate"
"""The payee type of a direct debit."""
MandateId = Annotated[str, Field(pattern=r"^[A-Z0-9-]{1,35}$")]


class SequenceType(StrEnum):
    """Which debit under its mandate this is."""

    FIRST = "FRST"
    RECURRING = "RCUR"
    FINAL = "FNAL"
    ONE_OFF = "OOFF"


class MandateKind(StrEnum):
    """How often a mandate may be drawn on."""

    RECURRING = "RECURRING"
    ONE_OFF = "ONE_OFF"


class MandateState(StrEnum):
    """Where a mandate stands. ENDED is one whose only or last debit was asked for and did not fail."""

    ACTIVE = "ACTIVE"
    ENDED = "ENDED"
    CANCELLED = "CANCELLED"


class MandateRequest(Contract):
    """A mandate as its debtor signed it. The amount is minor units of the wallet's currency; days are the bank's."""

    mandate_id: MandateId
    wallet_id: UUID
    """Where what is pulled is credited."""
    kind: MandateKind = MandateKind.RECURRING
    signed_on: Day
    debtor_account: Annotated[str, Field(pattern=r"^[0-9]{3}-[0-9]{10,15}$")]
    """The bank's code and the account's number."""
    debtor_name: Annotated[str, Field(pattern=r"^[^;\s]([^;\x00-\x1f]*[^;\s])?$", max_length=66)]
    max_amount_minor: AmountMinor | None = None
    """The most that one debit takes; None takes any."""
    valid_from: Day | None = None
    """The first day on which a debit may be asked for; None is the day of signature."""
    valid_until: Day | None = None
    """The last such day; None has no end."""

    @model_validator(mode="after")
    def _days_in_order(self) -> Self:
        first = self.valid_from or self.signed_on
        if first < self.signed_on:
            raise ValueError("valid_from is before signed_on")
        if self.valid_until is not None and self.valid_until < first:
            raise ValueError("valid_until is before the first day")
        return self


class MandateCancelRequest(Contract):
    """Nothing more is pulled under the mandate."""

    reason: Reason


class MandateDebit(Contract):
    """One direct debit that drew on a mandate."""

    intent_id: UUID
    sequence: SequenceType
    state: IntentState


class MandateView(Contract):
    """A mandate; who signed it shows no more than the end of the account."""

    mandate_id: str
    state: MandateState
    wallet_id: UUID
    kind: MandateKind
    signed_on: date
    valid_from: date
    valid_until: date | None
    max_amount_minor: int | None
    account_masked: str
    created_by: str
    created_at: datetime
    cancelled_at: datetime | None


class MandateDetail(MandateView):
    """A mandate with its newest debits."""

    debits: list[MandateDebit]


class MandatePage(Contract):
    """Some mandates in the order of their ids."""

    items: list[MandateView]
    next_cursor: str | None = None
