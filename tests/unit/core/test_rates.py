"""Rates are exact: what is written is what is kept, and both directions come from one number."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.rates import Pair, Rate, RateError, is_from_future, is_too_old

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "units", "scale", "shown"),
    [
        ("35.1275", 351275, 4, "35.1275"),
        ("35.10", 351, 1, "35.1"),
        ("35", 35, 0, "35"),
        ("100", 100, 0, "100"),
        ("0.0067", 67, 4, "0.0067"),
        ("0.000000000001", 1, 12, "0.000000000001"),
        ("0035.5", 355, 1, "35.5"),
    ],
)
def test_a_rate_is_kept_exactly_and_without_trailing_zeros(text: str, units: int, scale: int, shown: str) -> None:
    rate = Rate.parse(text)
    assert (rate.units, rate.scale, str(rate)) == (units, scale, shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0.000",
        "-1",
        "+1",
        "1e3",
        "1,5",
        "1.",
        ".5",
        "nan",
        "\u0661",
        "1.0000000000001",
        "123456789012.1234567",
    ],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(RateError):
        Rate.parse(text)


@given(st.integers(1, 10**18 - 1), st.integers(0, 12))
def test_every_rate_is_read_as_it_is_written(units: int, scale: int) -> None:
    number = Fraction(units, 10**scale)
    whole, rest = divmod(units, 10**scale)
    if whole >= 10**12:
        return
    rate = Rate.parse(f"{whole}.{rest:0{scale}d}" if scale else str(whole))
    assert Fraction(rate.units, 10**rate.scale) == number
    assert Rate.parse(str(rate)) == rate


def test_minor_units_follow_the_decimals_of_both_currencies() -> None:
    # One dollar is 150.25 yen: a cent is 1.5025 yen, and yen have no decimals.
    pair, rate = Pair("USD", "JPY"), Rate.parse("150.25")
    assert Fraction(*rate.ratio(pair, "USD")) == Fraction(15025, 10_000)
    assert Fraction(*rate.ratio(pair, "JPY")) == Fraction(10_000, 15025)


def test_a_rate_grows_too_old_after_its_age_and_is_not_taken_from_the_future() -> None:
    assert not is_too_old(NOW - timedelta(seconds=60), 60, NOW)
    assert is_too_old(NOW - timedelta(seconds=61), 60, NOW)
    assert not is_from_future(NOW + timedelta(seconds=60), NOW)
    assert is_from_future(NOW + timedelta(seconds=61), NOW)
