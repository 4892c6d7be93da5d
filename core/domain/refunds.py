"""What is left of a payment to refund, and which part of its fees goes back with it. Pure."""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from core.domain.fee_legs import FeeLeg
from core.domain.intents import IntentRow
from schemas.operations import Direction

RuleVersion = tuple[UUID, int]
"""The id of a fee rule and its version."""


@dataclass(slots=True)
class Refundable:
    """A settled payment with what was refunded of it, open refunds included; amounts are minor units.

    Refunds count against what its recipient received: that is what there is to give back.
    """

    original: IntentRow
    returning: frozenset[RuleVersion] = frozenset()
    """The versions of fee rules whose fees go back with a refund."""
    refunded_minor: int = 0
    returned: Counter[str] = field(default_factory=Counter)
    """What went back of each fee, by the name of its leg."""

    def count(self, refunds: Iterable[IntentRow]) -> None:
        """Count refunds that exist."""
        for refund in refunds:
            if refund.direction == Direction.PAYBACK and refund.provider_reference != self.original.provider_reference:
                continue  # another payment of the same payer's, which rested in suspense and never reached the wallet
            self.refunded_minor += refund.amount_minor
            self.returned.update({leg.name: leg.amount_minor for leg in refund.fee_legs})

    def uncount(self, returns: Iterable[IntentRow]) -> None:
        """Take back from the count what came back of refunds: it never reached who paid."""
        self.refunded_minor -= sum(each.amount_minor for each in returns)

    @property
    def whole_minor(self) -> int:
        """What there was to refund at first: what the recipient got, or of a collection what the payer paid."""
        return self.original.principal_minor if self.original.is_collected else self.original.received_minor

    @property
    def left_minor(self) -> int:
        """What may still be refunded: nothing, where refunds and returns together were more than was paid."""
        return max(0, self.whole_minor - self.refunded_minor)

    def take(self, amount_minor: int) -> tuple[FeeLeg, ...] | None:
        """Count a refund and return the fees that go back with it; None, and nothing counted, where it is too much.

        Of each fee goes back what all refunds together have earned of it, in proportion and rounded DOWN, less what
        went back before: so parts never add up to more than was taken, and the last one brings what is left.
        """
        if amount_minor > self.left_minor:
            return None
        self.refunded_minor += amount_minor
        legs = []
        # What goes back out comes from the wallet by at least one unit, whatever the fees were.
        most_minor = amount_minor - 1 if self.original.is_collected else sys.maxsize
        for leg in self.original.fee_legs:
            if (leg.rule_id, leg.rule_version) not in self.returning:
                continue
            earned_minor = leg.amount_minor * self.refunded_minor // self.whole_minor
            back_minor = min(earned_minor - self.returned[leg.name], most_minor)
            if back_minor > 0:
                self.returned[leg.name] += back_minor
                most_minor -= back_minor
                legs.append(leg._replace(amount_minor=back_minor))
        return tuple(legs)
