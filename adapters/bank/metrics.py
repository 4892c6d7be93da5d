"""What the bank's adapter counts beside the runtime's own figures."""

from enum import StrEnum
from typing import Final

from prometheus_client import Counter, Gauge


class GapKind(StrEnum):
    """What is wrong with a statement."""

    MISSING = "a_statement_is_missing"
    OPENING = "the_opening_is_not_the_last_closing"
    ENTRIES = "entries_do_not_explain_the_balance"


STATEMENT_GAPS: Final = Counter(
    "fleet_bank_statement_gaps_total", "Statements that are missing, or whose entries do not explain them.", ["kind"]
)
MESSAGES: Final = Counter("fleet_bank_messages_total", "Messages of the bank by what was made of them.", ["outcome"])
ENTRIES_REFUSED: Final = Counter(
    "fleet_bank_entries_refused_total", "Entries of the bank's messages that are not read; those beside them are."
)
FACTS_REFUSED: Final = Gauge(
    "fleet_bank_facts_refused", "Money in that the core refuses to take note of, told again every minute."
)

# An increase is seen only from a figure that was there before.
for _kind in GapKind:
    STATEMENT_GAPS.labels(_kind.value)
for _outcome in ("read", "duplicate", "refused"):
    MESSAGES.labels(_outcome)
