"""An adapter whose settings cannot be says which, and what they take, in one line."""

from collections.abc import Callable

import pytest

from adapters.bank.__main__ import make_rail as the_bank
from adapters.promptpay.__main__ import make_rail as promptpay
from adapters.runtime.app import EXIT_CONFIG, run
from adapters.runtime.port import Rail
from adapters.runtime.settings import RuntimeSettings

_REQUIRED = {"REDIS_URL": "redis://x", "CORE_INTERNAL_URL": "http://x", "CORE_KEY_ID": "k", "CORE_KEY_SECRET": "hidden"}


def _never(_: RuntimeSettings) -> Rail:
    raise AssertionError


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FLEET_READ_SHARDS", "7", "FLEET_READ_SHARDS names no part below FLEET_SHARDS"),
        ("FLEET_READ_SHARDS", "0,x", "FLEET_READ_SHARDS: is not written as it has to be"),
        ("REDIS_URL", "http://hidden", "REDIS_URL: is no address of Redis or Valkey"),
        ("FLEET_BATCH", "many", "FLEET_BATCH: is no whole number"),
        ("FLEET_CALLBACK_ALLOWED", "nowhere", "FLEET_CALLBACK_ALLOWED: 'nowhere'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name_and_with_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, told: str
) -> None:
    for each, usual in _REQUIRED.items():
        monkeypatch.setenv(each, usual)
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        run(_never)
    line = capsys.readouterr().err
    assert ended.value.code == EXIT_CONFIG
    assert line.startswith(f"refused: settings are missing or wrong: {told}")
    assert line.count("\n") == 1
    assert "hidden" not in line


@pytest.mark.parametrize(
    ("make_rail", "changed", "told"),
    [
        (promptpay, {"PROMPTPAY_SECRET": "x"}, "PROMPTPAY_BASE_URL: is missing: set it, or PROMPTPAY_BASE_URL_FILE"),
        (promptpay, {"PROMPTPAY_CONNECT_S": "0"}, "PROMPTPAY_CONNECT_S: has to be more than 0.0"),
        (the_bank, {"BANK_HOLIDAYS": '["hidden"]'}, "BANK_HOLIDAYS.0: is no day: write it as 2026-03-01"),
    ],
)
def test_a_setting_of_the_rail_is_named_as_it_is_set(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make_rail: Callable[[RuntimeSettings], Rail],
    changed: dict[str, str],
    told: str,
) -> None:
    for each, value in (_REQUIRED | changed).items():
        monkeypatch.setenv(each, value)
    with pytest.raises(SystemExit) as ended:
        run(make_rail)
    line = capsys.readouterr().err
    assert ended.value.code == EXIT_CONFIG
    assert line.startswith("refused: settings are missing or wrong: ")
    assert told in line.rstrip().split(": ", 2)[2].split("; ")
    assert line.count("\n") == 1
    assert "hidden" not in line
