"""Runs the `fleet` command inside the tests' process, beside the loop that the servers' clients live on."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from fleet.cli import main

SETTINGS = (
    "FLEET_URL", "FLEET_KEY_ID", "FLEET_KEY_SECRET", "DATABASE_WORKER_URL", "REDIS_URL", "FLEET_MASTER_KEY",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Done:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON on stdout."""
        return orjson.loads(self.out)

    def must_fail(self, exit_code: int, code: str) -> str:
        """Check that it ended in exactly one line of this code; return the line."""
        assert (self.code, self.out) == (exit_code, ""), self
        assert self.err.startswith(f"fleet: {code}: "), self.err
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        return self.err


Fleet = Callable[..., Coroutine[Any, Any, Done]]


def fleet_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Return a coroutine function that runs `fleet ARGUMENTS`; a wide terminal keeps tables unfolded."""
    monkeypatch.setenv("COLUMNS", "240")

    async def run(*arguments: str) -> Done:
        capsys.readouterr()
        code = await asyncio.to_thread(main, list(arguments))
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run
