"""Money is exact or refused."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.money import (
    MAX_AMOUNT_MINOR,
    AmountError,
    currency_of,
    currency_of_ledger,
    known_currencies,
    to_major_text,
    to_minor,
)

CODES = ["THB", "RUB", "USD", "SGD", "JPY", "EUR", "KWD", "BHD", "KRW", "AUD", "UYW"]


@given(st.integers(1, MAX_AMOUNT_MINOR), st.sampled_from(CODES))
def test_major_text_and_minor_units_round_trip_exactly(amount_minor: int, code: str) -> None:
    currency = currency_of(code)
    text = to_major_text(amount_minor, currency)
    assert to_minor(text, currency) == amount_minor
    assert Decimal(text) == Decimal(amount_minor) / 10**currency.decimals


@pytest.mark.parametrize(
    ("text", "code", "amount_minor"),
    [("0.01", "THB", 1), ("20", "THB", 2000), ("0040", "THB", 4000), ("10.500", "THB", 1050), ("7", "JPY", 7)],
)
def test_written_forms_of_one_amount_are_understood(text: str, code: str, amount_minor: int) -> None:
    assert to_minor(text, currency_of(code)) == amount_minor


@pytest.mark.parametrize(
    ("text", "code", "refusal"),
    [
        ("1.005", "THB", "amount_over_precise"),
        ("0.5", "JPY", "amount_over_precise"),
        ("0", "THB", "amount_not_positive"),
        ("0.00", "THB", "amount_not_positive"),
        ("-5", "THB", "amount_not_positive"),
        ("10000000000000.01", "THB", "amount_too_large"),
        ("99999999999999999999", "THB", "amount_too_large"),
        ("1e3", "THB", "amount_malformed"),
        ("1,000.00", "THB", "amount_malformed"),
        ("NaN", "THB", "amount_malformed"),
        ("๑๐", "THB", "amount_malformed"),
        ("", "THB", "amount_malformed"),
    ],
)
def test_an_amount_that_is_not_exact_is_refused_with_a_stable_code(text: str, code: str, refusal: str) -> None:
    with pytest.raises(AmountError) as caught:
        to_minor(text, currency_of(code))
    assert caught.value.code == refusal


def test_a_long_text_is_quoted_as_one_that_goes_on_and_the_largest_amount_is_told_as_people_write_it() -> None:
    with pytest.raises(AmountError) as caught:
        to_minor("9" * 26, currency_of("THB"))
    assert str(caught.value) == f"amount '{'9' * 23}…' is more than 10000000000000.00"


def test_an_unknown_currency_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(AmountError, match="THB") as caught:
        currency_of("ZZZ")
    assert caught.value.code == "unknown_currency"


@pytest.mark.parametrize(("code", "why"), [("XAU", "no currency that can be held"), ("ZZZ", "none of ISO 4217")])
def test_what_is_no_money_is_told_from_what_is_no_code(code: str, why: str) -> None:
    with pytest.raises(AmountError, match=f"'{code}' is .*{why}: write a code such as THB") as caught:
        currency_of(code)
    assert caught.value.code == "unknown_currency"


def test_a_ledger_number_finds_its_currency() -> None:
    assert currency_of_ledger(764).code == "THB"
    with pytest.raises(AmountError):
        currency_of_ledger(1)


def test_every_currency_of_iso_4217_is_known_but_what_has_no_decimals() -> None:
    known = known_currencies()
    assert len(known) > 150
    assert {"AUD", "CAD", "PHP", "LAK", "MMK", "UZS"} <= set(known)
    assert {"XAU", "XTS", "XXX"}.isdisjoint(known)
