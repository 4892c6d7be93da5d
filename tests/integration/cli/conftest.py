"""The command on real servers: which ones it finds is set by the environment, as an operator would."""

import base64
from pathlib import Path

import pytest

from tests.support.commands import SETTINGS, Fleet, fleet_command

MASTER_KEY = base64.b64encode(bytes(32)).decode()


@pytest.fixture
def fleet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fleet:
    """Return the command, knowing no server yet but the master key."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLEET_STACK", str(tmp_path / "absent.json"))
    monkeypatch.setenv("FLEET_MASTER_KEY", MASTER_KEY)
    return fleet_command(capsys, monkeypatch)
