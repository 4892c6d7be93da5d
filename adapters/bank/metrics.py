"""What the bank's adapter counts beside the runtime's own figures."""

from typing import Final

from prometheus_client import Counter

STATEMENT_GAPS: Final = Counter(
    "fleet_bank_statement_gaps_total", "Statements that are missing, or whose entries do not explain them.", ["kind"]
)
MESSAGES: Final = Counter("fleet_bank_messages_total", "Messages of the bank by what was made of them.", ["outcome"])
