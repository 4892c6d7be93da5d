"""What a core says that cannot start: each setting as it is set, and what it takes."""

import pytest

from core.__main__ import main


def test_settings_that_are_missing_or_wrong_are_named_as_they_are_set_and_no_value_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DATABASE_URL", "FLEET_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLEET_ACCEPT_BATCH", "many")
    assert main(["api"]) == 2
    told = capsys.readouterr().err
    assert "DATABASE_URL: is missing: set it" in told
    assert "FLEET_MASTER_KEY: is missing: set it" in told
    assert "FLEET_ACCEPT_BATCH: is no whole number: write digits alone" in told
    assert "many" not in told
