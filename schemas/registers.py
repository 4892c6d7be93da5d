"""Registers: what a provider or a bank says it did on one of its business days, line by line.

Amounts are integers of minor units. A line says what happened there; what it means for the books is the core's.
"""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field

from schemas.base import AnyMoment, Contract, Flag
from schemas.jobs import CurrencyCode, RailName
from schemas.money import MAX_AMOUNT_MINOR

LINES_MAX: Final = 5_000
"""How many lines one request may bring."""
_MINOR = Field(strict=True, ge=0, le=MAX_AMOUNT_MINOR)
Reference = Annotated[str, Field(max_length=64, pattern=r"^[\x21-\x7e]*$")]
Section = Annotated[str, Field(max_length=32, pattern=r"^[a-z0-9_-]*$")]
Account = Annotated[str, Field(min_length=1, max_length=64)]
Environment = Annotated[str, Field(min_length=1, max_length=32)]


class RegisterOperation(StrEnum):
    """What moved the money."""

    PAYMENT = "PAYMENT"
    """A payment of ours (OUT), or one to us (IN)."""
    REFUND = "REFUND"
    """What we paid back of a payment to us."""
    RETURN = "RETURN"
    """A payment of ours came back (IN), or one to us was taken back (OUT)."""


class RegisterDirection(StrEnum):
    """Which way the money went, as we see it."""

    IN = "IN"
    OUT = "OUT"


class RegisterStatus(StrEnum):
    """How far it got there."""

    SETTLED = "SETTLED"
    PENDING = "PENDING"
    FAILED = "FAILED"
    RETURNED = "RETURNED"
    """Paid, and given back since."""


class RegisterLine(Contract):
    """One line of a register."""

    line: Annotated[int, Field(strict=True, ge=1, le=2_000_000_000)]
    """Its number in the file, by which it is one line however often it comes."""
    provider_ref: Reference
    """The provider's own name of the transaction; empty where the register has none."""
    our_ref: Reference
    """The reference of ours that it carries; empty where it carries none."""
    operation: RegisterOperation
    direction: RegisterDirection
    amount_minor: Annotated[int, _MINOR]
    fee_minor: Annotated[int, _MINOR] | None = None
    """What the provider took for it; None where the register does not tell."""
    currency: CurrencyCode
    status: RegisterStatus
    at: AnyMoment


class RegisterWanted(Contract):
    """A day whose register the core wants."""

    provider_account: Account
    environment: Environment
    business_day: date


class RegisterAwaited(RegisterWanted):
    """A day whose register was asked for and has not come."""

    rail: RailName
    age_s: int
    """How long ago it was asked for."""


class RegisterAsker(Contract):
    """The body of `POST /internal/v1/registers/wanted`."""

    asker: UUID | None = None
    """The adapter's process: what it was told to fetch, and has not brought, it is told again."""


class RegistersWanted(Contract):
    """What an adapter shall fetch, the oldest day first."""

    days: list[RegisterWanted]


class RegisterOpened(RegisterWanted):
    """The body of `POST /internal/v1/registers`: a register begins to come, from its first line."""

    section: Section = ""
    name: Annotated[str, Field(max_length=200)] = ""


class RegisterFile(Contract):
    """Under which id the lines come."""

    file_id: UUID


class RegisterLines(Contract):
    """Some lines of a register; the same line again changes nothing."""

    lines: Annotated[list[RegisterLine], Field(min_length=1, max_length=LINES_MAX)]


class RegisterTaken(Contract):
    """How many of the lines are new."""

    taken: int


class RegisterClosed(Contract):
    """The register is whole: this many lines, with this SHA-256 over what the provider sent."""

    lines: Annotated[int, Field(ge=0)]
    file_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    absent: Flag = False
    """The provider has no register of the day."""


class RegisterState(StrEnum):
    """What became of a register."""

    LOADING = "LOADING"
    COMPLETE = "COMPLETE"
    ABSENT = "ABSENT"
    SUPERSEDED = "SUPERSEDED"
    """A newer edition of the day took its place."""


