"""Virtual references: what a payer writes into a transfer so that we know whose money it is. Pure.

The payer controls the text: the reference may stand in the structured field or in prose, in groups of four, in small
letters, or cut in two by a bank that wraps lines.
"""

import re
from typing import Final

from adapters.bank.reports import Entry

LENGTH: Final = 16
_WORD: Final = re.compile(rf"(?<![A-Z0-9])[A-Z0-9]{{{LENGTH}}}(?![A-Z0-9])")
_GROUPS: Final = re.compile(r"(?<![A-Z0-9])(?:[A-Z0-9]{4}[ -]){3}[A-Z0-9]{4}(?![A-Z0-9])")


def virtual_reference(entry: Entry) -> str:
    """Return the reference that a credit names; empty where it names none, or several, since a guess is not a match."""
    structured = _in(entry.creditor_reference.upper())
    if len(structured) == 1:
        return structured.pop()
    lines = [line.upper() for line in entry.remittance]
    found = _in(" ".join(lines)) or _in("".join(lines))
    return found.pop() if len(found) == 1 else ""


def _in(text: str) -> set[str]:
    words = set(_WORD.findall(text))
    return words or {re.sub("[ -]", "", group) for group in _GROUPS.findall(text)}
