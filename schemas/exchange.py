"""Exchange: pairs, rates, quotes and what they leave a tenant exposed to. Rates are decimal texts, never floats."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from schemas.base import Contract, Flag
from schemas.fees import Label, Moment, Rounding
from schemas.jobs import AmountMinor, CurrencyCode

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
    enabled: Flag = True

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


class QuoteSide(StrEnum):
    """Which amount of a quote is fixed: what is paid, or what is bought."""

    FROM = "FROM"
    TO = "TO"


class QuoteRequest(Contract):
    """Asks what one wallet pays for what another wallet of the same owner gets."""

    wallet_id: UUID
    """The wallet that pays."""
    counterparty_wallet_id: UUID
    """The wallet that gets the other currency."""
    from_currency: CurrencyCode
    to_currency: CurrencyCode
    side: QuoteSide = QuoteSide.FROM
    amount_minor: AmountMinor
    """Minor units of the currency on that side."""
    channel: Label = ""
    """Where the exchange comes from; fees may depend on it."""

    @model_validator(mode="after")
    def _two_of_each(self) -> Self:
        if self.from_currency == self.to_currency:
            raise ValueError("from_currency and to_currency are the same")
        return self


class ExchangeView(Contract):
    """What an exchange was agreed on; amounts are minor units of `currency`."""

    quote_id: UUID
    currency: str
    to_minor: int
    """What is bought."""
    received_minor: int
    """What the counterparty's wallet gets of it: all but the fees out of it."""
    spread_minor: int
    """What the house keeps."""


class QuoteView(Contract):
    """A quote. Who uses it pays `from_minor` and `fee_minor`; the other wallet gets `to_minor`, less fees out of it."""

    id: UUID
    state: Literal["OPEN", "USED", "EXPIRED"]
    wallet_id: UUID
    counterparty_wallet_id: UUID
    from_currency: str
    from_minor: int
    to_currency: str
    to_minor: int
    side: QuoteSide
    base: str
    counter: str
    rate: str
    """What one `base` is worth in `counter`, before the spread."""
    rate_version: int
    spread_basis_points: int
    spread_minor: int
    """What the house keeps, in minor units of `to_currency`, what rounding left included."""
    rounding: Rounding
    """DOWN: what is bought was rounded down. UP: what is paid was rounded up."""
    fee_minor: int | None = None
    """What the fee rules take on top, by the rules of now; shown when the quote is made."""
    received_minor: int | None = None
    """What the other wallet gets after the fees out of what is bought, by the rules of now; shown with `fee_minor`."""
    created_at: datetime
    expires_at: datetime
    intent_id: UUID | None


class LiquidityRequest(Contract):
    """Lets the liquidity of a currency go below zero, or no more."""

    currency: CurrencyCode
    may_overdraw: Flag


class CurrencyExposure(Contract):
    """The liquidity of one currency; amounts are minor units of it, flows are those since the report's beginning.

    Since ever, `position_minor` = `moved_by_hand_minor` + `bought_minor` - `sold_minor` - `spread_minor`.
    """

    currency: str
    position_minor: int
    """What there is now, below zero where it is overdrawn."""
    held_minor: int
    """What of it exchanges under review hold."""
    may_overdraw: bool
    bought_minor: int
    """What customers paid in."""
    sold_minor: int
    """What customers got, and the fees that were taken out of it."""
    spread_minor: int
    """What the house earned by spread and rounding, and moved to its fee income."""
    moved_by_hand_minor: int
    """What was put in by hand, less what was taken out."""


class PairExposure(Contract):
    """What was exchanged one way between two currencies, since the report's beginning."""

    from_currency: str
    to_currency: str
    count: int
    from_minor: int
    to_minor: int
    spread_minor: int
    """Minor units of `to_currency`."""
    average_rate: str
    """What one unit of `from_currency` bought of the other on average, in ten digits."""


class ExposureView(Contract):
    """What exchanging has left a tenant exposed to, as the ledger says."""

    since: datetime | None
    currencies: list[CurrencyExposure]
    pairs: list[PairExposure]
