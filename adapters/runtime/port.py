"""The port: what a rail implements. Everything else (permits, claims, publishing, drain) is the runtime's.

A rail translates. It returns an Outcome, or raises one of `adapters.runtime.errors`, which say what is known
about the money; the runtime turns both into verdicts in one place. A power that not every provider has is a
small protocol of its own: a rail that has it simply has the method.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from schemas.announced_returns import AnnouncedReturns
from schemas.collections import NextAction, ProviderPayment, ProviderPaymentAnswers, ProviderPaymentBatch, Received
from schemas.operations import OperationType
from schemas.permits import LookupBinding, Payee
from schemas.rails import EvidenceItem, RailRegistration
from schemas.registers import RegisterLine
from schemas.results import Basis, Result, Verdict


class Order(NamedTuple):
    """One thing to do, as the permit states it. The stream's entry contributes nothing to it.

    `reference` is the payment's own; for an inquiry or a cancel it is that of the payment asked about.
    """

    job_id: UUID
    reference: str
    amount_minor: int
    currency: str
    provider_account: str
    payee: Payee | None = None
    message: str = ""
    lookup: LookupBinding | None = None
    operation: OperationType | None = None
    expires_at: datetime | None = None
    """Of a collection: until when the payer may pay."""


class Outcome(NamedTuple):
    """What the provider said.

    `amount_minor` is what the provider stated, never an echo of the order. `payee_name` and `evidence` (the
    raw answer) go to the core encrypted and never through a stream. `basis` is set only where it differs
    from what the call implies: a submission answered with the status of its reference.
    """

    verdict: Verdict
    amount_minor: int | None = None
    currency: str | None = None
    provider_tx_id: str | None = None
    reason: str = ""
    retry_after_s: float | None = None
    lookup: LookupBinding | None = None
    payee_name: str | None = None
    evidence: str = ""
    basis: Basis | None = None
    next_action: NextAction | None = None
    """With AWAITING_PAYMENT: what the payer is shown."""
    further: Sequence[Received] = ()
    """Of a collection: payments that the provider lists beside the one that the verdict is about: money too."""


class Rail(Protocol):
    """The least that a rail does: it declares itself, and it pays."""

    def registration(self) -> RailRegistration:
        """Return the record of what this provider can do, per operation."""
        ...

    async def pay(self, order: Order) -> Outcome:
        """Submit the payment under `order.reference`, once."""
        ...

    async def close(self) -> None:
        """Let go of connections; nothing is in flight any more."""
        ...


@runtime_checkable
class PaysMany(Protocol):
    """Can submit many payments in one exchange, such as a file or a bulk call."""

    async def pay_many(self, orders: Sequence[Order]) -> Sequence[Outcome | Exception]:
        """Submit each order once, under its own reference; one answer an order, in the orders' order.

        An exception among the answers speaks of its order alone; one that is raised speaks of all of them. The whole
        exchange has the time of one call.
        """
        ...


@runtime_checkable
class LooksUp(Protocol):
    """Can ask who a payee is and what the payment costs, before it is made."""

    async def lookup(self, order: Order) -> Outcome:
        """Return FOUND with the binding that `pay` confirms. Moves no money."""
        ...


@runtime_checkable
class Inquires(Protocol):
    """Can ask what became of a reference, also when no answer to it ever arrived."""

    async def inquire(self, order: Order) -> Outcome:
        """Return the status of the reference. Moves no money."""
        ...


@runtime_checkable
class Cancels(Protocol):
    """Can see to it that a reference never executes, also one that the provider has not seen."""

    async def cancel(self, order: Order) -> Outcome:
        """Return CANCELLED, or the status that stands in the way (SUCCEEDED: it was paid). Idempotent."""
        ...


@runtime_checkable
class Collects(Protocol):
    """Can take money in: by a QR code, by an account to transfer to, or by pulling it under a mandate."""

    async def collect(self, order: Order) -> Outcome:
        """Ask the provider, once per `order.reference`, to take `order.amount_minor` in until `order.expires_at`.

        Return AWAITING_PAYMENT with `next_action`; PENDING where nobody has to be shown anything (a direct debit, whose
        mandate is `order.payee`). Asked again with the same reference, it is the same collection.
        """
        ...

    async def check_collection(self, order: Order) -> Outcome:
        """Return where the collection stands: AWAITING_PAYMENT (with `next_action` if the provider tells it), PENDING,
        PAID, EXPIRED, CANCELLED, DECLINED, RETURNED or NOT_FOUND.

        PAID and RETURNED state `amount_minor`, `currency` and `provider_tx_id`: what was received, and never the
        order's. Only money that is booked at the provider is PAID.
        """
        ...

    async def cancel_collection(self, order: Order) -> Outcome:
        """See to it that the payer can pay no more: CANCELLED, or the status that stands in the way. Idempotent."""
        ...


@runtime_checkable
class Refunds(Protocol):
    """Can pay back what somebody paid in."""

    async def refund(self, order: Order) -> Outcome:
        """Pay `order.amount_minor` back to who paid the transaction `order.payee.value`, once per reference."""
        ...

    async def check_refund(self, order: Order) -> Outcome:
        """Return the status of the refund by its own reference. Moves no money."""
        ...


class Callback(NamedTuple):
    """A request of the provider as it came: nothing of it is believed yet. Names of headers are in lower case."""

    body: bytes
    headers: Mapping[str, str]
    path: str


class Verified(NamedTuple):
    """What a genuine callback says.

    `sent_at_s`, in Unix seconds, is a time that the signature covers; None where it covers none, and then a replay is
    told by its `event_id` alone. Without an event id of the provider's, the runtime takes the hash of the body.
    """

    facts: Sequence[ProviderPayment]
    event_id: str | None = None
    sent_at_s: int | None = None


@runtime_checkable
class ReceivesCallbacks(Protocol):
    """Is called back by its provider. The runtime listens, bounds, keeps and answers; the rail understands."""

    async def verify(self, callback: Callback) -> Verified:
        """Check the signature over the raw bytes and return what they say.

        Where the signature leaves a field out, either read the status again and say `confirmed`, or do not say it.
        Raises `adapters.runtime.callbacks.CallbackRefused` for what is not the provider's.
        """
        ...


class Listener(Protocol):
    """Who is told of what a rail saw without having been asked."""

    async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
        """Take facts about money that came in; a repeat has no further effect. Raises the core client's errors."""
        ...

    async def tell(self, result: Result) -> None:
        """Publish a verdict about a payment of ours, such as its return; a repeat is one fact. Raises RedisError."""
        ...

    async def keep_evidence(self, item: EvidenceItem) -> UUID | None:
        """Keep what shows a verdict, encrypted; return its id, None where the core does not take it now."""
        ...

    async def announce(self, told: AnnouncedReturns) -> None:
        """Tell of payments that are coming back; a repeat has no further effect. Raises the core client's errors."""
        ...


@runtime_checkable
class Watches(Protocol):
    """Must look at its provider also when nobody asks: a mailbox, a register."""

    async def watch(self, listener: Listener) -> None:
        """Look until cancelled. What could not be told is told again; no error of the provider's ends it."""
        ...


@runtime_checkable
class KeepsRegisters(Protocol):
    """Has a provider that writes down what it did on each of its business days."""

    def register(self, day: date) -> AsyncIterator[Sequence[RegisterLine]]:
        """Yield the day's register in pages, in the provider's order, each line under its number in the whole.

        Raises `adapters.runtime.registers.RegisterAbsent` where the provider has none of the day, and the runtime's
        errors. Moves no money.
        """
        ...
