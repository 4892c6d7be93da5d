"""Reads a register out of a CSV file by a mapping: which column is what, and how it is written. Pure, a line at a time.

Nothing is guessed. A line that the mapping does not explain is refused by its number, and no line of such a file counts
before somebody has put the mapping or the file right.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.limits import known_timezone
from schemas.money import AmountError, currency_of, to_minor
from schemas.registers import RegisterDirection, RegisterLine, RegisterOperation, RegisterStatus, Section

_TOLD_CHARACTERS: Final = 60


class Value(BaseModel):
    """Where a value comes from: a column, or the same for every line; `values` translates what the column says."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    column: str = ""
    const: str = ""
    values: dict[str, str] = {}
    """What the provider writes, and what it means; without it the text is taken as it is."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.column) == bool(self.const):
            raise ValueError("give either column or const")
        return self


class Amount(BaseModel):
    """A column of money, in major units unless it is minor ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    column: str
    minor: bool = False
    decimal: Annotated[str, Field(pattern=r"^[.,]$")] = "."
    group: Annotated[str, Field(max_length=2)] = ""
    """What parts thousands, such as a comma, a blank or a no-break space."""
    negative_is_out: bool = False
    """A sign says the direction: what is below zero left us."""


class Moment(BaseModel):
    """A column of times; without an offset they are of the zone."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    column: str
    format: str = ""
    """As strptime has it; left out, ISO 8601."""
    timezone: str = "UTC"

    @model_validator(mode="after")
    def _known(self) -> Self:
        known_timezone(self.timezone)
        return self


class RegisterMapping(BaseModel):
    """How one provider writes its register; one file of examples/registers for each."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rail: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,30}$")]
    provider_account: str
    environment: str = "sandbox"
    section: Section = ""
    encoding: str = "utf-8"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    quote: Annotated[str, Field(min_length=1, max_length=1)] = '"'
    skip_lines: Annotated[int, Field(ge=0, le=100)] = 0
    """Lines before the header that are none of the table."""
    stop_at: str = ""
    """A line whose first cell is this ends the table, such as a total."""
    provider_ref: Value | None = None
    our_ref: Value | None = None
    operation: Value = Value(const="PAYMENT")
    direction: Value | None = None
    amount: Amount
    fee: Amount | None = None
    currency: Value
    status: Value = Value(const="SETTLED")
    at: Moment

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.provider_ref is None and self.our_ref is None:
            raise ValueError("provider_ref or our_ref: a line needs a name")
        if self.direction is None and not self.amount.negative_is_out:
            raise ValueError("direction: give it, or amount.negative_is_out")
        try:
            b"".decode(self.encoding)
        except LookupError as error:
            raise ValueError(f"encoding: {self.encoding!r} is not known") from error
        return self


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that is no line of a register, and why; the number is that of the file's line."""

    number: int
    reason: str


class FileRefusedError(ValueError):
    """The file as a whole is not what the mapping describes."""


def read_register(mapping: RegisterMapping, rows: Iterable[str]) -> Iterator[RegisterLine | RefusedLine]:
    """Yield each line, or why it is refused; lines are numbered as in the file. Raises FileRefusedError.

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


def _lines(mapping: RegisterMapping, header: list[str], reader: Any) -> Iterator[RegisterLine | RefusedLine]:
    while True:
        number = mapping.skip_lines + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield RefusedLine(number, f"not CSV: {error}")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if mapping.stop_at and cells[0].strip() == mapping.stop_at:
            return
        if len(cells) != len(header):
            yield RefusedLine(number, f"{len(cells)} cells instead of {len(header)}")
            continue
        try:
            yield _line(mapping, number, dict(zip(header, (cell.strip() for cell in cells), strict=True)))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            yield RefusedLine(number, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except (ValueError, KeyError) as error:
            yield RefusedLine(number, str(error)[:300])


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
        at=_moment(mapping.at, cells),
    )
    if not line.provider_ref and not line.our_ref:
        raise ValueError("neither provider_ref nor our_ref has a name: the line matches nothing")
    return line


def _reference(source: Value | None, cells: Mapping[str, str]) -> str:
    return "" if source is None else _value(source, cells, "reference")


def _value(source: Value, cells: Mapping[str, str], field: str) -> str:
    text = source.const or cells[source.column]
    if not source.values:
        return text
    if text not in source.values:
        known = ", ".join(sorted(source.values))
        raise ValueError(f"{field}: {text[:_TOLD_CHARACTERS]!r} is none of {known[:200]}")
    return source.values[text]


def _minor(source: Amount, cells: Mapping[str, str], currency: str, field: str) -> tuple[int, bool]:
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


def _moment(source: Moment, cells: Mapping[str, str]) -> datetime:
    told = cells[source.column]
    try:
        at = datetime.strptime(told, source.format) if source.format else datetime.fromisoformat(told)  # noqa: DTZ007
    except ValueError as error:
        raise ValueError(f"at: {told[:_TOLD_CHARACTERS]!r} is no time of the format") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=ZoneInfo(source.timezone))
