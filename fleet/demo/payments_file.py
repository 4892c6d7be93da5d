"""Reads a file of payments, CSV or NDJSON: a bad line is refused by number and code, the rest go on.

Columns: reference, wallet, payee_type, payee, amount (decimal major units), currency, message. Money comes in by the
payee types `topup` and `deposit` (the payee is whoever pays) and `direct_debit` (the payee is account and name of who
signed a mandate: `004-0123456789;Somchai Jaidee`), and goes back by `refund` (the payee is the reference of
the line that it gives back).
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from schemas.json_names import named_twice
from schemas.money import AmountError, currency_of, to_minor

COLUMNS = ("reference", "wallet", "payee_type", "payee", "amount", "currency", "message")
_REQUIRED = COLUMNS[:-1]
_LINE_MAX_BYTES: Final = 64 * 1024
_LONGEST = {"reference": 64, "wallet": 64, "payee_type": 31, "payee": 140, "message": 140}


class FileRefusedError(ValueError):
    """The file as a whole cannot be read; the text names the remedy."""


@dataclass(frozen=True, slots=True)
class PaymentLine:
    """One payment as the file states it, with the amount in minor units."""

    line: int
    reference: str
    wallet: str
    payee_type: str
    payee: str
    amount_minor: int
    currency: str
    message: str


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that was not sent, with a stable code and what to do."""

    line: int
    code: str
    message: str


class _LineError(ValueError):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_payments(path: Path) -> Iterator[PaymentLine | RefusedLine]:
    """Yield each line of the file, in order; memory is flat but for the references seen.

    The ending decides the format: `.ndjson` or `.jsonl`, else CSV with a header.
    Raises FileRefusedError where the file cannot be opened or has no usable header.
    """
    try:
        with path.open("rb") as file:
            lines = _lines(file)
            yield from _checked(_json_rows(lines) if path.suffix in (".ndjson", ".jsonl") else _csv_rows(lines))
    except OSError as error:
        raise FileRefusedError(f"{path}: {error.strerror or error}; name a readable CSV or NDJSON file") from error


def _lines(file: BinaryIO) -> Iterator[tuple[int, str | _LineError]]:
    """Number and decode the lines that are not empty: one that is no UTF-8, or has no end, costs only itself."""
    number = 0
    while raw := file.readline(_LINE_MAX_BYTES):
        number += 1
        if len(raw) == _LINE_MAX_BYTES and not raw.endswith(b"\n"):
            while (more := file.readline(_LINE_MAX_BYTES)) and not more.endswith(b"\n"):
                pass
            yield number, _malformed(f"longer than {_LINE_MAX_BYTES} bytes")
            continue
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield number, _LineError("not_utf8", f"not UTF-8 at byte {error.start} of the line; save the file as UTF-8")
            continue
        if text.strip():
            yield number, text


def _checked(rows: Iterator[tuple[int, dict[str, Any] | _LineError]]) -> Iterator[PaymentLine | RefusedLine]:
    seen: dict[str, int] = {}
    for number, row in rows:
        try:
            yield _payment(number, row, seen)
        except (_LineError, AmountError) as error:
            yield RefusedLine(number, error.code, str(error))


def _csv_rows(
    lines: Iterator[tuple[int, str | _LineError]],
) -> Iterator[tuple[int, dict[str, Any] | _LineError]]:
    """Parse line by line: a quote that is never closed costs its own line, not the rest of the file."""
    header = _header(lines)
    for number, line in lines:
        try:
            if isinstance(line, _LineError):
                raise line
            cells = _cells(line, _malformed)
            if len(cells) != len(header):
                raise _malformed(f"{len(cells)} columns where the header has {len(header)}")
        except _LineError as error:
            yield number, error
        else:
            yield number, dict(zip(header, cells, strict=True))


def _header(lines: Iterator[tuple[int, str | _LineError]]) -> list[str]:
    number, line = next(lines, (0, ""))
    if number == 0:
        raise FileRefusedError(f"the file is empty; its first line should be {','.join(COLUMNS)}")
    if isinstance(line, _LineError):
        raise FileRefusedError(f"line {number}: {line}")
    header = [name.strip() for name in _cells(line, FileRefusedError)]
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise FileRefusedError(
            f"line {number}: the header lacks {', '.join(missing)}; it should be {','.join(COLUMNS)}"
        )
    twice = sorted({name for name in header if name in COLUMNS and header.count(name) > 1})
    if twice:
        raise FileRefusedError(f"line {number}: the header has {', '.join(twice)} twice; keep one of each")
    return header


def _cells(line: str, refusal: Callable[[str], Exception]) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        raise refusal(f"not CSV: {error}; quotes must close on their own line, and lines end in \\n") from error


def _malformed(message: str) -> _LineError:
    return _LineError("malformed_line", message)


def _json_rows(
    lines: Iterator[tuple[int, str | _LineError]],
) -> Iterator[tuple[int, dict[str, Any] | _LineError]]:
    for number, line in lines:
        if isinstance(line, _LineError):
            yield number, line
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield number, _malformed(f"not JSON: {error}")
            continue
        if (twice := named_twice(line)) is not None:
            yield number, _malformed(f"{twice[:32]!r} stands twice in one object: keep the one that is meant")
        else:
            yield number, row if isinstance(row, dict) else _malformed("a line must be one JSON object")


def _payment(number: int, row: dict[str, Any] | _LineError, seen: dict[str, int]) -> PaymentLine:
    if isinstance(row, _LineError):
        raise row
    texts = {name: _text(row, name) for name in COLUMNS}
    currency = currency_of(texts["currency"])
    amount_minor = to_minor(texts["amount"], currency)
    reference = texts["reference"]
    first = seen.setdefault(reference, number)
    if first != number:
        raise _LineError(
            "duplicate_reference",
            f"reference {reference!r} was already used in line {first}: a payment is sent once",
        )
    return PaymentLine(
        line=number,
        reference=reference,
        wallet=texts["wallet"],
        payee_type=texts["payee_type"],
        payee=texts["payee"],
        amount_minor=amount_minor,
        currency=currency.code,
        message=texts["message"],
    )


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name, "")
    if not isinstance(value, str):
        why = ', such as "10.50": a JSON number may lose digits' if name == "amount" else ""
        raise _malformed(f"{name} must be text{why}")
    value = value.strip()
    if not value and name in _REQUIRED:
        raise _LineError("field_missing", f"{name} is empty; every line needs {', '.join(_REQUIRED)}")
    if len(value) > _LONGEST.get(name, 32):
        raise _LineError("field_too_long", f"{name} has {len(value)} characters; at most {_LONGEST.get(name, 32)}")
    return value
