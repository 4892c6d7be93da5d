"""Lines of registers as records, and the plain ones of a file read without a model of each: a register may be long.

What is not plain is left to `core.domain.register_files`, which names what is wrong with it. Pure.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from zoneinfo import ZoneInfo

from schemas.money import AmountError, currency_of
from schemas.register_mapping import MappedAmount, MappedMoment, MappedValue, RegisterMapping
from schemas.registers import RegisterDirection, RegisterLine, RegisterOperation, RegisterStatus

COLUMNS: Final = (
    "line", "provider_ref", "our_ref", "operation", "direction",
    "amount_minor", "fee_minor", "currency", "status", "at",
)  # fmt: skip
Record = tuple[Any, ...]
"""One line, in the order of COLUMNS."""
_REFERENCE_LONGEST: Final = 64
_DIGITS_MOST: Final = 15
"""Of an amount in minor units: longer ones are looked at more closely."""
_MOMENTS_KEPT: Final = 4096
_TOLD_CHARACTERS: Final = 60


def record_of(line: RegisterLine) -> Record:
    """Return a line as a record."""
    return tuple(getattr(line, name) for name in COLUMNS)


def moment_of(source: MappedMoment, told: str) -> datetime:
    """Return the time that a cell tells. Raises ValueError."""
    try:
        at = datetime.strptime(told, source.format) if source.format else datetime.fromisoformat(told)  # noqa: DTZ007
    except ValueError as error:
        raise ValueError(f"at: {told[:_TOLD_CHARACTERS]!r} is no time of the format") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=ZoneInfo(source.timezone))


class PlainLines:
    """Reads the lines of one file that are as the mapping expects them at first sight."""

    def __init__(self, mapping: RegisterMapping, header: Sequence[str]) -> None:
        self._places = {name: place for place, name in enumerate(header)}
        self._provider_ref = self._reference(mapping.provider_ref)
        self._our_ref = self._reference(mapping.our_ref)
        self._operation = self._word(mapping.operation, RegisterOperation)
        self._direction = None if mapping.direction is None else self._word(mapping.direction, RegisterDirection)
        self._status = self._word(mapping.status, RegisterStatus)
        self._currency = self._text(mapping.currency)
        self._decimals = _Decimals()
        self._amount = self._minor(mapping.amount)
        self._fee = None if mapping.fee is None else self._minor(mapping.fee)
        self._signed = mapping.amount.negative_is_out
        self._at, self._at_place = mapping.at, self._places[mapping.at.column]
        self._moments: dict[str, datetime] = {}

    def read(self, number: int, cells: Sequence[str]) -> Record | None:
        """Return a line as a record; None where it has to be looked at more closely, right or wrong."""
        theirs, ours, currency = self._provider_ref(cells), self._our_ref(cells), self._currency(cells)
        operation, status = self._operation(cells), self._status(cells)
        if theirs is None or ours is None or not (theirs or ours) or not (currency and operation and status):
            return None
        amount_minor = self._amount(cells, currency)
        at = self._moment(cells[self._at_place].strip())
        if amount_minor is None or at is None:
            return None
        fee_minor = None
        if self._fee is not None and ((fee_minor := self._fee(cells, currency)) is None or fee_minor < 0):
            return None
        if self._direction is not None:
            direction = self._direction(cells)
            if direction is None or amount_minor < 0:
                return None
        else:
            direction = RegisterDirection.OUT if amount_minor < 0 else RegisterDirection.IN
        return number, theirs, ours, operation, direction, abs(amount_minor), fee_minor, currency, status, at

    def _reference(self, source: MappedValue | None) -> Callable[[Sequence[str]], str | None]:
        if source is None:
            return lambda _: ""
        text = self._text(source)

        def read(cells: Sequence[str]) -> str | None:
            told = text(cells)
            if not told:
                return told
            fine = len(told) <= _REFERENCE_LONGEST and told.isascii() and told.isprintable() and " " not in told
            return told if fine else None

        return read

    def _word(self, source: MappedValue, meaning: type[StrEnum]) -> Callable[[Sequence[str]], str | None]:
        """What a word of the provider's means; None for one that means nothing."""
        known = {each.value: each for each in meaning}
        if source.const:
            always = known.get(source.values.get(source.const, "") if source.values else source.const)
            return lambda _: always
        words = {told: known.get(meant) for told, meant in source.values.items()} if source.values else dict(known)
        place, find = self._places[source.column], words.get
        return lambda cells: find(cells[place].strip())

    def _text(self, source: MappedValue) -> Callable[[Sequence[str]], str | None]:
        if source.const:
            always = source.values.get(source.const) if source.values else source.const
            return lambda _: always
        place, translated = self._places[source.column], source.values
        if translated:
            return lambda cells: translated.get(cells[place].strip())
        return lambda cells: cells[place].strip()

    def _minor(self, source: MappedAmount) -> Callable[[Sequence[str], str], int | None]:
        """The minor units of a column, below zero where a sign says so; None where it is no plain number."""
        place, group, decimal = self._places[source.column], source.group, source.decimal
        decimals, is_minor = self._decimals, source.minor

        def read(cells: Sequence[str], currency: str) -> int | None:
            text = cells[place].strip()
            if group:
                text = text.replace(group, "")
            negative = text.startswith("-")
            whole, point, fraction = (text[1:] if negative else text).partition(decimal)
            digits = decimals[currency]
            if digits is None or not whole or (point and (is_minor or len(fraction) != digits)):
                return None
            number = whole if is_minor else whole + (fraction or "0" * digits)
            if len(number) > _DIGITS_MOST or not number.isascii() or not number.isdigit():
                return None
            minor = int(number)
            if not negative:
                return minor
            return -minor or None  # a zero below zero has to be looked at

        return read

    def _moment(self, told: str) -> datetime | None:
        """Many lines of a register are of one second: each is parsed once."""
        at = self._moments.get(told)
        if at is None:
            if len(self._moments) >= _MOMENTS_KEPT:
                self._moments.clear()
            try:
                at = self._moments[told] = moment_of(self._at, told)
            except ValueError:
                return None
        return at


class _Decimals(dict[str, int | None]):
    """How many decimals a currency has, by its code; None for what is none."""

    def __missing__(self, code: str) -> int | None:
        try:
            found: int | None = currency_of(code).decimals
        except AmountError:
            return None
        self[code] = found
        return found
