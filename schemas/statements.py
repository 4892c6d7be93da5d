"""A wallet's statement: what it had, what moved, what it has then. Amounts are integers of minor units."""

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from schemas.api import WalletEntry
from schemas.base import Contract
from schemas.operations import OperationType


class StatementFormat(StrEnum):
    """How a statement is written."""

    JSON = "json"
    CSV = "csv"


class StatementHead(Contract):
    """Whose statement it is and what it begins with. Days are those of the timezone, the last one included."""

    wallet_id: UUID
    owner: str
    external_id: str | None
    currency: str
    timezone: str
    first_day: date
    last_day: date
    begin: datetime
    end: datetime
    """Just before this: the end of the last day, or the moment of asking where that day is not over."""
    opening_balance_minor: int


class StatementTotal(Contract):
    """What came and went by one operation, its fees aside; absent for entries without a payment."""

    operation: OperationType | None
    entries: int
    credit_minor: int
    debit_minor: int


class StatementFees(Contract):
    """Fees that the wallet paid, and those that it was given."""

    entries: int
    credit_minor: int
    debit_minor: int


class StatementTail(Contract):
    """What the statement ends with."""

    totals: list[StatementTotal]
    fees: StatementFees
    closing_balance_minor: int


class WalletStatement(StatementHead, StatementTail):
    """A whole statement, oldest entry first. One that breaks off before its closing balance is not whole."""

    entries: list[WalletEntry]
