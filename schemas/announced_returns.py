"""Returns that a provider announces before, or beside, the booking that shows them: pacs.004 of a bank."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field

from schemas.base import Contract
from schemas.collections import TransactionId
from schemas.jobs import AmountMinor, CurrencyCode

MOST_ANNOUNCED: Final = 200
"""How many announcements one request tells."""
REASON_LENGTH_MAX: Final = 35
"""The longest reason of a provider's own, in characters."""


class AnnouncedReturn(Contract):
    """One payment that is coming back, as its provider says. It moves no money."""

    name: TransactionId
    """The provider's own name of the return: told again, it is the same one."""
    reference: Annotated[str, Field(max_length=64, pattern=r"^[\x21-\x7e]*$")]
    """Of the payment, as we sent it; empty where the provider names none."""
    amount_minor: AmountMinor
    currency: CurrencyCode
    reason: Annotated[str, Field(pattern=r"^[a-z0-9_]{0,60}$")] = ""
    """A stable code of ours, such as `account_closed`."""
    provider_reason: Annotated[str, Field(max_length=REASON_LENGTH_MAX, pattern=r"^[\x21-\x7e]*$")] = ""
    """The provider's own code, such as AC04."""
    raw: Annotated[str, Field(max_length=64_000)]
    """What the provider wrote; kept encrypted."""


class AnnouncedReturns(Contract):
    """The body of `POST /internal/v1/announced-returns`. A repeat is harmless."""

    provider_account: Annotated[str, Field(min_length=1, max_length=64)]
    environment: Annotated[str, Field(min_length=1, max_length=32)]
    booked_within_s: Annotated[int | float, Field(gt=0, le=31_622_400)]
    """After so long without the booking a person is told."""
    items: Annotated[list[AnnouncedReturn], Field(min_length=1, max_length=MOST_ANNOUNCED)]


class AnnouncedKept(Contract):
    """The answer: how many were new."""

    kept: int


class ReturnedView(Contract):
    """How much of a payment came back, or is announced to, and why. Amounts are minor units."""

    announced_minor: int
    """What the provider announced; 0 where it announces nothing, or did not."""
    booked_minor: int
    """What came back; 0 while it is only announced, which is no money."""
    reason: str
    """A stable code of ours, such as `account_closed`; empty where nobody told why."""
    provider_reason: str
    """The provider's own code, such as AC04; empty where it announced nothing."""
    evidence_id: UUID | None
    """The announcement as it came, or else what showed the booking; sealed."""
    announced_at: datetime | None
    booked_at: datetime | None
