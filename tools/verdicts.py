"""Writes what each answer of a provider means into docs/rails, from the tables that judge it.

python -m tools.verdicts           write it
python -m tools.verdicts --check   exit 1 and name each page that differs from the code
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from adapters.bank import answers as bank
from adapters.promptpay import verdicts as promptpay
from adapters.sbp import verdicts as sbp

PAGES: Final = Path(__file__).parent.parent / "docs" / "rails"
TABLES: Final[Mapping[str, Callable[[], Iterator[str]]]] = {
    "promptpay": promptpay.tables,
    "sbp": sbp.tables,
    "bank": bank.tables,
}
BEGIN, END = "<!-- written by python -m tools.verdicts -->", "<!-- end of what is written -->"


def written(page: str, rail: str) -> str:
    """Return the page with the rail's tables between the marks. Raises ValueError where a mark is missing."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"docs/rails/{rail}.md has no marks for its tables")
    return "\n".join([head + BEGIN, "", *TABLES[rail](), "", END + tail])


def main(arguments: list[str]) -> int:
    """Write or check the pages; returns the exit code."""
    differing = []
    for rail in TABLES:
        path = PAGES / f"{rail}.md"
        page = path.read_text(encoding="utf-8")
        if written(page, rail) == page:
            continue
        differing.append(rail)
        if arguments != ["--check"]:
            path.write_text(written(page, rail), encoding="utf-8")
    if arguments == ["--check"] and differing:
        sys.stderr.write(f"docs/rails differs from the code ({', '.join(differing)}): run python -m tools.verdicts\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
