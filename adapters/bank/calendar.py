"""When a bank works: its business days, its cut-off, and the date that a payment can ask for. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

_SATURDAY: Final = 5


@dataclass(frozen=True, slots=True)
class BankCalendar:
    """The bank's days: weekends are closed, and so are its holidays; at the cut-off it is already too late."""

    timezone: str = "Asia/Bangkok"
    cut_off: time = time(15, 30)
    holidays: Collection[date] = frozenset()

    def is_business_day(self, day: date) -> bool:
        """Whether the bank settles on this day."""
        return day.weekday() < _SATURDAY and day not in self.holidays

    def rolled(self, day: date) -> date:
        """Return the day itself, or the next one that is a business day."""
        while not self.is_business_day(day):
            day += timedelta(days=1)
        return day

    def after(self, day: date) -> date:
        """Return the first business day after this one."""
        return self.rolled(day + timedelta(days=1))

    def value_date(self, now: datetime) -> date:
        """Return the first day that a payment handed in now can be executed on. `now` carries its timezone."""
        local = now.astimezone(ZoneInfo(self.timezone))
        today = local.date()
        if self.is_business_day(today) and local.time() < self.cut_off:
            return today
        return self.after(today)
