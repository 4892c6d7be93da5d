"""Permits: the permission, committed in PostgreSQL before any byte goes to the provider, to send one job."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, NamedTuple, Self
from uuid import UUID

from pydantic import Field

from schemas.base import Contract
from schemas.jobs import AmountMinor, CurrencyCode
from schemas.operations import JobKind, OperationType

_NUMBER_BITS: Final = 16
LAST_SENDING: Final = (1 << _NUMBER_BITS) - 1
"""The highest number; after it an adapter asks anew."""


class PermitMode(StrEnum):
    """What the permit allows: SEND a payment, or only ask about one. READ is for jobs that move no money."""

    SEND = "SEND"
    INQUIRE_ONLY = "INQUIRE_ONLY"
    READ = "READ"


class Payee(Contract):
    """Whom to pay: the type is one of the rail's registered payee types."""

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,30}$")]
    value: Annotated[str, Field(min_length=1, max_length=140)]


class LookupBinding(Contract):
    """What the lookup answered and the payment is bound to; its expiry is the request's expiry."""

    lookup_id: str
    expires_at: datetime | None = None
    fee_minor: Annotated[int, Field(strict=True, ge=0)] = 0


class Instruction(Contract):
    """What to do, in full. It travels only in a permit's answer and is never logged or traced."""

    payee: Payee | None = None
    message: str = ""
    lookup: LookupBinding | None = None
    target_reference: str | None = None
    """For inquire and cancel: the reference of the payment that is asked about."""
    target_kind: JobKind | None = None
    """For inquire and cancel: what kind of job is asked about."""
    operation: OperationType | None = None
    """What the job is a part of: a rail collects a top-up otherwise than a direct debit."""
    expires_at: datetime | None = None
    """For collect: until when the payer may pay. It is fixed with the first permit."""


class Sending(NamedTuple):
    """One sending of an asking for permits. A later one says that no answer to an earlier one was read, or will be."""

    asking: int
    number: int

    @classmethod
    def of(cls, request_id: UUID) -> Self:
        """Read the id of a request."""
        return cls(request_id.int >> _NUMBER_BITS, request_id.int & LAST_SENDING)

    @property
    def request_id(self) -> UUID:
        """The id that a request carries: its last two bytes are the number, so that the sendings have an order."""
        return UUID(int=self.asking << _NUMBER_BITS | self.number)


class PermitRequest(Contract):
    """A batch of jobs that the adapter has slots for; a repeat, with the next number in its id, burns nothing."""

    request_id: UUID
    """See `Sending`."""
    incarnation: UUID
    """One per process start."""
    job_ids: Annotated[list[UUID], Field(min_length=1, max_length=1000)]


class Granted(Contract):
    """Go. For READ the fence is 0 and no attempt row exists."""

    answer: Literal["GRANTED"] = "GRANTED"
    job_id: UUID
    kind: JobKind
    mode: PermitMode
    fence: Annotated[int, Field(ge=0)]
    first: bool
    send_by_s: Annotated[int | float, Field(gt=0)]
    """Seconds within which the first byte must leave, counted from *sending* the permit request."""
    reference: str
    amount_minor: AmountMinor
    currency: CurrencyCode
    provider_account: str
    environment: str
    """With the account, the scope that the payment belongs to: an adapter of another one does nothing."""
    instruction: Instruction


class Wait(Contract):
    """Not now: release the entry with its old delivery count. It never counts as a failure."""

    answer: Literal["PAUSED", "BUSY", "THROTTLED"]
    job_id: UUID
    after_s: Annotated[int | float, Field(ge=0)] = 1


class Closed(Contract):
    """Drop it: the intent is decided."""

    answer: Literal["CLOSED"] = "CLOSED"
    job_id: UUID
    reason: str


class NotFound(Contract):
    """Not this adapter's job, or none: dead-letter it, never ack it away."""

    answer: Literal["NOT_FOUND"] = "NOT_FOUND"
    job_id: UUID


PermitAnswer = Annotated[Granted | Wait | Closed | NotFound, Field(discriminator="answer")]


class PermitResponse(Contract):
    """One answer per job id of the request, in its order."""

    answers: list[PermitAnswer]
