"""Reads a file of rates, CSV or NDJSON: every line that is no rate is named with its number and the remedy."""

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import ValidationError

from fleet.cli.output import CommandError, invalid_field, why
from schemas.exchange import RateRequest

_COLUMNS: Final = ("base", "counter", "rate", "source", "observed_at")
_NEEDED: Final = frozenset({"base", "counter", "rate"})


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be recorded, and what to do about it."""

    number: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class RateFile:
    """The rates of a file with the number of each one's line, and the lines that hold none."""

    rates: list[RateRequest]
    numbers: list[int]
    bad: list[BadLine]


def read_rates(file: str, source: str) -> RateFile:
    """Return what a file holds; - reads CSV from stdin. `source` is that of lines which name none.

    A name that ends in .ndjson or .jsonl is NDJSON, any other CSV. Raises CommandError: file_unreadable.
    """
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError("file_unreadable", f"{file}: {why(error)}") from error
    found = RateFile([], [], [])
    rows = _json_rows(text) if Path(file).suffix in (".ndjson", ".jsonl") else _csv_rows(file, text)
    for number, row in rows:
        if isinstance(row, BadLine):
            found.bad.append(row)
            continue
        try:
            found.rates.append(RateRequest.model_validate({"source": source} | row))
        except ValidationError as error:
            fault = invalid_field(error)
            found.bad.append(BadLine(number, fault.code, str(fault)))
        else:
            found.numbers.append(number)
    return found


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield number, BadLine(number, "line_malformed", f"not JSON ({error}): write one object a line")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            yield number, BadLine(number, "line_malformed", "not a JSON object: write one object a line")


def _csv_rows(file: str, text: str) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    reader = csv.reader(text.splitlines(), strict=True)
    header = [name.strip() for name in next(reader, [])]
    if not set(header) >= _NEEDED or not set(header) <= set(_COLUMNS) or len(set(header)) != len(header):
        text = f"{file}: the first line should name the columns {','.join(_COLUMNS)}; the last two may be left out"
        raise CommandError("file_unreadable", text)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, BadLine(reader.line_num, "line_malformed", f"not CSV ({error}): check the quotes")
            continue
        if not cells:
            continue
        number = reader.line_num
        if len(cells) != len(header):
            fault = f"{len(cells)} cells, and the first line names {len(header)} columns"
            yield number, BadLine(number, "line_malformed", fault)
        else:
            yield number, {name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()}
