"""Money in: what a payer is shown, and what a provider says that it received. One fact is about one payment."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field

from schemas.base import AnyMoment, Contract, Day, Flag
from schemas.jobs import AmountMinor, CurrencyCode

TRANSACTION_LENGTH_MAX: Final = 64
"""The longest name of a provider's own transaction, in characters."""
TransactionId = Annotated[str, Field(min_length=1, max_length=TRANSACTION_LENGTH_MAX, pattern=r"^[\x21-\x7e]+$")]


class NextActionKind(StrEnum):
    """What the payer does with the payload."""

    QR = "QR"
    """Show it as a QR code."""
    LINK = "LINK"
    """Open it, or show it as a QR code."""
    ACCOUNT = "ACCOUNT"
    """Transfer to it: an account, or a reference to name with the transfer."""


class NextAction(Contract):
    """What a client shows its payer while a collection waits."""

    kind: NextActionKind
    payload: Annotated[str, Field(min_length=1, max_length=1000)]
    expires_at: datetime | None = None
    """After it the provider takes no payment for this payload; None where it always does."""


class Received(Contract):
    """One payment that a provider booked for a collection, as it stated it."""

    transaction_id: TransactionId
    amount_minor: AmountMinor
    currency: CurrencyCode


MOST_FURTHER: Final = 20
"""How many further payments one result carries; where there are more, all are told apart and before it."""


class PaymentKind(StrEnum):
    """What happened at the provider."""

    PAYMENT = "PAYMENT"
    """Somebody paid in."""
    RETURN = "RETURN"
    """A payment in was taken back from us; the transaction is the one that was paid in."""
    OUT = "OUT"
    """About a payment, or a refund, of ours: it makes the core ask for the status and decides nothing."""


class PaymentStatus(StrEnum):
    """How far it got. Only SUCCEEDED moves money; anything else makes the core ask."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    RETURNED = "RETURNED"
    """Of a payment of ours: it was paid and came back."""


class PaymentSource(StrEnum):
    """How it was learned. CALLBACK and POLL may credit; REGISTER and STATEMENT confirm, or park in suspense."""

    CALLBACK = "CALLBACK"
    POLL = "POLL"
    REGISTER = "REGISTER"
    STATEMENT = "STATEMENT"


class ProviderPayment(Contract):
    """One fact about one transaction at a provider. The same transaction told again is evidence, never a payment."""

    provider_account: Annotated[str, Field(min_length=1, max_length=64)]
    environment: Annotated[str, Field(min_length=1, max_length=32)] = "sandbox"
    transaction_id: TransactionId
    """The provider's name of the transaction, unique in the provider account (and `recycled_on`)."""
    also_known_as: Annotated[tuple[TransactionId, ...], Field(max_length=5)] = ()
    """Other names of the same transaction, such as the bank's, which may be all that a statement names."""
    recycled_on: Day | None = None
    """The business day that the transaction's id is unique in, where the provider uses ids again."""
    kind: PaymentKind = PaymentKind.PAYMENT
    status: PaymentStatus
    amount_minor: AmountMinor
    """What was received, never what was asked for."""
    currency: CurrencyCode
    reference: Annotated[str, Field(max_length=64)] = ""
    """The reference of ours that the payer's payment carried; empty where it carried none."""
    source: PaymentSource
    confirmed: Flag = False
    """Of a callback: whether its signature covers every field above, or the status was read again before. Otherwise
    nothing is credited before the core has asked."""
    occurred_at: AnyMoment
    evidence_id: UUID | None = None


class ProviderPaymentBatch(Contract):
    """The body of `POST /internal/v1/provider-payments`. A repeat is harmless, with an event id or without."""

    event_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """The provider's own id of the callback: seen before with the same facts, it has no effect at all."""
    facts: Annotated[list[ProviderPayment], Field(min_length=1, max_length=1000)]


class PaymentFate(StrEnum):
    """What became of one fact."""

    CREDITED = "CREDITED"
    SUSPENDED = "SUSPENDED"
    NOTED = "NOTED"
    """Kept, and asked about; nothing was posted."""
    REVERSED = "REVERSED"
    KNOWN = "KNOWN"
    """The transaction was accounted for already: the fact is one more evidence of it."""
    QUARANTINED = "QUARANTINED"
    """The same transaction with other money: kept, alerted, without effect."""


class ProviderPaymentAnswers(Contract):
    """One fate per fact, in order; `replayed` where the event had come before."""

    fates: list[PaymentFate]
    replayed: bool = False
