"""The report of a day or a week: what was compared, what did not fit, and what became of it."""

from datetime import date, datetime
from enum import StrEnum

from schemas.base import Contract
from schemas.recon import BreakView
from schemas.registers import RegisterRun


class ReportFormat(StrEnum):
    """How a report is written."""

    CSV = "csv"
    JSON = "json"
    HTML = "html"


class ReconPeriod(Contract):
    """Everything about the days from `first_day` to `last_day`, both included; days are those of UTC for breaks."""

    first_day: date
    last_day: date
    written_at: datetime
    runs: list[RegisterRun]
    """The newest comparison of each provider account and business day."""
    breaks: list[BreakView]
    """What was open at some time of the period, the oldest first."""
    more_breaks: bool
    """Whether there are more breaks than are listed."""

    @property
    def open_breaks(self) -> int:
        """How many of the listed breaks still wait for somebody."""
        return sum(each.ended_at is None for each in self.breaks)
