"""Fees: rules as they are set, listed and tried. Amounts are integers of minor units of the rule's currency."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, model_validator

from schemas.base import MOMENT_AS_WRITTEN, Contract, Flag
from schemas.jobs import AmountMinor, CurrencyCode
from schemas.money import MAX_AMOUNT_MINOR
from schemas.operations import OperationType

EXPRESSION_MAX_SIGNS = 1000
"""The longest expression that a rule may have."""
RuleName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Expression = Annotated[
    str, Field(min_length=1, max_length=EXPRESSION_MAX_SIGNS, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+$")
]
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC)),
    MOMENT_AS_WRITTEN,
]
"""A moment that every timezone has a date for."""
Label = Annotated[str, Field(max_length=32, pattern=r"^[A-Za-z0-9._-]*$")]
"""A tier or a channel; empty where none is known."""
FeeMinor = Annotated[int, Field(strict=True, ge=0, le=MAX_AMOUNT_MINOR)]


class FeePhase(StrEnum):
    """PRE is taken on top, before the payment; POST is taken out of its amount."""

    PRE = "PRE"
    POST = "POST"


class Rounding(StrEnum):
    """How a fraction of a minor unit becomes a whole one."""

    HALF_UP = "HALF_UP"
    HALF_EVEN = "HALF_EVEN"
    UP = "UP"
    DOWN = "DOWN"


class FeeOnRefund(StrEnum):
    """What becomes of a fee when its payment is refunded: the tenant keeps it, or it goes back in proportion."""

    KEPT = "KEPT"
    RETURNED = "RETURNED"


class FeeRate(Contract):
    """A fixed part plus basis points (hundredths of a percent) of the amount; the sum is rounded once."""

    kind: Literal["RATE"] = "RATE"
    fixed_minor: FeeMinor = 0
    basis_points: Annotated[int, Field(strict=True, ge=0, le=10_000)] = 0
    rounding: Rounding = Rounding.HALF_UP


class FeeFormula(Contract):
    """A CEL expression whose result is the fee: an integer of minor units, 0 or more."""

    kind: Literal["FORMULA"]
    expression: Expression


class FeeShare(Contract):
    """Who gets which part of the fee: an account of the tenant's own (`code`, `qualifier`), or a wallet."""

    code: Literal["FEE_INCOME"] = "FEE_INCOME"
    qualifier: Label = ""
    wallet_id: UUID | None = None
    parts: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 1

    @model_validator(mode="after")
    def _one_account(self) -> Self:
        if self.wallet_id is not None and self.qualifier:
            raise ValueError("a wallet has no qualifier: leave one of them out")
        return self


class FeeSample(Contract):
    """A payment and the fee that the rule shall take of it: 0 where it shall not apply."""

    amount_minor: AmountMinor
    tier: Label = ""
    channel: Label = ""
    at: Moment | None = None
    """Left out: the moment of saving."""
    fee_minor: FeeMinor


class FeeRuleRequest(Contract):
    """One rule. A name that is in use gets its next version; what was used before is never edited."""

    name: RuleName
    operation: OperationType
    currency: CurrencyCode
    phase: FeePhase = FeePhase.PRE
    priority: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 100
    """Rules are looked at from the lowest number up; of equals, by name."""
    last: Flag = False
    """Where this rule applies, no later rule of its phase is looked at."""
    when: Expression = "true"
    fee: FeeRate | FeeFormula
    minimum_minor: FeeMinor | None = None
    maximum_minor: FeeMinor | None = None
    shares: Annotated[tuple[FeeShare, ...], Field(min_length=1, max_length=16)] = (FeeShare(),)
    on_refund: FeeOnRefund = FeeOnRefund.KEPT
    valid_from: Moment | None = None
    """Left out: from the moment of saving. Until then the version before it stays in force."""
    valid_until: Moment | None = None
    samples: Annotated[tuple[FeeSample, ...], Field(max_length=50)] = ()

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if None not in (self.minimum_minor, self.maximum_minor) and self.minimum_minor > self.maximum_minor:  # type: ignore[operator]
            raise ValueError("minimum_minor exceeds maximum_minor")
        if self.valid_from and self.valid_until and self.valid_from >= self.valid_until:
            raise ValueError("valid_until is not after valid_from")
        accounts = [(share.code, share.qualifier, share.wallet_id) for share in self.shares]
        if len(set(accounts)) != len(accounts):
            raise ValueError("an account has two shares: add their parts")
        return self


class FeeRuleView(Contract):
    """One version of a rule as it is stored."""

    id: UUID
    version: int
    enabled: bool
    name: str
    valid_from: datetime
    created_at: datetime
    created_by: str
    rule: dict[str, Any]
    """A FeeRuleRequest."""


class FeeRuleList(Contract):
    """Rules by operation, currency, priority and name; or the versions of one, newest first."""

    items: list[FeeRuleView]


class FeeDryRunRequest(Contract):
    """A payment that is priced and not made."""

    operation: OperationType
    amount_minor: AmountMinor
    currency: CurrencyCode
    tier: Label = ""
    channel: Label = ""
    at: Moment | None = None
    """Left out: now."""
    bought: Flag = False
    """Whether the amount is what an EXCHANGE buys: its POST rules are asked then, otherwise its PRE rules."""

    @model_validator(mode="after")
    def _buys(self) -> Self:
        if self.bought and self.operation is not OperationType.EXCHANGE:
            raise ValueError("bought is for EXCHANGE alone")
        return self


class FeeRuleOutcome(StrEnum):
    """What became of a rule that was looked at."""

    APPLIED = "APPLIED"
    NOT_IN_FORCE = "NOT_IN_FORCE"
    CONDITION_FALSE = "CONDITION_FALSE"
    NOTHING_DUE = "NOTHING_DUE"
    AFTER_LAST = "AFTER_LAST"


class FeeRuleTrace(Contract):
    """One rule that was looked at, in order, and why it applied or not."""

    name: str
    rule_id: UUID
    version: int
    phase: FeePhase
    outcome: FeeRuleOutcome
    fee_minor: int
    when: str


class FeeLegView(Contract):
    """One movement of a fee."""

    name: str
    phase: FeePhase
    code: str
    qualifier: str
    wallet_id: UUID | None
    amount_minor: int
    currency: str
    """That of the payment, or of what an exchange buys."""
    rule_id: UUID
    rule_version: int


class FeeDryRunView(Contract):
    """The fees of a payment: the payer pays `debited_minor`, the recipient is left with `received_minor`."""

    legs: list[FeeLegView]
    pre_minor: int
    post_minor: int
    debited_minor: int
    received_minor: int
    rules: list[FeeRuleTrace]
