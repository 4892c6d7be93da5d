"""Every public vector of Thai payment codes, each with its source, in tests/vectors/payment_rails.json."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas.codes.barcode import decode_barcode
from schemas.codes.emvco import decode, encode_bill_payment, encode_credit_transfer, satang
from schemas.codes.proxies import ProxyType, mobile_wire
from schemas.codes.slip import decode_slip
from schemas.codes.tlv import QrError, crc16

VECTORS = orjson.loads((Path(__file__).parents[2] / "vectors" / "payment_rails.json").read_bytes())["vectors"]


def of_type(name: str, **wanted: object) -> list[Any]:
    found = [v for v in VECTORS if v["type"] == name and all(v.get(key) == value for key, value in wanted.items())]
    assert found, f"no vectors of type {name}"
    return [pytest.param(v, id=v["id"]) for v in found]


@pytest.mark.parametrize("vector", of_type("emv_mpm", crc_valid=True))
def test_a_payment_code_reads_to_exactly_the_published_fields(vector: dict[str, Any]) -> None:
    assert decode(vector["payload"]).fields() == vector["fields"]


@pytest.mark.parametrize("vector", of_type("emv_mpm", crc_valid=False))
def test_a_payment_code_whose_checksum_is_wrong_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(QrError) as caught:
        decode(vector["payload"])
    assert caught.value.code == "qr_checksum_mismatch"


@pytest.mark.parametrize("vector", of_type("emv_mpm", crc_valid=True))
def test_what_is_written_reads_back_to_the_same_payee_and_amount(vector: dict[str, Any]) -> None:
    fields = vector["fields"]
    if "kind" not in fields or len(fields.get("biller_id", "0" * 15)) != 15:
        return  # another scheme, or a 13-digit biller, which is tolerated on read and refused on write
    amount_minor, dynamic = decode(vector["payload"]).amount_minor, fields["poi"] == "dynamic"
    if fields["kind"] == "bill_payment":
        written = encode_bill_payment(
            fields["biller_id"], fields["ref1"], fields.get("ref2"), amount_minor=amount_minor, dynamic=dynamic
        )
    else:
        target = fields.get("recipient_local", fields["recipient_wire"])
        written = encode_credit_transfer(
            ProxyType(fields["recipient_type"]), target, amount_minor=amount_minor, dynamic=dynamic
        )
    again = decode(written)
    assert again.amount_minor == amount_minor
    assert list(again.top) == sorted(again.top), "tags are written in ascending order"
    kept = ("kind", "recipient_type", "recipient_wire", "biller_id", "ref1", "ref2", "poi")
    assert {name: again.fields().get(name) for name in kept} == {name: fields.get(name) for name in kept}


@pytest.mark.parametrize("vector", of_type("thai_slip_mini_qr"))
def test_a_slip_reads_to_its_fields_or_is_refused_when_cut(vector: dict[str, Any]) -> None:
    if vector["crc_valid"]:
        assert decode_slip(vector["payload"]).fields() == vector["fields"]
        return
    with pytest.raises(QrError):
        decode_slip(vector["payload"])


@pytest.mark.parametrize("vector", of_type("bot_barcode"))
def test_a_bill_barcode_reads_to_its_fields_or_is_refused(vector: dict[str, Any]) -> None:
    if vector["valid"]:
        assert decode_barcode(vector["payload"]).fields() == vector["fields"]
        return
    with pytest.raises(QrError):
        decode_barcode(vector["payload"])


@pytest.mark.parametrize("vector", of_type("crc16_ccitt_false"))
def test_the_checksum_is_crc_16_ccitt_false(vector: dict[str, Any]) -> None:
    assert crc16(vector["input"]) == vector["crc"]


@pytest.mark.parametrize("vector", of_type("phone_format"))
def test_phone_numbers_are_normalised(vector: dict[str, Any]) -> None:
    assert mobile_wire(vector["input"]) == vector["wire"]


@pytest.mark.parametrize("vector", of_type("amount_format"))
def test_an_amount_that_others_round_or_that_is_nothing_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(QrError) as caught:
        satang(vector["input"])
    assert caught.value.code == "qr_amount_malformed"
