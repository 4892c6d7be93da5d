"""Names for booked movements that the bank gives none: an account servicer's reference is optional in ISO 20022.

Money that moved is never left out for the want of a name. The name is made of what every message about a movement tells
alike, and of its place among the movements that are alike in all of that: the same in a notice and in the statement.
"""

import hashlib
from collections import defaultdict
from typing import Final

from schemas.collections import TRANSACTION_LENGTH_MAX

UNNAMED: Final = "UNNAMED-"
"""How a name of ours begins, so that nobody looks for it at the bank."""


class Names:
    """Numbers movements that are alike. One for all messages of a mailbox, asked in the bank's order."""

    def __init__(self) -> None:
        self._of_report: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        self._report, self._kind, self._adds = "", "", False
        self._here: dict[str, int] = defaultdict(int)

    def begin(self, kind: str, report: str, *, adds: bool) -> None:
        """Begin a notice, report or statement; `adds` where it shows nothing that another one of its kind shows."""
        self._report, self._kind, self._adds = report, kind, adds and bool(report)
        self._here.clear()

    def name(self, *told: str) -> str:
        """Return the name of the next movement that is told so."""
        alike = hashlib.sha256("\x1f".join(told).encode()).hexdigest()[:24]
        self._here[alike] += 1
        place = self._here[alike]
        if self._adds:
            counts = self._of_report[self._kind, alike]
            # A report that comes again stands where it stood: after those that came before it, and no others.
            counts.setdefault(self._report, 0)
            before = list(counts)[: list(counts).index(self._report)]
            counts[self._report] = max(counts[self._report], place)
            place += sum(counts[each] for each in before)
        return f"{UNNAMED}{alike}-{place}"


def visible(name: str, longest: int = TRANSACTION_LENGTH_MAX) -> str:
    """Return a name as every message and register tells it: printable, without blanks, not too long."""
    return "".join(each for each in name if "!" <= each <= "~")[:longest]
