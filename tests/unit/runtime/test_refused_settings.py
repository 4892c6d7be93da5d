"""An adapter whose settings cannot be says which, and what they take, in one line."""

import pytest

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
    assert line.startswith(f"refused: these settings are missing or wrong: {told}")
    assert line.count("\n") == 1
    assert "hidden" not in line
