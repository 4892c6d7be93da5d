"""The life of an intent: its row, the transitions that are allowed, and a change of state. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

from core.domain.exchange import ExchangeTerms
from core.domain.fee_legs import FeeLeg, sum_minor
from schemas.events import TERMINAL_STATES, IntentState
from schemas.fees import FeePhase
from schemas.operations import COLLECTED, Direction

_OPEN: Final = frozenset(IntentState) - TERMINAL_STATES

ALLOWED: Final[Mapping[IntentState, frozenset[IntentState]]] = {
    IntentState.CREATED: frozenset(),
    IntentState.VALIDATED: frozenset({IntentState.CREATED}),
    IntentState.AWAITING_CONFIRMATION: frozenset({IntentState.VALIDATED}),
    # Money in is looked at once it is there.
    IntentState.REVIEW: frozenset(
        {
            IntentState.VALIDATED,
            IntentState.AWAITING_CONFIRMATION,
            IntentState.AUTHORIZED,
            IntentState.DISPATCHED,
            IntentState.UNRESOLVED,
        }
    ),
    IntentState.AUTHORIZED: frozenset({IntentState.VALIDATED, IntentState.AWAITING_CONFIRMATION, IntentState.REVIEW}),
    IntentState.DISPATCHED: frozenset({IntentState.AUTHORIZED}),
    IntentState.SETTLED: frozenset(
        {IntentState.REVIEW, IntentState.AUTHORIZED, IntentState.DISPATCHED, IntentState.UNRESOLVED}
    ),
    IntentState.FAILED: _OPEN,
    IntentState.CANCELLED: _OPEN,
    IntentState.EXPIRED: _OPEN,
    IntentState.UNRESOLVED: frozenset({IntentState.AUTHORIZED, IntentState.DISPATCHED}),
}
"""Which states a state may be entered from. No terminal state is left, so a late fact never moves an intent back."""


NOT_STORED_YET: Final = datetime.min.replace(tzinfo=UTC)
"""The time of a row before the database gave it one."""


def may_move(source: IntentState, target: IntentState) -> bool:
    """Whether the life of an intent knows this step."""
    return source in ALLOWED[target]


@dataclass(slots=True)
class IntentRow:
    """One intent as it is stored; amounts are minor units of `currency`."""

    id: UUID
    tenant_id: UUID
    service_key_id: str
    operation: str
    state: str
    wallet_id: UUID
    amount_minor: int
    currency: str
    accept_state: str
    version: int = 1
    fee_minor: int = 0
    client_reference: str = ""
    rail: str | None = None
    provider: str | None = None
    provider_account: str | None = None
    environment: str | None = None
    subject_id: UUID | None = None
    instruction: bytes | None = None
    payee_type: str | None = None
    payee_masked: str | None = None
    auto_confirm: dict[str, Any] | None = None
    lookup: dict[str, Any] | None = None
    provider_reference: str | None = None
    failure_code: str | None = None
    failure_message: str | None = None
    decision: str | None = None
    deadline: datetime | None = None
    parked_at: datetime | None = None
    limits: dict[str, Any] | None = None
    """What it has at the counters of limits (`held`), or the limit that it did not fit (`exceeded`)."""
    ledger_epoch: int = 1
    traceparent: str | None = None
    created_at: datetime = NOT_STORED_YET
    updated_at: datetime = NOT_STORED_YET
    fee_legs: tuple[FeeLeg, ...] = ()
    """The fees by rule, as they were priced at acceptance; `fee_minor` includes those that are on top."""
    counterparty_wallet_id: UUID | None = None
    """The other wallet of an operation between two."""
    direction: str | None = None
    """Which way the money goes, of an operation that knows several."""
    original_intent_id: UUID | None = None
    """The payment that a refund is about; its fee legs are then those that go back."""
    requires_monitoring: bool = False
    """Whether it waits, held, for a decision before it goes on."""
    review_until: datetime | None = None
    """When that wait ends; None where it does not wait."""
    on_behalf_of: dict[str, Any] | None = None
    comment: str = ""
    """The user that it is made for, and who acts."""
    exchange: ExchangeTerms | None = None
    """Of EXCHANGE: what the other wallet gets, and by which quote."""
    next_action: dict[str, Any] | None = None
    """Of a collection: what its payer is shown."""
    payee_qr: dict[str, Any] | None = None
    """The parts of the scanned code that the payee came as."""
    confirmed_minor: int | None = None
    """Of a collection: what was received, where that is not just the amount, or its payer was asked for more."""
    asked_minor: int | None = None
    """Of a collection: what its payer was asked for, where fees are on top; None where that is the amount."""

    @property
    def fees_on_top_minor(self) -> int:
        """The fees by rule that the payer pays beside the amount."""
        return sum_minor(self.fee_legs, FeePhase.PRE) if self.fee_legs and not self.is_refund else 0

    @property
    def principal_minor(self) -> int:
        """What goes from one party to the other, and a provider is told to pay: the amount less the fees out of it."""
        if self.is_collected:
            # It all comes in, with the fees on top that the payer was asked for; they all leave the wallet behind it.
            return self.confirmed_minor or self._unconfirmed_minor
        if self.direction == Direction.OUT:
            # The payer gets it all back; the fees that go back with it come from who got them.
            return self.amount_minor - sum(leg.amount_minor for leg in self.fee_legs)
        if not self.fee_legs or self.is_refund or self.exchange is not None:
            # What fees take out of an exchange comes out of what is bought.
            return self.amount_minor
        return self.amount_minor - sum_minor(self.fee_legs, FeePhase.POST)

    @property
    def expected_minor(self) -> int:
        """Of a collection: what its payer was asked for, whatever came; a code's further payments are held to it."""
        return self.asked_minor or self.amount_minor

    @property
    def _unconfirmed_minor(self) -> int:
        """Of a collection without a note of what came: just the amount where it was paid, else what is to come.

        Where more than the amount was asked for, a note is always made; only a release that asked for no fees on top
        makes none of an amount that came as it is.
        """
        was_paid = self.decision == "POST" or self.state == IntentState.REVIEW
        return self.amount_minor if was_paid else self.expected_minor

    @property
    def bought_minor(self) -> int:
        """What the counterparty of an exchange gets, in the currency that is bought; 0 where nothing is exchanged."""
        return 0 if self.exchange is None else self.exchange.to_minor - sum_minor(self.fee_legs, FeePhase.POST)

    def currency_of_fee(self, leg: FeeLeg) -> str:
        """Return the currency of a leg of its fees."""
        return self.exchange.currency if self.exchange is not None and leg.phase is FeePhase.POST else self.currency

    @property
    def received_minor(self) -> int:
        """What the recipient gets: the principal and, of a refund, the fees that go back."""
        back_minor = sum(leg.amount_minor for leg in self.fee_legs) if self.is_refund else 0
        return self.principal_minor + back_minor

    @property
    def recipient_minor(self) -> int:
        """What is left to the recipient: of money in, what came less every fee, as they all leave the wallet."""
        if not self.is_collected:
            return self.received_minor
        return self.received_minor - sum(leg.amount_minor for leg in self.fee_legs)

    @property
    def is_collected(self) -> bool:
        """Whether it brings money in."""
        return self.operation in COLLECTED

    @property
    def awaits_money(self) -> bool:
        """Whether its money has yet to come in: a deposit out of suspense holds what rests there."""
        return self.is_collected and self.direction != Direction.RELEASE

    @property
    def expects_payment(self) -> bool:
        """Whether it is a collection that nobody has paid yet: one in review was paid, and its money rests."""
        return self.decision is None and IntentState(self.state) in _OPEN - {IntentState.REVIEW}

    @property
    def is_refund(self) -> bool:
        """Whether it gives back what another payment moved."""
        return self.original_intent_id is not None


def lookup_expiry(intent: IntentRow) -> datetime | None:
    """Return when the provider stops taking a payment that is bound to the intent's lookup; None without one."""
    told = (intent.lookup or {}).get("expires_at")
    return datetime.fromisoformat(told) if told else None


def confirmable_until(intent: IntentRow) -> datetime:
    """Return when a looked-up intent can no longer be confirmed: its lookup's expiry or its deadline."""
    ends = [intent.deadline, lookup_expiry(intent)]
    return min((end for end in ends if end is not None), default=NOT_STORED_YET)


@dataclass(frozen=True, slots=True)
class Move:
    """One change of one intent. Fields that are None stay as they are; `parked` None leaves the mark be."""

    intent_id: UUID
    to: IntentState
    type: str
    """The event's name: what happened, such as `settled` or `cancelled_by_client`."""
    data: Mapping[str, Any] = field(default_factory=dict)
    failure_code: str | None = None
    failure_message: str | None = None
    decision: Literal["POST", "VOID"] | None = None
    provider_reference: str | None = None
    fee_minor: int | None = None
    lookup: Mapping[str, Any] | None = None
    limits: Mapping[str, Any] | None = None
    deadline: datetime | None = None
    parked: bool | None = None
