"""One stack with four rails for all end-to-end tests of commands and client, and the command that finds it."""

from collections.abc import AsyncIterator

import pytest

from fleet.stack.stack import Stack, StackPlan, running
from tests.support.commands import SETTINGS, Fleet, fleet_command


@pytest.fixture(scope="package")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Return a running system; what one test leaves in it, the next one meets. It ends with the folder's last test.

    tests/conftest.py gives all files that ask for it to one process.
    """
    rails = {"noop": 1, "promptpay": 1, "sbp": 1, "bank": 1}
    async with running(StackPlan(tmp_path_factory.mktemp("stack"), rails=rails)) as stack:
        yield stack


@pytest.fixture
def fleet(stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Return the command as it is typed in the folder where `./dev up` runs."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLEET_STACK", str(stack.home / "stack.json"))
    return fleet_command(capsys, monkeypatch)
