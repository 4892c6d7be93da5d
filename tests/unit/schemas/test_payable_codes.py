"""Who a scanned code asks to pay: every public vector is recognised by its kind, and read or refused by its name."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes.emvco import encode_bill_payment, encode_credit_transfer
from schemas.codes.nspk_link import LinkError
from schemas.codes.payable import CodeKind, read_payable, recognise
from schemas.codes.proxies import ProxyType
from schemas.codes.tlv import QrError, crc16, write_tlv

_ALL = orjson.loads((Path(__file__).parents[2] / "vectors" / "payment_rails.json").read_bytes())["vectors"]
_KINDS = {
    "thai_slip_mini_qr": CodeKind.SLIP,
    "bot_barcode": CodeKind.BARCODE,
    "sbp_link": CodeKind.SBP_LINK,
}
SCANNED = [v for v in _ALL if v["type"] in ("emv_mpm", *_KINDS)]


def text_of(vector: dict[str, Any]) -> str:
    return str(vector.get("payload") or vector.get("url"))


def is_whole(vector: dict[str, Any]) -> bool:
    return vector.get("crc_valid", True) and vector["fields"] is not None


@pytest.mark.parametrize("vector", [pytest.param(v, id=v["id"]) for v in SCANNED if is_whole(v)])
def test_every_published_code_is_recognised_by_its_kind(vector: dict[str, Any]) -> None:
    kind, fields = recognise(text_of(vector))
    wanted = _KINDS.get(vector["type"]) or vector["fields"].get("kind", CodeKind.OTHER_EMVCO)
    assert (kind, fields) == (wanted, vector["fields"])


@pytest.mark.parametrize("vector", [pytest.param(v, id=v["id"]) for v in SCANNED if not is_whole(v)])
def test_no_published_code_that_is_damaged_is_recognised(vector: dict[str, Any]) -> None:
    with pytest.raises((QrError, LinkError)):
        recognise(text_of(vector))


@pytest.mark.parametrize("vector", [pytest.param(v, id=v["id"]) for v in SCANNED if is_whole(v)])
def test_a_published_code_names_its_payee_or_is_refused_as_what_it_is(vector: dict[str, Any]) -> None:
    kind, fields = recognise(text_of(vector))
    if kind not in (CodeKind.CREDIT_TRANSFER, CodeKind.BILL_PAYMENT):
        with pytest.raises(QrError) as caught:
            read_payable(text_of(vector))
        assert caught.value.code == "qr_not_payable"
        return
    code = read_payable(text_of(vector))
    assert code.one_time is (fields["poi"] == "dynamic")
    if kind is CodeKind.BILL_PAYMENT:
        parts = [fields[name] for name in ("biller_id", "ref1", "ref2") if name in fields]
        assert (code.payee_type, code.payee_value) == ("bill", ":".join(parts))
    else:
        assert code.payee_value.replace("-", "").lstrip("0") in fields["recipient_wire"]


@pytest.mark.parametrize(
    ("kind", "payee", "named"),
    [
        (ProxyType.MOBILE, "+66 81 234 5678", ("mobile", "0812345678")),
        (ProxyType.NATIONAL_ID, "1-1017-00230-70-8", ("national_id", "1101700230708")),
        (ProxyType.EWALLET, "004999000288505", ("ewallet", "004999000288505")),
        (ProxyType.BANK_ACCOUNT, "0141234567890", ("bank_account", "014-1234567890")),
    ],
)
def test_a_payee_that_was_written_into_a_code_is_read_out_of_it(
    kind: ProxyType, payee: str, named: tuple[str, str]
) -> None:
    code = read_payable(encode_credit_transfer(kind, payee, amount_minor=2_000))
    assert ((code.payee_type, code.payee_value), code.amount_minor, code.one_time) == (named, 2_000, True)
    open_code = read_payable(encode_credit_transfer(kind, payee))
    assert (open_code.amount_minor, open_code.one_time) == (None, False)


def test_a_bill_that_was_written_into_a_code_is_read_out_of_it() -> None:
    code = read_payable(encode_bill_payment("099400015804189", "INV17", "C7", amount_minor=50_001))
    assert (code.payee_type, code.payee_value) == ("bill", "099400015804189:INV17:C7")
    assert (code.amount_minor, code.biller_id, code.ref1, code.ref2) == (50_001, "099400015804189", "INV17", "C7")


def checked(body: str) -> str:
    return f"{body}6304{crc16(body + '6304')}"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("00020101021230370016A0000006770101120113012345678901253037645802TH", id="a bill without Ref1"),
        pytest.param("00020101021129340016A00000067701011405101234567890530376458 02TH".replace(" ", ""), id="an OTA"),
        pytest.param("00020101021129370016A000000677010111011300668012345675303840 5802TH".replace(" ", ""), id="USD"),
        pytest.param("00020101021129370016A000000677010111011300658012345675303764 5802TH".replace(" ", ""), id="+65"),
        pytest.param(
            "00020101021229370016A00000067701011101130066801234567530376454040.00 5802TH".replace(" ", ""), id="0"
        ),
    ],
)
def test_a_code_that_names_nobody_to_pay_here_is_refused_without_a_word_of_it(body: str) -> None:
    with pytest.raises(QrError) as caught:
        read_payable(checked(body))
    assert caught.value.code == "qr_not_payable"
    assert not any(part in str(caught.value) for part in ("0123", "8012", "1234567890"))


def _whole(*fields: tuple[str, str]) -> str:
    """Return a code of these fields whose checksum proves it whole."""
    body = write_tlv((("00", "01"), ("01", "11"), *fields)) + "6304"
    return body + crc16(body)


def _transfer_to(tag: str, wire: str) -> str:
    return _whole(("29", write_tlv((("00", "A000000677010111"), (tag, wire)))), ("53", "764"))


def _bill_of(biller: str, *references: str) -> str:
    named = zip(("02", "03"), references, strict=False)
    return _whole(("30", write_tlv((("00", "A000000677010112"), ("01", biller), *named))), ("53", "764"))


@pytest.mark.parametrize(
    "code",
    [
        _transfer_to("03", "14000"),
        _transfer_to("03", ""),
        _transfer_to("04", "014"),
        _transfer_to("02", "๑" * 13),
        _bill_of("010753600031508", "A:B"),
        _bill_of("010753600031508", ""),
        _bill_of("010753600031508", "A", "B:C"),
        _bill_of("0107", "A"),
    ],
)
def test_what_would_be_paid_as_something_else_than_it_shows_is_refused(code: str) -> None:
    recognise(code)
    with pytest.raises(QrError) as caught:
        read_payable(code)
    assert caught.value.code == "qr_not_payable"


_VALUES = st.one_of(st.text(max_size=20), st.from_regex(r"(14000|0066|1400)?[0-9]{0,15}", fullmatch=True))
_NAMED = st.dictionaries(st.sampled_from(["00", "01", "02", "03", "04", "05", "07"]), _VALUES, max_size=4)
_APPLICATIONS = st.sampled_from(["A000000677010111", "A000000677010112", "A000000677010114", "A1"])


@given(
    tag=st.sampled_from(["26", "29", "30", "62"]),
    application=_APPLICATIONS,
    named=_NAMED,
    more=st.dictionaries(st.sampled_from(["52", "53", "54", "58", "59", "81"]), _VALUES, max_size=4),
)
def test_no_code_whose_checksum_is_right_ends_in_anything_but_an_answer(
    tag: str, application: str, named: dict[str, str], more: dict[str, str]
) -> None:
    nested = {"00": application} | {name: value for name, value in named.items() if name != "00"}
    try:
        code = _whole((tag, write_tlv(nested.items())), *more.items())
        recognise(code)
        read_payable(code)
    except (QrError, LinkError):
        pass
