"""Exchange: pairs, rates, quotes and what they leave a tenant exposed to. Rates are decimal texts, never floats."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.base import Contract
from schemas.fees import Moment
from schemas.jobs import CurrencyCode

RateText = Annotated[str, Field(min_length=1, max_length=25, pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$")]
"""A rate as a decimal text: what one unit of the base costs in units of the counter currency."""
RateSource = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$")]
"""Who told a rate, such as the name of a feed."""
RATES_MAX = 1000
"""The most rates that one request records."""


class PairRequest(Contract):
    """Terms on which two currencies are exchanged, in both directions; setting them again adds a version."""

    base: CurrencyCode
    counter: CurrencyCode
    spread_basis_points: Annotated[int, Field(strict=True, ge=0, le=5_000)]
    """What the house keeps of each exchange, in hundredths of a percent."""
    rate_max_age_s: Annotated[int, Field(strict=True, ge=1, le=31 * 86_400)]
    """Older rates are not quoted by."""
    quote_ttl_s: Annotated[int, Field(strict=True, ge=1, le=3_600)] = 30
    """How long a quote can be used."""
    enabled: bool = True

    @model_validator(mode="after")
    def _two_currencies(self) -> Self:
        if self.base == self.counter:
            raise ValueError("a pair has two currencies")
        return self


class PairView(Contract):
    """One version of a pair's terms."""

    version: int
    created_at: datetime
    created_by: str
    pair: PairRequest


class PairList(Contract):
    """The newest version of every pair by its currencies, disabled ones too."""

    items: list[PairView]


class RateRequest(Contract):
    """One rate of a pair whose terms are set."""

    base: CurrencyCode
    counter: CurrencyCode
    rate: RateText
    source: RateSource
    observed_at: Moment | None = None
    """When the source observed it; left out, now."""


class RatesRequest(Contract):
    """Rates to record: all of them, or none."""

    rates: Annotated[list[RateRequest], Field(min_length=1, max_length=RATES_MAX)]


class RateView(Contract):
    """One version of a pair's rate."""

    base: str
    counter: str
    version: int
    rate: str
    source: str
    observed_at: datetime
    recorded_at: datetime
    recorded_by: str


class RateList(Contract):
    """The rate in force of every pair; or the versions of one pair, newest first, a page at a time."""

    items: list[RateView]
    next_cursor: str | None = None
