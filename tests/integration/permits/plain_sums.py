"""What wallets, limits and payments must come to, by plain sums: the model that the money machine is held against."""

from dataclasses import dataclass, field
from uuid import UUID

from schemas.api import IntentRequest

FUNDS, LIMIT, WALLETS = 300, 400, 3
ON_TRANSFER, ON_PAYOUT, ON_TOP_UP = 3, 5, 2
"""Fees on top, which go back with a refund."""
ON_EXCHANGE = {"THB": 2, "USD": 1, "JPY": 1}
"""Fees on top of what is paid for another currency."""
ENDS = ("SUCCEEDED", "DECLINED", "RETURNED", "LATE")
REACHED = frozenset({
    "transfer settled", "transfer held", "refund settled", "refund held", "refund of a part after another", "approved",
    "rejected", "cancelled", "expired", "payout SUCCEEDED", "payout DECLINED", "payout RETURNED", "payout LATE",
    "payout held", "returned in part", "credit by hand", "debit by hand", "by hand held", "USD bought", "USD sold",
    "JPY bought", "JPY sold", "closed", "account_closed", "frozen", "unfrozen", "repeated", "given out of suspense",
    "suspense held", "paid back out of suspense", "limit_exceeded", "account_frozen", "insufficient_funds",
    "rests for want of a limit", "rests, the wallet closed", "taken back", "taken back in part",
    "taken back beside a refund", "taken back from who has it no more", "top-up credited", "top-up out of suspense",
    "paid back", "top-up approved", "top-up rejected", "not paid back", "a part paid back after another",
})  # fmt: skip
"""What the rules are there for: a rule that only ever refuses would prove nothing."""


@dataclass(eq=False)
class Wallet:
    """What a wallet must have, and what it must have at its limit; minor units."""

    id: UUID
    posted: int = FUNDS
    held: int = 0
    used: int = 0
    claimed: int = 0
    frozen: bool = False
    closed: bool = False

    def refusal(self, debit: int, counted: int = 0, payee: "Wallet | None" = None) -> str | None:
        """Return why nothing more can be taken; None where it can. `counted` is what its limit counts."""
        if self.fills_its_limit(counted):
            return "limit_exceeded"
        if self.closed or (payee is not None and payee.closed):
            return "account_closed"
        if self.frozen:
            return "account_frozen"
        return "insufficient_funds" if self.posted - self.held < debit else None

    def fills_its_limit(self, counted: int) -> bool:
        """Whether there is no room for as much more."""
        return bool(counted) and self.claimed + self.used + counted > LIMIT


@dataclass(eq=False)
class Paid:
    """A transfer between two wallets, or the refund of one."""

    id: UUID
    payer: Wallet
    payee: Wallet
    request: IntentRequest
    key: str
    state: str
    original: "Paid | None" = None
    back: int = 0
    """The fees that a refund brings."""
    refunds: "list[Paid]" = field(default_factory=list)

    @property
    def amount(self) -> int:
        return self.request.amount_minor

    @property
    def received(self) -> int:
        """What the payee gets: a tenth, half up, is taken out of a transfer and kept."""
        return self.amount + self.back if self.original else self.amount - (self.amount + 5) // 10

    @property
    def debit(self) -> int:
        return self.amount if self.original else self.amount + ON_TRANSFER

    def standing(self) -> "list[Paid]":
        """The refunds that count."""
        return [each for each in self.refunds if each.state in ("REVIEW", "SETTLED")]
