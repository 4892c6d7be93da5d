"""An adapter whose settings cannot be says which, and what they take, in one line."""

from collections.abc import Callable

import pytest

from adapters.bank.__main__ import make_rail as the_bank
from adapters.noop.adapter import NoopRail, NoopSettings
from adapters.promptpay.__main__ import make_rail as promptpay
from adapters.runtime.app import EXIT_CONFIG, run
from adapters.runtime.port import Rail
from adapters.runtime.settings import RuntimeSettings
from adapters.sbp.__main__ import make_rail as sbp
from schemas.money import MAX_AMOUNT_MINOR

_REQUIRED = {"REDIS_URL": "redis://x", "CORE_INTERNAL_URL": "http://x", "CORE_KEY_ID": "k", "CORE_KEY_SECRET": "hidden"}

_NO_ADDRESS = "is no address: write http://HOST:PORT or https://HOST, and a path where it has one"
_NO_ZONE = "no such timezone: use a name of the IANA database, such as Asia/Bangkok"


def made_and_no_more(make_rail: Callable[[RuntimeSettings], Rail]) -> Callable[[RuntimeSettings], Rail]:
    """Return what makes the rail and never works with it: settings that are taken fail, and do not run on."""
    return lambda settings: _never(make_rail(settings))


def noop(settings: RuntimeSettings) -> Rail:
    return NoopRail(settings.timing(), NoopSettings())


def _never(_: object) -> Rail:
    raise AssertionError


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("FLEET_READ_SHARDS", "7", "FLEET_READ_SHARDS names no part below FLEET_SHARDS"),
        ("FLEET_READ_SHARDS", "0,x", "FLEET_READ_SHARDS: is not written as it has to be"),
        ("REDIS_URL", "http://hidden", "REDIS_URL: is no address of Redis or Valkey"),
        ("CORE_INTERNAL_URL", "hidden:8081", f"CORE_INTERNAL_URL: {_NO_ADDRESS}"),
        ("CORE_INTERNAL_URL", "http://:8081", "CORE_INTERNAL_URL: is no address"),
        ("CORE_INTERNAL_URL", "http://hidden:808100", "CORE_INTERNAL_URL: is no address"),
        ("CORE_INTERNAL_URL", "http://hidden/?a=b", "CORE_INTERNAL_URL: is no address"),
        ("CORE_INTERNAL_URL", "http://hidden\n", "CORE_INTERNAL_URL: is no address"),
        ("FLEET_BATCH", "many", "FLEET_BATCH: is no whole number"),
        ("FLEET_SEND_BY_S", "inf", "FLEET_SEND_BY_S: has to be a finite number"),
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
        (sbp, {"SBP_BASE_URL": "ftp://hidden"}, f"SBP_BASE_URL: {_NO_ADDRESS}"),
        (the_bank, {"BANK_BASE_URL": "hidden"}, f"BANK_BASE_URL: {_NO_ADDRESS}"),
        (the_bank, {"BANK_MAX_AMOUNT_MINOR": "9" * 30}, f"BANK_MAX_AMOUNT_MINOR: may be at most {MAX_AMOUNT_MINOR}"),
        (noop, {"NOOP_DELAY_MS": "-1"}, "NOOP_DELAY_MS: has to be at least 0"),
        (the_bank, {"BANK_TIMEZONE": "Siam"}, f"BANK_TIMEZONE: {_NO_ZONE}"),
        (the_bank, {"BANK_HOLIDAYS": "hidden"}, "BANK_HOLIDAYS: has to be a list, in brackets"),
        (the_bank, {"BANK_HOLIDAYS": '["hidden"]'}, "BANK_HOLIDAYS: is no day: write it as 2026-03-01"),
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
        run(made_and_no_more(make_rail))
    line = capsys.readouterr().err
    assert ended.value.code == EXIT_CONFIG
    assert line.startswith("refused: settings are missing or wrong: ")
    assert told in line.rstrip().split(": ", 2)[2].split("; ")
    assert line.count("\n") == 1
    assert "hidden" not in line


@pytest.mark.parametrize(("make_rail", "name"), [(promptpay, "PROMPTPAY"), (sbp, "SBP")])
def test_fewer_connections_than_calls_that_run_at_once_are_refused_with_the_numbers(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make_rail: Callable[[RuntimeSettings], Rail],
    name: str,
) -> None:
    own = {f"{name}_BASE_URL": "http://x", f"{name}_SECRET": "hidden", f"{name}_MAX_CONNECTIONS": "20"}
    for each, value in (_REQUIRED | own).items():
        monkeypatch.setenv(each, value)
    with pytest.raises(SystemExit) as ended:
        run(made_and_no_more(make_rail))
    assert ended.value.code == EXIT_CONFIG
    assert capsys.readouterr().err == (
        f"refused: {name}_MAX_CONNECTIONS is 20, and 120 calls run at once (FLEET_CONCURRENCY and"
        " FLEET_CONTROL_CONCURRENCY together): raise it to 120, or lower those\n"
    )
