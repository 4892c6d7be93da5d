"""What holds for every payment code, not only for the published ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes.emvco import decode, encode_bill_payment, encode_credit_transfer
from schemas.codes.proxies import ProxyType, mobile_wire
from schemas.codes.tlv import QrError, crc16, read_tlv, write_tlv

MOBILES = st.from_regex(r"0[689][0-9]{8}", fullmatch=True)
AMOUNTS = st.none() | st.integers(1, 99_999_999_999)


@given(MOBILES, AMOUNTS, st.booleans())
def test_any_mobile_and_amount_round_trip(mobile: str, amount_minor: int | None, dynamic: bool) -> None:
    decoded = decode(encode_credit_transfer(ProxyType.MOBILE, mobile, amount_minor=amount_minor, dynamic=dynamic))
    assert decoded.amount_minor == amount_minor
    fields = decoded.fields()
    assert (fields["recipient_local"], fields["poi"]) == (mobile, "dynamic" if dynamic else "static")


@given(st.data())
def test_no_single_changed_character_goes_unnoticed(data: st.DataObject) -> None:
    payload = encode_credit_transfer(ProxyType.MOBILE, data.draw(MOBILES), amount_minor=data.draw(AMOUNTS))
    position = data.draw(st.integers(0, len(payload) - 1))
    other = data.draw(st.characters(codec="ascii", exclude_characters=payload[position]))
    changed = payload[:position] + other + payload[position + 1 :]
    if changed.upper() == payload:
        return  # a lower-case checksum is taken
    with pytest.raises(QrError):
        decode(changed)


@given(st.dictionaries(st.from_regex(r"[0-9]{2}", fullmatch=True), st.text(max_size=99), max_size=6))
def test_lengths_count_characters_of_any_script(fields: dict[str, str]) -> None:
    assert read_tlv(write_tlv(fields.items()), "test") == fields


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_fail_in_another_way_than_a_named_refusal(text: str) -> None:
    with pytest.raises(QrError):
        decode(text)


@pytest.mark.parametrize(
    ("text", "code"),
    [("081234567", "mobile_malformed"), ("0212345678", "mobile_malformed"), ("08123456789", "mobile_malformed")],
)
def test_a_number_that_libraries_mis_encode_is_refused(text: str, code: str) -> None:
    with pytest.raises(QrError) as caught:
        mobile_wire(text)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("kind", "payee", "code"),
    [
        (ProxyType.NATIONAL_ID, "123456789012", "national_id_malformed"),
        (ProxyType.EWALLET, "1234", "ewallet_malformed"),
        (ProxyType.BANK_ACCOUNT, "014", "bank_account_malformed"),
    ],
)
def test_a_payee_of_the_wrong_length_is_refused_by_name(kind: ProxyType, payee: str, code: str) -> None:
    with pytest.raises(QrError) as caught:
        encode_credit_transfer(kind, payee)
    assert caught.value.code == code


def test_a_bill_with_a_short_biller_or_a_lower_case_reference_is_refused() -> None:
    with pytest.raises(QrError, match="15 digits"):
        encode_bill_payment("0112233445566", "A")
    with pytest.raises(QrError, match="ref1"):
        encode_bill_payment("099400016550100", "abc")


@pytest.mark.parametrize("amount_minor", [0, -1])
def test_an_amount_of_nothing_is_not_written(amount_minor: int) -> None:
    with pytest.raises(QrError) as caught:
        encode_credit_transfer(ProxyType.MOBILE, "0812345678", amount_minor=amount_minor)
    assert caught.value.code == "qr_amount_not_positive"


def test_tag_29_of_another_scheme_is_not_taken_for_promptpay() -> None:
    body = "000201" + "010211" + "29300012D156000000000510A93FO3230Q" + "5802CN" + "6304"
    fields = decode(body + crc16(body)).fields()
    assert "kind" not in fields
    assert fields["tag29"]["00"] == "D15600000000"
