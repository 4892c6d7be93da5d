"""The arithmetic of exchange: whatever the rate, the spread and the amount, rounding never costs the house anything."""

from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from core.domain.exchange import Exchanged, exchange_from, exchange_to
from core.domain.rates import Pair, Rate, Ratio

CURRENCIES = ("THB", "RUB", "USD", "SGD", "JPY", "EUR")
PAIRS = st.permutations(CURRENCIES).map(lambda drawn: Pair(drawn[0], drawn[1]))
RATES = st.builds(
    lambda units, scale: Rate.parse(str(Rate(units, scale))), st.integers(1, 10**12 - 1), st.integers(0, 12)
)
AMOUNTS = st.integers(1, 10**15)
SPREADS = st.integers(0, 5000)


def both(pair: Pair, rate: Rate) -> tuple[Ratio, Ratio]:
    return rate.ratio(pair, pair.base), rate.ratio(pair, pair.counter)


def kept(spread: int) -> Fraction:
    return Fraction(10_000 - spread, 10_000)


@pytest.mark.parametrize(
    ("paid", "rate", "spread", "expected"),
    [
        # 100.00 USD at 35.1275 are 3512.75 THB, of which 0.5 % are 17.56: the fraction is the house's.
        (10_000, "35.1275", 50, Exchanged(10_000, 349_518, 1757)),
        (10_000, "35.1275", 0, Exchanged(10_000, 351_275, 0)),
        (1, "35.1275", 50, Exchanged(1, 34, 1)),
    ],
)
def test_what_is_paid_buys_what_the_rate_says_less_the_spread(
    paid: int, rate: str, spread: int, expected: Exchanged
) -> None:
    ratio = Rate.parse(rate).ratio(Pair("USD", "THB"), "USD")
    assert exchange_from(paid, ratio, spread) == expected


def test_what_buys_nothing_does_not_fit() -> None:
    ratio = Rate.parse("35").ratio(Pair("USD", "THB"), "THB")
    assert exchange_from(34, ratio, 0) == (34, 0, 0)
    assert not exchange_from(34, ratio, 0).fits
    assert exchange_from(35, ratio, 0).fits
    assert not exchange_to(10**15, ratio, 0).fits


@given(PAIRS, RATES, AMOUNTS, SPREADS)
def test_what_was_paid_is_divided_without_a_rest_and_rounding_is_the_houses(
    pair: Pair, rate: Rate, amount: int, spread: int
) -> None:
    for ratio in both(pair, rate):
        exact = Fraction(*ratio)
        for done in (exchange_from(amount, ratio, spread), exchange_to(amount, ratio, spread)):
            worth = done.from_minor * exact
            # Together the parts are all whole units of what was paid for: none is created, none is lost.
            assert done.to_minor + done.spread_minor == worth.numerator // worth.denominator
            assert done.spread_minor >= 0
            assert done.to_minor <= worth * kept(spread)


@given(PAIRS, RATES, AMOUNTS, SPREADS)
def test_each_side_rounds_by_less_than_one_unit(pair: Pair, rate: Rate, amount: int, spread: int) -> None:
    for ratio in both(pair, rate):
        exact = Fraction(*ratio) * kept(spread)
        bought = exchange_from(amount, ratio, spread)
        assert bought.from_minor == amount
        assert bought.to_minor <= amount * exact < bought.to_minor + 1
        paid = exchange_to(amount, ratio, spread)
        assert paid.to_minor == amount
        assert paid.from_minor - 1 < amount / exact <= paid.from_minor


@given(PAIRS, RATES, AMOUNTS, SPREADS, SPREADS, st.booleans(), st.booleans())
@example(Pair("USD", "JPY"), Rate.parse("150.25"), 1, 0, 0, True, False)
def test_a_quote_and_its_inverse_never_make_money(
    pair: Pair, rate: Rate, amount: int, spread: int, other_spread: int, from_base: bool, fixed: bool
) -> None:
    there, back = both(pair, rate) if from_base else both(pair, rate)[::-1]
    first = exchange_to(amount, there, spread) if fixed else exchange_from(amount, there, spread)
    assume(first.to_minor > 0)
    assert exchange_from(first.to_minor, back, other_spread).to_minor <= first.from_minor
    # Asking back for exactly what was paid costs at least what was bought.
    assert exchange_to(first.from_minor, back, other_spread).from_minor >= first.to_minor


@given(PAIRS, RATES, AMOUNTS, SPREADS)
def test_a_price_is_the_least_that_buys_the_amount(pair: Pair, rate: Rate, amount: int, spread: int) -> None:
    for ratio in both(pair, rate):
        price = exchange_to(amount, ratio, spread).from_minor
        assert exchange_from(price, ratio, spread).to_minor >= amount
        assert price == 1 or exchange_from(price - 1, ratio, spread).to_minor < amount


@given(PAIRS, RATES, AMOUNTS, SPREADS)
def test_splitting_an_exchange_never_buys_more(pair: Pair, rate: Rate, amount: int, spread: int) -> None:
    ratio = rate.ratio(pair, pair.base)
    part = amount // 3
    whole = exchange_from(amount, ratio, spread).to_minor
    assert exchange_from(part, ratio, spread).to_minor + exchange_from(amount - part, ratio, spread).to_minor <= whole
