"""Which account PostgreSQL runs under where we are root, and what is opened for it."""

import os
import sys
from pathlib import Path

import pytest

from fleet.stack.account import account_of_servers, open_the_way, open_to_readers


@pytest.mark.parametrize(
    ("platform", "user_id", "account"),
    [("linux", 0, "pgserver"), ("darwin", 0, "_postgres"), ("linux", 1000, None), ("darwin", 501, None)],
)
def test_root_hands_the_server_to_an_account_that_the_system_has_or_can_make(
    platform: str, user_id: int, account: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "geteuid", lambda: user_id)
    assert account_of_servers() == account


def test_others_may_pass_closed_folders_and_read_none(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "home").mkdir(parents=True)
    closed.chmod(0o700)
    (closed / "home").chmod(0o700)
    open_the_way(closed / "home")
    assert closed.stat().st_mode & 0o777 == 0o711
    assert (closed / "home").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_open_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the root of macOS, which answers that its volume is read-only."""
    open_the_way(tmp_path)

    def refused(path: Path, mode: int) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "chmod", refused)
    open_the_way(tmp_path)


def test_what_a_private_umask_left_closed_can_be_read_and_its_programs_run(tmp_path: Path) -> None:
    tree = tmp_path / "installed"
    (tree / "share").mkdir(parents=True)
    program, text = tree / "postgres", tree / "share" / "postgres.bki"
    for path, mode in ((program, 0o700), (text, 0o600)):
        path.touch()
        path.chmod(mode)
    for path in (tree, tree / "share"):
        path.chmod(0o700)
    open_to_readers(tree)
    modes = [path.stat().st_mode & 0o777 for path in (tree, tree / "share", program, text)]
    assert modes == [0o755, 0o755, 0o755, 0o644]
