"""What an exchange gives for what it takes: integers alone, every fraction rounded in the house's favour. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from typing import Any, Final, Literal, NamedTuple, Self
from uuid import UUID

from core.domain.rates import Pair, Rate, Ratio
from schemas.exchange import QuoteSide
from schemas.fees import Rounding
from schemas.money import MAX_AMOUNT_MINOR, currency_of

_BASIS: Final = 10_000
_AVERAGE: Final = Context(prec=10)
"""For what is only shown: no money is computed by it."""

ROUNDING: Final = {QuoteSide.FROM: Rounding.DOWN, QuoteSide.TO: Rounding.UP}
"""What the customer gets is rounded down, what the customer pays for a fixed amount is rounded up."""


class Exchanged(NamedTuple):
    """The amounts of an exchange, in minor units of either currency.

    What was paid is worth `to_minor` + `spread_minor`, rounded down: the customer gets the first, the house the second.
    """

    from_minor: int
    to_minor: int
    spread_minor: int

    @property
    def fits(self) -> bool:
        """Whether something is bought, and no amount is larger than the API takes."""
        return self.to_minor > 0 and max(self) <= MAX_AMOUNT_MINOR


def exchange_from(from_minor: int, ratio: Ratio, spread_basis_points: int) -> Exchanged:
    """Return what an amount buys, rounded DOWN; `ratio` is what a minor unit of it is worth."""
    worth_minor = from_minor * ratio.numerator // ratio.denominator
    kept = _BASIS - spread_basis_points
    to_minor = from_minor * ratio.numerator * kept // (ratio.denominator * _BASIS)
    return Exchanged(from_minor, to_minor, worth_minor - to_minor)


def exchange_to(to_minor: int, ratio: Ratio, spread_basis_points: int) -> Exchanged:
    """Return what an amount costs, rounded UP; `ratio` is what a minor unit of the price is worth."""
    kept = _BASIS - spread_basis_points
    from_minor = -(-to_minor * ratio.denominator * _BASIS // (ratio.numerator * kept))
    worth_minor = from_minor * ratio.numerator // ratio.denominator
    return Exchanged(from_minor, to_minor, worth_minor - to_minor)


def average_rate(from_minor: int, from_currency: str, to_minor: int, to_currency: str) -> str:
    """Return what one unit of a currency bought of another, as a decimal text of ten digits."""
    bought = Decimal(to_minor).scaleb(-currency_of(to_currency).decimals)
    paid = Decimal(from_minor).scaleb(-currency_of(from_currency).decimals)
    return f"{_AVERAGE.divide(bought, paid).normalize():f}"


class ExchangeTerms(NamedTuple):
    """What an EXCHANGE was agreed on, as it is kept with its intent; amounts are minor units of `currency`."""

    quote_id: UUID
    currency: str
    """That of what is bought."""
    to_minor: int
    """What is bought: the counterparty's wallet gets it less the fees out of it."""
    spread_minor: int

    def record(self) -> dict[str, Any]:
        """Return it as plain values."""
        return self._asdict() | {"quote_id": str(self.quote_id)}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """Return what `record` made these values of."""
        return cls(**{**record, "quote_id": UUID(record["quote_id"])})


@dataclass(slots=True)
class Quote:
    """An offer to exchange, once, until it expires; amounts are minor units of either currency."""

    id: UUID
    tenant_id: UUID
    service_key_id: str
    wallet_id: UUID
    counterparty_wallet_id: UUID
    from_currency: str
    to_currency: str
    from_minor: int
    to_minor: int
    spread_minor: int
    side: QuoteSide
    pair: Pair
    rate: Rate
    rate_version: int
    spread_basis_points: int
    created_at: datetime
    expires_at: datetime
    intent_id: UUID | None = None
    """The exchange that used it."""

    def state(self, now: datetime) -> Literal["OPEN", "USED", "EXPIRED"]:
        """Return what can become of it."""
        if self.intent_id is not None:
            return "USED"
        return "OPEN" if now < self.expires_at else "EXPIRED"

    def terms(self) -> ExchangeTerms:
        """Return what an exchange by it keeps."""
        return ExchangeTerms(self.id, self.to_currency, self.to_minor, self.spread_minor)
