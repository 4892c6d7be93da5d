"""Business days of rails, and what a comparison with a register can find. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

from core.domain.ids import derive_id
from schemas.registers import LINE_CLASSES, MatchClass, Side, Tally

SYSTEM_TENANT: Final = UUID(int=0)
PREFIX: Final = "register_"
"""Of the kinds of break that registers tell of: `register_missing_here` and so on."""
ABSENT_KIND: Final = "register_absent"
_SATURDAY: Final = 5
_UTC: Final = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class BusinessDays:
    """A rail's days: they end at the cut-off of its zone, or at midnight; with a cut-off, weekends have none."""

    timezone: str = "UTC"
    cut_off: time | None = None

    def window(self, day: date) -> tuple[datetime, datetime]:
        """Return when the day begins and when it ends, both UTC; the end is the next day's beginning."""
        first = day if self.cut_off is None else self._before(day)
        end = day + timedelta(days=1) if self.cut_off is None else day
        return self._moment(first), self._moment(end)

    def day_of(self, moment: datetime) -> date:
        """Return the business day that a moment belongs to."""
        day = moment.astimezone(ZoneInfo(self.timezone)).date()
        if self.cut_off is None:
            return day
        # By the moment of the cut-off, as the window is: where clocks are put, its hour may come twice, or never.
        return self.following(day) if moment >= self._moment(day) else self._open(day)

    def following(self, day: date) -> date:
        """Return the next business day."""
        return self._open(day + timedelta(days=1))

    def is_open(self, day: date) -> bool:
        """Whether the rail has such a day."""
        return self.cut_off is None or day.weekday() < _SATURDAY

    def last_closed(self, now: datetime) -> date:
        """Return the last day that has ended."""
        return self._before(self.day_of(now))

    def _before(self, day: date) -> date:
        day -= timedelta(days=1)
        while not self.is_open(day):
            day -= timedelta(days=1)
        return day

    def _open(self, day: date) -> date:
        while not self.is_open(day):
            day += timedelta(days=1)
        return day

    def _moment(self, day: date) -> datetime:
        local = datetime.combine(day, self.cut_off or time(), ZoneInfo(self.timezone))
        return local.astimezone(_UTC)


@dataclass(frozen=True, slots=True)
class Account:
    """A provider account of a rail: whose registers and whose payments are compared."""

    rail: str
    provider_account: str
    environment: str


@dataclass(frozen=True, slots=True)
class DayFiles:
    """Which registers there are: those of the day, those around it, and whether the next day's is known."""

    own: list[UUID]
    others: list[UUID]
    state: str
    next_known: bool


@dataclass(frozen=True, slots=True)
class Span:
    """Which time is compared: the day, how far before it its payments may have been asked for, and how near to its end
    a payment may be in the next register.
    """

    begin: datetime
    end: datetime
    lookback: timedelta
    edge: timedelta


@dataclass(frozen=True, slots=True)
class RegisterBreak:
    """One entry that does not fit, as the comparison reads it. Amounts are minor units; `ours` is empty where we have
    none of it, `theirs` where the register has none.
    """

    account: Account
    business_day: date
    match: MatchClass
    line: int
    rank: int
    key: str
    tenant_id: UUID | None
    intent_id: UUID | None
    subject_id: UUID | None
    reference: str
    at_stake_minor: int
    currency: str
    theirs: str
    ours: str

    @property
    def kind(self) -> str:
        """The kind of break."""
        return PREFIX + self.match.value

    @property
    def id(self) -> UUID:
        """Found again it is the same one: by our payment, or by the line's own names where we have none."""
        parts = ("break", self.kind, *_named(self.account), self.business_day.isoformat(), self.key, str(self.rank))
        return derive_id(self.subject_id or SYSTEM_TENANT, *parts)

    @property
    def detail(self) -> str:
        """What a person reads."""
        there, here = self.theirs or "nothing", self.ours or "nothing"
        line = f"line {self.line}: " if self.line else ""
        return f"{line}the register has {there}; our books have {here}"


def absent_id(account: Account, day: date) -> UUID:
    """Return the id of the break that a day with payments has no register."""
    return derive_id(SYSTEM_TENANT, "break", ABSENT_KIND, *_named(account), day.isoformat())


def _named(account: Account) -> tuple[str, str, str]:
    return account.rail, account.provider_account, account.environment


def lines_of(tallies: Sequence[Tally]) -> int:
    """Return how many lines of the register were judged: each is in exactly one class."""
    return sum(each.count for each in tallies if each.side is Side.THEIRS and each.match in LINE_CLASSES)


def breaks_in(tallies: Sequence[Tally]) -> int:
    """Return how many of the entries do not fit."""
    fine = {MatchClass.MATCHED, MatchClass.CARRIED, MatchClass.FOUND_ELSEWHERE}
    return sum(each.count for each in tallies if each.match not in fine)
