"""The registry of operations: each is declared here, and nowhere else does the core decide by the name of one. Pure.

docs/operations.md is generated from it. A new operation is a value of `OperationType` and an entry of OPERATIONS.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from schemas.operations import Direction, JobKind, OperationType


class TransferCode(IntEnum):
    """Why money moved."""

    PRINCIPAL = 1
    FEE = 2
    ADJUSTMENT = 3
    SUSPENSE = 4
    EXCHANGE = 5
    SPREAD = 6


class Role(StrEnum):
    """Whose account a leg debits or credits, as seen from the intent."""

    WALLET = "the wallet"
    COUNTERPARTY = "the counterparty's wallet"
    CLEARING = "provider clearing"
    EQUITY = "equity"
    SUSPENSE = "suspense"
    LIQUIDITY = "liquidity"
    RECEIVABLE = "receivable"
    SPREADS = "fee income of spreads"


class Counted(StrEnum):
    """Which limits count an operation."""

    ALWAYS = "all"
    BY_NAME = "those that name it"
    NEVER = "none"


class By(StrEnum):
    """Who starts a movement."""

    CLIENT = "a client"
    CORE = "the core, by the provider's word"
    PERSON = "a person, about an item in suspense"
    EITHER = "a person, about an item in suspense; the core, where the provider took it back"


@dataclass(frozen=True, slots=True)
class Steps:
    """What happens to an intent, in words, for the table of the docs."""

    start: str
    start_result: str
    execute: str
    execute_result: str


_AT_ONCE: Final = Steps(
    "post the whole chain", "SETTLED, or FAILED with nothing moved", "none: settled when accepted", "none"
)
_THROUGH_A_RAIL: Final = Steps(
    "look the payee up and wait for `confirm`, where the rail does so; hold the whole chain, queue a `pay` job",
    "AUTHORIZED and held, or FAILED with nothing held",
    "the provider pays what the recipient receives",
    "SETTLED and posted; FAILED and voided; UNRESOLVED and held while in doubt",
)
_GIVEN_BACK: Final = Steps(
    "lock the original, count what was refunded of it, post the whole chain, with the fees that go back",
    "SETTLED, or FAILED with nothing moved",
    "none: settled when accepted",
    "none",
)
_PAID_BACK: Final = Steps(
    "lock the original, count what was refunded of it, hold the whole chain, queue a `refund` job of the rail that it "
    "came by",
    "AUTHORIZED and held, or FAILED with nothing held",
    "the provider pays the payer back",
    "SETTLED and posted; FAILED and voided; UNRESOLVED and held while in doubt",
)
_OUT_OF_SUSPENSE: Final = Steps(
    "lock the item; hold the whole chain, queue a `refund` job of the rail that it came by, once a second key approves "
    "where two are needed; where the provider took it back already, post",
    "AUTHORIZED or REVIEW, and held; SETTLED where the provider took it back",
    "the provider pays the payer back",
    "SETTLED and posted; FAILED and voided, with the item open again; UNRESOLVED and held while in doubt",
)
_RELEASED: Final = Steps(
    "lock the item; post the whole chain, or hold it until a second key approves",
    "SETTLED, or REVIEW and held",
    "none: settled when made or approved",
    "none",
)
_TOLD: Final = Steps(
    "post the whole chain, once for what the provider told", "SETTLED", "none: settled when made", "none"
)
_EXCHANGED: Final = Steps(
    "lock the quote and use it up; post the whole chain over both currencies' ledgers",
    "SETTLED, or FAILED with nothing moved",
    "none: settled when accepted",
    "none",
)
_COLLECTED: Final = Steps(
    "hold limits and no money, queue a `collect` job; show the payer what the provider answers in `next_action`",
    "AUTHORIZED, or FAILED with nothing held",
    "the payer pays, or the mandate is pulled; what the provider confirms counts",
    "SETTLED and credited; REVIEW where it is monitored, and what came rests in suspense until a person decides; "
    "FAILED, CANCELLED or EXPIRED, and what comes all the same rests in suspense",
)


@dataclass(frozen=True, slots=True)
class LegKind:
    """A leg: an amount goes from one role to the other."""

    debit: Role
    credit: Role
    code: TransferCode = TransferCode.PRINCIPAL


@dataclass(frozen=True, slots=True)
class Movement:
    """One way in which an operation moves its principal, which is what the recipient receives."""

    principal: LegKind
    steps: Steps
    job_kind: JobKind | None = None
    """Which job of a rail carries it out; without one it settles when it is accepted."""
    takes_fees: bool = False
    """Whether fee rules are asked."""
    returns_fees: bool = False
    """Whether fees of the payment that it gives back go back with it."""
    counted: Counted = Counted.NEVER
    by: By = By.CLIENT
    scope: str = ""
    """What a key must carry beside the operation to ask for it."""
    by_two: bool = False
    """Whether a second key decides about it, above what the tenant lets one key do alone."""


@dataclass(frozen=True, slots=True)
class Operation:
    """How an operation is carried out."""

    type: OperationType
    usual: Movement
    otherwise: Mapping[str, Movement] = field(default_factory=dict)
    """The movements by directions in which it is another."""
    offers: frozenset[Direction] = frozenset()
    """The directions that a client may ask for."""
    asked_for: Role = Role.WALLET
    """Whose wallet a key that is confined to wallets must cover to ask for it."""
    named_only: bool = False
    """Whether a key carries it only where it names it: `*` does not."""
    refunds: bool = False
    """Whether it gives back what another payment moved, and names that one."""
    refundable: bool = False
    """Whether who received it can give it back."""
    pulls: bool = False
    """Whether it takes the payer's money by a mandate: it names the mandate, and only the provider's word ends it."""
    bought: tuple[LegKind, ...] = ()
    """The legs in the ledger of another currency that a quote fixes: what is bought, then the spread."""

    def movement(self, direction: str | None) -> Movement:
        """Return how it moves its principal in a direction."""
        return self.usual if direction is None else self.otherwise.get(direction, self.usual)

    def job_kind_of(self, direction: str | None) -> JobKind | None:
        """Return which job carries it out in this direction; None where none does."""
        return self.movement(direction).job_kind

    @property
    def takes_fees(self) -> bool:
        """Whether fee rules are asked about what clients ask for."""
        return self.usual.takes_fees

    @property
    def needs_rail(self) -> bool:
        """Whether a provider carries it out, whatever its direction."""
        return self.usual.job_kind is not None

    @property
    def needs_payee(self) -> bool:
        """Whether it names somebody outside, whom a provider pays, or whose mandate it pulls by."""
        return self.usual.principal.credit is Role.CLEARING or self.pulls

    @property
    def collects(self) -> bool:
        """Whether it brings money in."""
        return self.usual.job_kind is JobKind.COLLECT

    @property
    def exchanges(self) -> bool:
        """Whether the other wallet gets another currency, by a quote."""
        return bool(self.bought)

    @property
    def needs_counterparty(self) -> bool:
        """Whether its request names another wallet of the tenant."""
        credited = {leg.credit for leg in (self.usual.principal, *self.bought)}
        return Role.COUNTERPARTY in credited and not self.refunds

    @property
    def confirms_first(self) -> bool:
        """Whether a rail that looks payees up makes it wait for a confirmation."""
        return self.usual.job_kind is JobKind.PAY


_PAYS: Final = Movement(
    LegKind(Role.WALLET, Role.CLEARING), _THROUGH_A_RAIL, JobKind.PAY, takes_fees=True, counted=Counted.ALWAYS
)
_COLLECTS: Final = Movement(
    LegKind(Role.CLEARING, Role.WALLET), _COLLECTED, JobKind.COLLECT, takes_fees=True, counted=Counted.ALWAYS
)
_TRANSFERS: Final = Movement(LegKind(Role.WALLET, Role.COUNTERPARTY), _AT_ONCE, takes_fees=True, counted=Counted.ALWAYS)
_DEPOSIT: Final = Operation(
    OperationType.DEPOSIT,
    _COLLECTS,
    {
        # What came without a collection, or too late for it, and a person knows whose it is.
        Direction.RELEASE: Movement(
            LegKind(Role.SUSPENSE, Role.WALLET, TransferCode.SUSPENSE),
            _RELEASED,
            counted=Counted.ALWAYS,
            by=By.PERSON,
            scope="SUSPENSE",
            by_two=True,
        )
    },
)
_REFUND: Final = Operation(
    OperationType.REFUND,
    # From who received the original to who paid it.
    Movement(LegKind(Role.WALLET, Role.COUNTERPARTY), _GIVEN_BACK, returns_fees=True, counted=Counted.BY_NAME),
    {
        # From who got what was collected to who paid it.
        Direction.OUT: Movement(
            LegKind(Role.WALLET, Role.CLEARING), _PAID_BACK, JobKind.REFUND, returns_fees=True, counted=Counted.BY_NAME
        ),
        Direction.RELEASE: Movement(
            LegKind(Role.SUSPENSE, Role.WALLET, TransferCode.SUSPENSE),
            _GIVEN_BACK,
            counted=Counted.BY_NAME,
            scope="SUSPENSE",
            by_two=True,
        ),
        Direction.RETURN: Movement(LegKind(Role.CLEARING, Role.WALLET), _TOLD, returns_fees=True, by=By.CORE),
        Direction.SUSPENSE: Movement(LegKind(Role.CLEARING, Role.SUSPENSE, TransferCode.SUSPENSE), _TOLD, by=By.CORE),
        Direction.PAYBACK: Movement(
            LegKind(Role.SUSPENSE, Role.CLEARING, TransferCode.SUSPENSE),
            _OUT_OF_SUSPENSE,
            JobKind.REFUND,
            by=By.EITHER,
            scope="SUSPENSE",
            by_two=True,
        ),
        Direction.REVERSAL: Movement(LegKind(Role.WALLET, Role.CLEARING), _TOLD, by=By.CORE),
        Direction.RECEIVABLE: Movement(LegKind(Role.RECEIVABLE, Role.CLEARING), _TOLD, by=By.CORE),
    },
    refunds=True,
)


def _by_hand(debit: Role, credit: Role, scope: str = "") -> Movement:
    leg = LegKind(debit, credit, TransferCode.ADJUSTMENT)
    return Movement(leg, _AT_ONCE, counted=Counted.BY_NAME, scope=scope, by_two=True)


_MANUAL_ADJUSTMENT: Final = Operation(
    OperationType.MANUAL_ADJUSTMENT,
    _by_hand(Role.EQUITY, Role.WALLET),
    {
        Direction.DEBIT: _by_hand(Role.WALLET, Role.EQUITY, "ADJUSTMENT_DEBIT"),
        Direction.TO_LIQUIDITY: _by_hand(Role.WALLET, Role.LIQUIDITY, "LIQUIDITY"),
        Direction.FROM_LIQUIDITY: _by_hand(Role.LIQUIDITY, Role.WALLET, "LIQUIDITY"),
        # What suspense is short of: who was served pays it, or a wallet of the house does.
        Direction.TO_SUSPENSE: _by_hand(Role.WALLET, Role.SUSPENSE, "SUSPENSE"),
    },
    offers=frozenset(
        {
            Direction.CREDIT,
            Direction.DEBIT,
            Direction.TO_LIQUIDITY,
            Direction.FROM_LIQUIDITY,
            Direction.TO_SUSPENSE,
        }
    ),
    # It makes money out of equity.
    named_only=True,
)
_EXCHANGE: Final = Operation(
    OperationType.EXCHANGE,
    Movement(
        LegKind(Role.WALLET, Role.LIQUIDITY, TransferCode.EXCHANGE),
        _EXCHANGED,
        takes_fees=True,
        counted=Counted.ALWAYS,
    ),
    bought=(
        LegKind(Role.LIQUIDITY, Role.COUNTERPARTY, TransferCode.EXCHANGE),
        LegKind(Role.LIQUIDITY, Role.SPREADS, TransferCode.SPREAD),
    ),
)

OPERATIONS: Final = {
    operation.type: operation
    for operation in (
        Operation(OperationType.PAYOUT, _PAYS),
        Operation(OperationType.WITHDRAWAL, _PAYS),
        Operation(OperationType.BILL_PAYMENT, _PAYS),
        Operation(OperationType.TOPUP, _COLLECTS),
        _DEPOSIT,
        Operation(OperationType.DIRECT_DEBIT, _COLLECTS, pulls=True),
        Operation(OperationType.INTERNAL_P2P, _TRANSFERS, refundable=True),
        # A merchant takes from a user's wallet what is owed to its own.
        Operation(
            OperationType.MINIAPP_CHARGE, _TRANSFERS, asked_for=Role.COUNTERPARTY, named_only=True, refundable=True
        ),
        Operation(OperationType.MINIAPP_CREDIT, _TRANSFERS, refundable=True),
        _REFUND,
        _MANUAL_ADJUSTMENT,
        _EXCHANGE,
    )
}
"""Every operation type."""
