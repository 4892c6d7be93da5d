"""How the command speaks: a table or JSON on stdout, one line on stderr when something is wrong."""

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Annotated, Any, Protocol, TypeVar

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from schemas.faults import first_fault
from schemas.streams import RAIL_PATTERN, RAIL_WORDS

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_NEVER_BROKEN = frozenset({"id", "key_id", "intent", "stream", "state"})
_UNBOUNDED = 10_000


Item_co = TypeVar("Item_co", covariant=True)


class Page(Protocol[Item_co]):
    """What a list answers: some items, and where the next page begins."""

    @property
    def items(self) -> Sequence[Item_co]:
        """The page's items."""

    @property
    def next_cursor(self) -> str | None:
        """Where the next page begins; None on the last."""

    def model_dump(self, *, mode: str, by_alias: bool) -> dict[str, Any]:
        """Return the page as JSON has it."""


class ExitCode(IntEnum):
    """What a script may rely on."""

    DONE = 0
    CHECK_FAILED = 1
    WRONG_INPUT = 2
    REFUSED = 3
    UNREACHABLE = 4
    OUR_FAULT = 70
    """Something that no command foresees; the number is EX_SOFTWARE of sysexits.h."""
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends the command with one line and an exit code; `code` is stable, the message names the remedy."""

    def __init__(self, code: str, message: str, exit_code: ExitCode = ExitCode.WRONG_INPUT) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = exit_code

    def line(self) -> str:
        """Return the one line."""
        return f"fleet: {self.code}: {' '.join(str(self).split())}"


def invalid_field(error: ValidationError) -> CommandError:
    """Return the first fault of a value that the contract does not take."""
    fault = first_fault(error)
    return CommandError("invalid_field", f"{fault.field}: {fault.words}".removeprefix(": "))


def why(error: OSError | ValueError) -> str:
    """Return what is wrong with a file, without its name, which the line has already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def require_rail(rail: str) -> None:
    """Raise CommandError `rail_malformed` unless this can be a rail's name, or that of a part of one."""
    if RAIL_PATTERN.fullmatch(rail) is None:
        raise CommandError("rail_malformed", f"{rail[:40]!r} is no rail's name: {RAIL_WORDS}")


def print_json(value: Any) -> None:
    """Print one JSON document; times as ISO 8601, ids as text."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; None shows as a dash. An id is never broken, and nothing is where the output is no terminal."""
    rows = list(rows)
    if not rows:
        sys.stdout.write(f"{title}: none\n")
        return
    table = Table(title=title, title_justify="left", header_style="bold", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in _NEVER_BROKEN)
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, Console(width=_UNBOUNDED).measure(table).maximum))
    console.print(table)


def print_page(
    page: Page[Item_co], as_json: bool, title: str, columns: Sequence[str], row: Callable[[Item_co], Sequence[object]]
) -> None:
    """Print a page as JSON, or as a table with a line that names the next page's cursor where there is one."""
    if as_json:
        print_json(page.model_dump(mode="json", by_alias=True))
        return
    print_table(title, columns, map(row, page.items))
    print_next(page)


def print_next(page: Page[object]) -> None:
    """Say how to ask for the next page, where there is one."""
    if page.next_cursor:
        sys.stdout.write(f"more: --cursor {page.next_cursor}\n")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list | tuple):
        return orjson.dumps(value, default=str).decode()
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value)


def print_fields(title: str, fields: dict[str, object]) -> None:
    """Print one object, a field a line."""
    print_table(title, ("field", "value"), fields.items())
