"""Failpoints: silent unless armed, and then at the hit that was asked for."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wire.failpoints import FailpointError, Failpoints


def test_an_unarmed_point_is_never_due() -> None:
    points = Failpoints()
    assert not points
    assert points.due("relay.after_xadd") is None


def test_a_point_fires_at_the_hit_that_was_named_and_once() -> None:
    points = Failpoints("adapter.after_call=stop@3,api.after_commit=kill")
    assert [points.due("adapter.after_call") for _ in range(4)] == [None, None, signal.SIGSTOP, None]
    assert points.due("api.after_commit") is signal.SIGKILL


def test_a_file_arms_a_running_process_and_goes_when_it_fires(tmp_path: Path) -> None:
    points = Failpoints("", str(tmp_path))
    assert points.due("adapter.during_call") is None
    (tmp_path / "adapter.during_call").write_text("kill\n")
    assert points.due("adapter.during_call") is signal.SIGKILL
    assert not (tmp_path / "adapter.during_call").exists()
    assert points.due("adapter.during_call") is None


@pytest.mark.parametrize("text", ["x=explode", "x", "x=kill@often"])
def test_a_text_that_arms_nothing_known_is_refused(text: str) -> None:
    with pytest.raises(FailpointError):
        Failpoints(text)


def test_an_armed_process_dies_at_the_point_and_not_before() -> None:
    code = "from wire.failpoints import failpoint; failpoint('a'); print('lived', flush=True); failpoint('b')"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "FLEET_FAILPOINTS": "b=kill"},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == b"lived\n"
