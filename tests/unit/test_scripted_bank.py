"""The clock of the sandbox's bank: whatever the day, what is handed in is booked at once."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from adapters.bank.calendar import BankCalendar
from fleet.stack.scripted_bank import morning_ahead


@pytest.mark.parametrize("day", range(16, 24))
@pytest.mark.parametrize("hour", [0, 5, 9, 18, 23])
def test_the_bank_two_days_ahead_is_past_the_date_of_any_file_and_open(day: int, hour: int) -> None:
    calendar = BankCalendar()
    now = datetime(2026, 11, day, hour, 30, tzinfo=ZoneInfo(calendar.timezone))
    morning = datetime.fromisoformat(morning_ahead(now, 2))
    assert morning.date() > calendar.value_date(now)
    assert calendar.is_business_day(morning.date())
