"""What an adapter learned. The list of verdicts is closed."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field

from schemas.base import Contract
from schemas.collections import MOST_FURTHER, TRANSACTION_LENGTH_MAX, NextAction, Received
from schemas.jobs import AmountMinor, CurrencyCode, RailName
from schemas.operations import JobKind
from schemas.permits import LookupBinding

RESULT_TYPE = "result"


class Verdict(StrEnum):
    """What is known about the money, never what we hope."""

    SUCCEEDED = "SUCCEEDED"
    DECLINED = "DECLINED"
    CANCELLED = "CANCELLED"
    NOT_SENT = "NOT_SENT"
    PENDING = "PENDING"
    UNKNOWN = "UNKNOWN"
    NOT_FOUND = "NOT_FOUND"
    RETURNED = "RETURNED"
    FOUND = "FOUND"
    AWAITING_PAYMENT = "AWAITING_PAYMENT"
    PAID = "PAID"
    EXPIRED = "EXPIRED"


class Basis(StrEnum):
    """How it was learned: a submission speaks for its own fence, a status of the reference for all fences."""

    SUBMISSION = "SUBMISSION"
    REFERENCE_STATUS = "REFERENCE_STATUS"
    LOOKUP = "LOOKUP"


class Result(Contract):
    """A verdict about one job. Fields are an allow-list: no names, no raw provider data.

    `job_id` is the executed job; for inquire and cancel the core knows which payment it speaks about.
    """

    job_id: UUID
    rail: RailName
    kind: JobKind
    fence: Annotated[int, Field(ge=0)]
    verdict: Verdict
    basis: Basis
    reference: str = ""
    amount_minor: AmountMinor | None = None
    """What the provider confirmed, present wherever it states one."""
    currency: CurrencyCode | None = None
    provider_tx_id: Annotated[str, Field(max_length=TRANSACTION_LENGTH_MAX)] | None = None
    reason: Annotated[str, Field(pattern=r"^[a-z0-9_]{0,60}$")] = ""
    """A stable code of ours, such as `payee_not_found`."""
    retry_after_s: Annotated[int | float, Field(ge=0, le=86_400)] | None = None
    lookup: LookupBinding | None = None
    next_action: NextAction | None = None
    """With AWAITING_PAYMENT: what the payer is shown."""
    further: Annotated[tuple[Received, ...], Field(max_length=MOST_FURTHER)] | None = None
    """Of a collection: what was booked for it beside the payment that the verdict is about."""
    payee_name_masked: Annotated[str, Field(max_length=80)] | None = None
    evidence_id: UUID | None = None
    incarnation: UUID | None = None
    observed_at: datetime
