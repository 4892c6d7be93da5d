"""The bank's days: Bangkok's, with weekends, holidays and a cut-off that is already too late."""

from datetime import UTC, date, datetime, time

import pytest

from adapters.bank.calendar import BankCalendar

HOLIDAY = date(2026, 11, 24)
CALENDAR = BankCalendar(cut_off=time(15, 30), holidays=frozenset({HOLIDAY}))


@pytest.mark.parametrize(
    ("utc", "expected"),
    [
        ("2026-11-23T02:00", "2026-11-23"),  # Monday 09:00 in Bangkok
        ("2026-11-23T08:29", "2026-11-23"),  # a minute before the cut-off
        ("2026-11-23T08:30", "2026-11-25"),  # at the cut-off, and Tuesday is a holiday
        ("2026-11-24T02:00", "2026-11-25"),  # on the holiday
        ("2026-11-20T10:00", "2026-11-23"),  # Friday evening
        ("2026-11-21T02:00", "2026-11-23"),  # Saturday
        ("2026-11-22T18:00", "2026-11-23"),  # Sunday in London is Monday in Bangkok
    ],
)
def test_a_payment_asks_for_the_first_day_that_the_bank_can_execute_it_on(utc: str, expected: str) -> None:
    now = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert CALENDAR.value_date(now) == date.fromisoformat(expected)
