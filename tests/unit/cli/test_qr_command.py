"""`fleet qr` says exactly what the code says, and errors are one line with a code."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from fleet.cli import main

VECTORS = orjson.loads((Path(__file__).parents[2] / "vectors" / "payment_rails.json").read_bytes())["vectors"]
CODES = [v for v in VECTORS if v["type"] in ("emv_mpm", "thai_slip_mini_qr", "bot_barcode")]


@pytest.mark.parametrize("vector", [pytest.param(v, id=v["id"]) for v in CODES if v["fields"] is not None])
def test_decode_prints_exactly_the_fields(vector: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["qr", "decode", vector["payload"], "--json"])
    printed = capsys.readouterr()
    if vector.get("crc_valid", True):
        assert (code, orjson.loads(printed.out)) == (0, vector["fields"])
    else:
        assert (code, printed.out) == (2, "")
        assert printed.err.startswith("fleet: qr_checksum_mismatch: ")


def test_what_encode_prints_decode_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qr", "encode", "mobile:0812345678", "--amount", "10.50", "--json"]) == 0
    payload = orjson.loads(capsys.readouterr().out)["payload"]
    assert main(["qr", "decode", payload, "--json"]) == 0
    fields = orjson.loads(capsys.readouterr().out)
    assert (fields["recipient_local"], fields["amount_text"]) == ("0812345678", "10.50")


def test_decode_for_people_shows_tags_as_they_stand_in_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    bill = next(each for each in CODES if "tag62" in (each["fields"] or {}) and "tag30" in each["fields"])
    assert main(["qr", "decode", bill["payload"]]) == 0
    shown = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert shown["tags"] == bill["fields"]["tags"]
    assert shown["tag30"] == [f"{tag}={text}" for tag, text in bill["fields"]["tag30"].items()]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["qr", "encode", "mobile:081234"], "mobile_malformed"),
        (["qr", "decode", ""], "qr_checksum_missing"),
        (["qr", "decode", "\udcff"], "usage"),
        (["qr", "decode"], "usage"),
        (["fly"], "usage"),
        (["--fly"], "usage"),
        (["intents", "list", "--reference", "\udcff"], "usage"),
        (["intents", "show", "not-an-id"], "usage: Invalid value for 'intent_id': is no id: an id is a UUID,"),
        (["rails", "new", "Zeta-Bank"], "rail_malformed: 'Zeta-Bank' is no rail's name: write small letters,"),
        (["intents", "list", "--state", "PAID"], "usage: Invalid value for '--state': 'PAID' is not one of"),
        (["qr", "encode", "pigeon:1"], "payee_malformed"),
        (["qr", "encode", "mobile:0812345678", "--amount", "1.005"], "qr_amount_malformed"),
        (["intents", "create", "--wallet", "0" * 32, "--amount", "1.005"], "amount_over_precise"),
        (["intents", "create", "--wallet", "0" * 32, "--amount", "1", "--currency", "XXX"], "unknown_currency"),
        (["intents", "create", "--wallet", "0" * 32, "--amount", "1", "--payee", "x"], "payee_malformed"),
    ],
)
def test_wrong_input_is_one_line_with_a_code_and_exit_2(
    arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith((f"fleet: {code}: ", f"fleet: {code} "))
    assert printed.err.count("\n") == 1


def test_a_command_that_knows_no_core_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FLEET_STACK", str(tmp_path / "absent.json"))
    for name in ("FLEET_URL", "FLEET_KEY_ID", "FLEET_KEY_SECRET"):
        monkeypatch.delenv(name, raising=False)
    assert main(["intents", "list"]) == 4
    assert "FLEET_URL" in capsys.readouterr().err
