"""Exchange rates as exact rationals: an integer over a power of ten, never a float. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Self

from schemas.money import currency_of

RATE_DIGITS_MAX: Final = 18
"""The most digits that a rate has, before and after its point together."""
_RATE_TEXT: Final = re.compile(r"(?P<whole>\d{1,12})(?:\.(?P<fraction>\d{1,12}))?", re.ASCII)
_CLOCKS_DIFFER: Final = timedelta(minutes=1)
"""How far a source's clock may be ahead of the database's."""


class RateError(ValueError):
    """A text that is no rate; the text names the remedy."""


class Pair(NamedTuple):
    """Two currencies as their rate is told: one unit of `base` is worth so many of `counter`."""

    base: str
    counter: str

    @property
    def inverse(self) -> "Pair":
        """The same currencies the other way round."""
        return Pair(self.counter, self.base)

    def __str__(self) -> str:
        return f"{self.base}/{self.counter}"


class Ratio(NamedTuple):
    """How many minor units of one currency one minor unit of another is worth: numerator / denominator, both > 0."""

    numerator: int
    denominator: int


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate in major units: `units` / 10 ** `scale`, without trailing zeros, so that equal rates are equal."""

    units: int
    scale: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the rate of a decimal text such as 35.1275, exactly. Raises RateError."""
        match = _RATE_TEXT.fullmatch(text)
        if match is None:
            raise RateError(f"rate {text[:32]!r} is not a decimal number such as 35.1275, of 12 decimals at most")
        fraction = (match["fraction"] or "").rstrip("0")
        units = int(match["whole"] + fraction)
        if units == 0:
            raise RateError("a rate must be greater than zero")
        if len(str(units)) > RATE_DIGITS_MAX:
            raise RateError(f"a rate has at most {RATE_DIGITS_MAX} digits")
        return cls(units, len(fraction))

    def __str__(self) -> str:
        digits = str(self.units).rjust(self.scale + 1, "0")
        return f"{digits[: -self.scale]}.{digits[-self.scale :]}" if self.scale else digits

    def ratio(self, pair: Pair, source: str) -> Ratio:
        """Return what a minor unit of `source`, one of the pair, is worth in the other. Raises AmountError."""
        base, counter = currency_of(pair.base), currency_of(pair.counter)
        base_minor = 10 ** (self.scale + base.decimals)
        counter_minor = self.units * 10**counter.decimals
        return Ratio(counter_minor, base_minor) if source == pair.base else Ratio(base_minor, counter_minor)


def is_too_old(observed_at: datetime, max_age_s: int, now: datetime) -> bool:
    """Whether a rate may no more be quoted by."""
    return now - observed_at > timedelta(seconds=max_age_s)


def is_from_future(observed_at: datetime, now: datetime) -> bool:
    """Whether a source tells a time that has not come: such a rate would stay fresh for too long."""
    return observed_at - now > _CLOCKS_DIFFER
