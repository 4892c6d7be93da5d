"""Every published SBP link, each with its source, in tests/vectors/payment_rails.json; and links that are none."""

import binascii
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fleet.cli import main
from schemas.codes.nspk_link import LinkError, verify_link

VECTORS = orjson.loads((Path(__file__).parents[2] / "vectors" / "payment_rails.json").read_bytes())["vectors"]
LINKS = [v for v in VECTORS if v["type"] == "sbp_link"]
GENUINE = [pytest.param(v, id=v["id"]) for v in LINKS if v["crc_valid"]]
WRONG = [pytest.param(v, id=v["id"]) for v in LINKS if not v["crc_valid"]]
ID = "AS100001ORTF4GAF80KPJ53K186D9A3G"


def with_crc(body: str) -> str:
    return f"{body}&crc={binascii.crc_hqx(body.encode(), 0xFFFF):04X}"


@pytest.mark.parametrize("vector", GENUINE)
def test_a_genuine_link_reads_to_exactly_the_published_fields(vector: dict[str, Any]) -> None:
    assert verify_link(vector["payload"]).fields() == vector["fields"]


@pytest.mark.parametrize("vector", WRONG)
def test_a_link_that_was_edited_by_hand_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(LinkError) as caught:
        verify_link(vector["payload"])
    assert caught.value.code == "link_checksum_mismatch"


@pytest.mark.parametrize("vector", GENUINE + WRONG)
def test_the_command_says_whether_a_link_is_genuine(vector: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["sbp", "verify-link", vector["payload"], "--json"])
    printed = orjson.loads(capsys.readouterr().out)
    assert printed["valid"] is printed["crc_valid"] is vector["crc_valid"]
    assert code == (0 if vector["crc_valid"] else 1)
    if vector["crc_valid"]:
        assert {name: printed[name] for name in vector["fields"]} == vector["fields"]


@given(st.sampled_from([v for v in LINKS if v["crc_valid"]]), st.data())
def test_no_change_of_one_character_goes_unnoticed(vector: dict[str, Any], data: st.DataObject) -> None:
    url = vector["payload"]
    place = data.draw(st.integers(len("https://qr.nspk.ru/"), len(url) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126))
    # The checksum's own letters may be of either case.
    assume(other.upper() != url[place].upper())
    changed = url[:place] + other + url[place + 1 :]
    assume(place >= len(url) - 4 or "?" in changed)
    with pytest.raises(LinkError):
        verify_link(changed)


def test_the_short_form_has_no_parameters_and_is_taken() -> None:
    link = verify_link(f"https://qr.nspk.ru/{ID}")
    assert (link.qrc_id, link.type, link.amount_minor, link.crc) == (ID, None, None, None)


def test_a_static_link_may_carry_a_sum_and_a_lower_case_checksum() -> None:
    url = with_crc(f"https://qr.nspk.ru/{ID}?type=01&bank=100000000007&sum=10000&cur=RUB")
    head, _, crc = url.rpartition("=")
    link = verify_link(f"{head}={crc.lower()}")
    assert (link.type, link.amount_minor, link.currency) == ("01", 10_000, "RUB")


def test_a_subscription_lives_on_its_own_host() -> None:
    assert verify_link(with_crc(f"https://sub.nspk.ru/{ID}?type=03&bank=100000000007")).type == "03"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "link_malformed"),
        (f"http://qr.nspk.ru/{ID}", "link_malformed"),
        (f"https://qr.nspk.ru.evil.example/{ID}", "link_malformed"),
        (f"https://evil@qr.nspk.ru/{ID}", "link_malformed"),
        (f"https://qr.nspk.ru/{ID}X", "link_malformed"),
        (f"https://qr.nspk.ru/{ID}\n", "link_malformed"),
        ("https://qr.nspk.ru/" + "\u0410" * 32, "link_malformed"),
        (f"https://qr.nspk.ru/{ID}?" + "x" * 600, "link_malformed"),
        (f"https://qr.nspk.ru/{ID}?type=01&bank=100000000007", "link_checksum_missing"),
        (with_crc(f"https://qr.nspk.ru/{ID}?type=01&bank=100000000007") + "&sum=1", "link_malformed"),
        (with_crc(with_crc(f"https://qr.nspk.ru/{ID}?type=01")), "link_checksum_missing"),
        (with_crc(f"https://qr.nspk.ru/{ID}?type=01&bank=7"), "link_malformed"),
        (with_crc(f"https://qr.nspk.ru/{ID}?bank=100000000007"), "link_malformed"),
        (with_crc(f"https://qr.nspk.ru/{ID}?type=03&bank=100000000007"), "link_malformed"),
        (with_crc(f"https://sub.nspk.ru/{ID}?type=02&bank=100000000007"), "link_malformed"),
        (with_crc(f"https://qr.nspk.ru/{ID}?type=02&sum=1.50&cur=RUB"), "link_malformed"),
        (with_crc(f"https://qr.nspk.ru/{ID}?type=02&sum=0&cur=RUB"), "link_malformed"),
        (with_crc(f"https://qr.nspk.ru/{ID}?type=02&sum=100&cur=USD"), "link_malformed"),
        (with_crc(f"https://qr.nspk.ru/{ID}?type=02&sum=100"), "link_malformed"),
        (with_crc(f"https://qr.nspk.ru/{ID}?type=02&sum=100&sum=1&cur=RUB"), "link_malformed"),
    ],
)
def test_what_is_no_link_is_refused_by_name(url: str, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LinkError) as caught:
        verify_link(url)
    assert caught.value.code == code
    assert main(["sbp", "verify-link", url]) == 2
    assert capsys.readouterr().err.startswith(f"fleet: {code}: ")
