"""What may be pulled under a mandate, and as which debit of it. Pure."""

from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID

from schemas.mandates import MandateKind, MandateState, SequenceType

_LAST = frozenset({SequenceType.ONE_OFF, SequenceType.FINAL})


@dataclass(slots=True)
class Mandate:
    """A mandate; `drawn` are the kinds of its debits that did not fail, `debtor` is sealed."""

    tenant_id: UUID
    mandate_id: str
    wallet_id: UUID
    kind: MandateKind
    signed_on: date
    valid_from: date
    valid_until: date | None
    max_amount_minor: int | None
    debtor: bytes
    account_masked: str
    created_by: str
    created_at: datetime
    cancelled_at: datetime | None = None
    drawn: set[SequenceType] = field(default_factory=set)
    takes: int = 0
    """How many debits were planned under it since it was read."""

    @property
    def state(self) -> MandateState:
        """Where it stands."""
        if self.cancelled_at is not None:
            return MandateState.CANCELLED
        return MandateState.ENDED if self.drawn & _LAST else MandateState.ACTIVE

    def next_sequence(self, *, final: bool) -> SequenceType:
        """Return which debit the next one is. A first one that failed was none: the next is the first."""
        if self.kind is MandateKind.ONE_OFF:
            return SequenceType.ONE_OFF
        if final:
            return SequenceType.FINAL
        return SequenceType.RECURRING if self.drawn else SequenceType.FIRST

    @property
    def terms(self) -> tuple[object, ...]:
        """What was agreed on; who signed it is sealed, and compared apart."""
        return (self.wallet_id, self.kind, self.signed_on, self.valid_from, self.valid_until, self.max_amount_minor)
