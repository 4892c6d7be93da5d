"""Reads a register out of a CSV file by a mapping: which column is what, and how it is written. Pure, a line at a time.

Nothing is guessed. A line that the mapping does not explain is refused by its number, and no line of such a file counts
before somebody has put the mapping or the file right.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from core.domain.register_records import PlainLines, Record, moment_of, record_of
from schemas.faults import first_fault
from schemas.money import AmountError, currency_of, to_minor
from schemas.register_mapping import MappedAmount, MappedValue, RegisterMapping
from schemas.registers import RegisterDirection, RegisterLine, RegisterOperation, RegisterStatus

_TOLD_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that is no line of a register, and why; the number is that of the file's line."""

    number: int
    reason: str


class FileRefusedError(ValueError):
    """The file as a whole is not what the mapping describes."""


def read_register(mapping: RegisterMapping, rows: Iterable[str]) -> Iterator[Record | RefusedLine]:
    """Yield each line as a record, or why it is refused; lines are numbered as in the file. Raises FileRefusedError.

    `rows` are the file's text lines with their ends, so that quoted cells may hold line breaks.
    """
    source = iter(rows)
    for _ in range(mapping.skip_lines):
        next(source, None)
    reader = csv.reader(source, delimiter=mapping.delimiter, quotechar=mapping.quote, strict=True)
    try:
        header = [cell.strip().removeprefix("\ufeff") for cell in next(reader, [])]
    except csv.Error as error:
        raise FileRefusedError(f"the header is not CSV: {error}") from error
    missing = sorted(_columns(mapping) - set(header))
    if missing:
        raise FileRefusedError(f"the header lacks {', '.join(missing)}: it has {', '.join(header)[:300]}")
    yield from _lines(mapping, header, reader)


def _lines(mapping: RegisterMapping, header: list[str], reader: Any) -> Iterator[Record | RefusedLine]:
    plain, width, stop_at, before = PlainLines(mapping, header).read, len(header), mapping.stop_at, mapping.skip_lines
    while True:
        number = before + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield RefusedLine(number, f"not CSV: {error}")
            continue
        if stop_at and cells and cells[0].strip() == stop_at:
            return
        record = plain(number, cells) if len(cells) == width else None
        if record is not None:
            yield record
        elif any(cell.strip() for cell in cells):
            yield looked_at(mapping, header, number, cells)


def looked_at(mapping: RegisterMapping, header: list[str], number: int, cells: list[str]) -> Record | RefusedLine:
    """Read a line that is not plain, field by field, or say which field is wrong."""
    if len(cells) != len(header):
        return RefusedLine(number, f"{len(cells)} cells instead of {len(header)}")
    try:
        return record_of(_line(mapping, number, dict(zip(header, (cell.strip() for cell in cells), strict=True))))
    except ValidationError as error:
        fault = first_fault(error)
        return RefusedLine(number, f"{fault.field}: {fault.words}")
    except (ValueError, KeyError) as error:
        return RefusedLine(number, str(error)[:300])


def _columns(mapping: RegisterMapping) -> set[str]:
    named = (
        mapping.provider_ref, mapping.our_ref, mapping.operation, mapping.direction, mapping.amount, mapping.fee,
        mapping.currency, mapping.status, mapping.at,
    )  # fmt: skip
    return {each.column for each in named if each is not None and each.column}


def _line(mapping: RegisterMapping, number: int, cells: Mapping[str, str]) -> RegisterLine:
    currency = _value(mapping.currency, cells, "currency")
    amount_minor, negative = _minor(mapping.amount, cells, currency, "amount")
    fee_minor = None if mapping.fee is None else _minor(mapping.fee, cells, currency, "fee")[0]
    if mapping.direction is not None:
        direction = RegisterDirection(_value(mapping.direction, cells, "direction"))
    else:
        direction = RegisterDirection.OUT if negative else RegisterDirection.IN
    if negative and mapping.direction is not None and not mapping.amount.negative_is_out:
        raise ValueError(f"amount: {cells[mapping.amount.column][:_TOLD_CHARACTERS]!r} is below zero")
    line = RegisterLine(
        line=number,
        provider_ref=_reference(mapping.provider_ref, cells),
        our_ref=_reference(mapping.our_ref, cells),
        operation=RegisterOperation(_value(mapping.operation, cells, "operation")),
        direction=direction,
        amount_minor=amount_minor,
        fee_minor=fee_minor,
        currency=currency,
        status=RegisterStatus(_value(mapping.status, cells, "status")),
        at=moment_of(mapping.at, cells[mapping.at.column]),
    )
    if not line.provider_ref and not line.our_ref:
        raise ValueError("neither provider_ref nor our_ref has a name: the line matches nothing")
    return line


def _reference(source: MappedValue | None, cells: Mapping[str, str]) -> str:
    return "" if source is None else _value(source, cells, "reference")


def _value(source: MappedValue, cells: Mapping[str, str], field: str) -> str:
    text = source.const or cells[source.column]
    if not source.values:
        return text
    if text not in source.values:
        known = ", ".join(sorted(source.values))
        raise ValueError(f"{field}: {text[:_TOLD_CHARACTERS]!r} is none of {known[:200]}")
    return source.values[text]


def _minor(source: MappedAmount, cells: Mapping[str, str], currency: str, field: str) -> tuple[int, bool]:
    """Return minor units, and whether the text is below zero."""
    told = cells[source.column]
    text = told.replace(source.group, "") if source.group else told
    text = text.replace("\u2212", "-").replace(source.decimal, ".")
    negative, digits = text.startswith("-"), text.lstrip("+-")
    try:
        if source.minor and digits.isascii():
            return int(digits), negative
        if digits and not digits.strip("0."):
            return 0, negative
        return to_minor(digits, currency_of(currency)), negative
    except (AmountError, ValueError) as error:
        raise ValueError(f"{field}: {told[:_TOLD_CHARACTERS]!r} is no amount of {currency[:3]}") from error