class RegisterFileView(Contract):
    """One register as it is kept."""

    id: UUID
    rail: RailName
    provider_account: str
    environment: str
    business_day: date
    section: str
    source: str
    name: str
    state: RegisterState
    lines: int
    file_hash: str
    received_by: str
    received_at: datetime
    completed_at: datetime | None


class MatchClass(StrEnum):
    """What comparing came to: every line has exactly one of the first six, every payment of ours one of the others."""

    MATCHED = "matched"
    MISSING_HERE = "missing_here"
    """There, and not with us."""
    AMOUNT = "amount"
    FEE = "fee"
    STATUS = "status"
    DUPLICATE = "duplicate"
    MISSING_THERE = "missing_there"
    """In our books, and in no register."""
    CARRIED = "carried"
    """Not in a register yet, and so near the day's edge that the next one may have it."""
    FOUND_ELSEWHERE = "found_elsewhere"
    """In the register of another day."""


LINE_CLASSES: Final = (
    MatchClass.MATCHED,
    MatchClass.MISSING_HERE,
    MatchClass.AMOUNT,
    MatchClass.FEE,
    MatchClass.STATUS,
    MatchClass.DUPLICATE,
)


class Side(StrEnum):
    """Whose entries a tally counts."""

    THEIRS = "THEIRS"
    """Lines of the day's register."""
    OURS = "OURS"
    """What our books settled within the day, of which a register must tell."""


class Tally(Contract):
    """How many entries of one side came to one class, and how much they are, in one currency."""

    side: Side
    match: MatchClass
    currency: str
    count: int
    amount_minor: int


class RegisterRun(Contract):
    """One comparison of one day of a provider account."""

    id: UUID
    rail: RailName
    provider_account: str
    environment: str
    business_day: date
    register_state: str
    """COMPLETE, ABSENT (the provider has none) or MISSING (not fetched or imported yet)."""
    tallies: list[Tally]
    breaks: int
    new_breaks: int
    gone: int
    run_by: str
    started_at: datetime
    finished_at: datetime

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.breaks


class RegisterRunList(Contract):
    """Runs, the newest of each day and account."""

    items: list[RegisterRun]


class LineCount(Contract):
    """How many lines of a register are alike, and how much they are."""

    direction: RegisterDirection
    status: RegisterStatus
    currency: str
    count: int
    amount_minor: int
    fee_minor: int
    """Of those lines that tell a fee."""


class RegisterFileShown(Contract):
    """One register with what is in it."""

    register_file: RegisterFileView
    counts: list[LineCount]


class RegisterFileList(Contract):
    """Registers, the newest first, and beside them those of the last two weeks that have not come."""

    items: list[RegisterFileView]
    next_cursor: str | None = None
    awaited: list[RegisterAwaited]
    """What adapters were asked for, the oldest day first; a hundred at most."""


class CarriedItem(Contract):
    """A payment of ours that waits for the next day's register."""

    subject_id: UUID
    intent_id: UUID | None
    reference: str
    amount_minor: int
    currency: str
    booked_at: datetime
    age_s: int


class RegisterRunView(Contract):
    """One run with what it carried over, the oldest first."""

    run: RegisterRun
    carried: list[CarriedItem]
    next_cursor: str | None = None
    """Where more was carried over than is listed."""


class DayAsked(Contract):
    """Which day of which rail; without accounts it is every account of the rail."""

    rail: RailName
    business_day: date


class RefusedLineView(Contract):
    """A line that is no line of a register, by its number in the file."""

    line: int
    why: str


class RegisterReading(Contract):
    """What a register's file says as a whole, and the register that it became."""

    rail: RailName
    provider_account: str
    section: str
    lines: int
    days: list[date]
    """The days that its lines speak of, as the lines write them."""
    sums_minor: dict[str, int]
    """How much by direction and currency, such as `out_THB`."""
    refused: list[RefusedLineView]
    """Wrong lines, the first thousand; one refuses the file."""
    kept: RegisterFileView | None = None
    """None where it was only read."""


class RegistersAsked(Contract):
    """Of how many provider accounts a register was asked for."""

    accounts: int
