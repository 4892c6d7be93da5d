"""Money is an integer of minor units beside an ISO 4217 currency code. There is no float in this system.

Numeric codes and decimals: ISO 4217 table A.1, as its maintenance agency publishes it (package `iso4217`).
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import iso4217

MAX_AMOUNT_MINOR: Final = 10**15
"""The largest amount that the API takes, in minor units."""

_MAJOR_TEXT = re.compile(r"(?P<sign>-?)(?P<whole>\d{1,40})(?:\.(?P<fraction>\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Currency:
    """One ISO 4217 currency: alphabetic code, numeric code (our ledger number) and number of decimals."""

    code: str
    numeric: int
    decimals: int


_TABLE: Final = {
    # What has no decimals, such as gold or the code for tests, is no money that a wallet holds.
    known.code: Currency(known.code, known.number, known.exponent)
    for known in iso4217.Currency
    if known.exponent is not None
}
_NO_MONEY: Final = {known.code for known in iso4217.Currency} - _TABLE.keys()
_BY_NUMERIC: Final = {currency.numeric: currency for currency in _TABLE.values()}


class AmountError(ValueError):
    """An amount or currency that cannot be taken; `code` is stable, the text names the remedy."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def currency_of(code: str) -> Currency:
    """Return the currency of an alphabetic code. Raises AmountError `unknown_currency`."""
    found = _TABLE.get(code)
    if found is None:
        why = "is in ISO 4217, but no currency that can be held" if code in _NO_MONEY else "is none of ISO 4217"
        raise AmountError("unknown_currency", f"currency {code[:8]!r} {why}: write a code such as THB")
    return found


def known_currencies() -> tuple[str, ...]:
    """Return the alphabetic code of every currency that is known here."""
    return tuple(sorted(_TABLE))


def currency_of_ledger(numeric: int) -> Currency:
    """Return the currency whose ISO 4217 number is the ledger's. Raises AmountError `unknown_currency`."""
    found = _BY_NUMERIC.get(numeric)
    if found is None:
        raise AmountError("unknown_currency", f"ledger {numeric} is no ISO 4217 number that is known here")
    return found


def to_minor(text: str, currency: Currency) -> int:
    """Return the minor units of a decimal text in major units, exactly.

    Raises AmountError: `amount_malformed`, `amount_over_precise` (never rounded), `amount_not_positive`,
    `amount_too_large`.
    """
    match = _MAJOR_TEXT.fullmatch(text.strip())
    if match is None:
        raise AmountError("amount_malformed", f"amount {_quoted(text)} is not a decimal number such as 125.50")
    fraction = match["fraction"] or ""
    if len(fraction) > currency.decimals and fraction[currency.decimals :].strip("0"):
        raise AmountError(
            "amount_over_precise",
            f"{currency.code} has {currency.decimals} decimals; amount {_quoted(text)} has more",
        )
    kept = fraction[: currency.decimals].ljust(currency.decimals, "0")
    minor = int(match["whole"] + kept)
    if match["sign"] or minor == 0:
        raise AmountError("amount_not_positive", f"amount {_quoted(text)} must be greater than zero")
    if minor > MAX_AMOUNT_MINOR:
        raise AmountError(
            "amount_too_large", f"amount {_quoted(text)} is more than {to_major_text(MAX_AMOUNT_MINOR, currency)}"
        )
    return minor


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 24 else f"{text[:23]}…")


def money_text(amount_minor: int, code: str) -> str:
    """Return what people read: `12.50 THB`. Raises AmountError `unknown_currency`."""
    return f"{to_major_text(amount_minor, currency_of(code))} {code}"


def to_major_text(amount_minor: int, currency: Currency) -> str:
    """Return the decimal text of minor units, with exactly the currency's decimals."""
    return str(Decimal(amount_minor).scaleb(-currency.decimals).quantize(Decimal(1).scaleb(-currency.decimals)))
