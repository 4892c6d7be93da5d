"""Operation types and the kinds of job that carry them out."""

from enum import StrEnum
from typing import Final


class OperationType(StrEnum):
    """What a client asks for (protocol: words)."""

    TOPUP = "TOPUP"
    DEPOSIT = "DEPOSIT"
    WITHDRAWAL = "WITHDRAWAL"
    PAYOUT = "PAYOUT"
    BILL_PAYMENT = "BILL_PAYMENT"
    INTERNAL_P2P = "INTERNAL_P2P"
    MINIAPP_CHARGE = "MINIAPP_CHARGE"
    MINIAPP_CREDIT = "MINIAPP_CREDIT"
    EXCHANGE = "EXCHANGE"
    REFUND = "REFUND"
    DIRECT_DEBIT = "DIRECT_DEBIT"
    MANUAL_ADJUSTMENT = "MANUAL_ADJUSTMENT"


COLLECTED: Final = frozenset({OperationType.TOPUP, OperationType.DEPOSIT, OperationType.DIRECT_DEBIT})
"""Operations by which money comes in: limits are held for them, and no money."""


class Direction(StrEnum):
    """Which way an operation moves its money that knows several. A client chooses among the first five."""

    CREDIT = "CREDIT"
    DEBIT = "DEBIT"
    TO_LIQUIDITY = "TO_LIQUIDITY"
    """Out of a wallet, into what exchanges of its currency are paid from."""
    FROM_LIQUIDITY = "FROM_LIQUIDITY"
    TO_SUSPENSE = "TO_SUSPENSE"
    """Out of a wallet, into suspense, which is short of what nobody else was charged for."""
    RETURN = "RETURN"
    """A provider gave a payment back: to the wallet that paid it."""
    SUSPENSE = "SUSPENSE"
    """A provider gave a payment back whose wallet cannot have it, or whose tenant wants to look first."""
    RELEASE = "RELEASE"
    """What rested in suspense goes to a wallet, as a person decided."""
    PAYBACK = "PAYBACK"
    """What rested in suspense goes back to who paid it, as a person decided or the provider did."""
    REVERSAL = "REVERSAL"
    """What was collected was taken back from us: out of the wallet that got it."""
    OUT = "OUT"
    """What was collected goes back to who paid it, through the rail that it came by, as a client asked."""
    RECEIVABLE = "RECEIVABLE"
    """The part of it that the wallet has no more: the tenant is owed it."""


class JobKind(StrEnum):
    """One unit of work for an adapter. `inquire` and `cancel` travel on the control stream."""

    LOOKUP = "lookup"
    PAY = "pay"
    COLLECT = "collect"
    REFUND = "refund"
    INQUIRE = "inquire"
    CANCEL = "cancel"

    @property
    def moves_money(self) -> bool:
        """True where a provider call may move money: such a job needs an attempt row before it is sent."""
        return self in (JobKind.PAY, JobKind.COLLECT, JobKind.REFUND)

    @property
    def on_control_stream(self) -> bool:
        """True for the kinds with concurrency of their own, so that neither stream starves the other."""
        return self in (JobKind.INQUIRE, JobKind.CANCEL)
