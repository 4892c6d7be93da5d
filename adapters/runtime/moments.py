"""Moments as providers tell them, which need not be any that can be stored: money is told under those too."""

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

_FIRST: Final = datetime(1, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def storable(told: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment as it was told, in `zone` where it names none.

    One that UTC has no year for, such as midnight of 0001-01-01 in Bangkok, is the first or the last that there is: the
    same for whoever tells it again.
    """
    moment = told if told.tzinfo is not None else told.replace(tzinfo=zone)
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return _FIRST if told.year == 1 else _LAST
    return moment
