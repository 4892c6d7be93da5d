"""The account that PostgreSQL runs under where we are root, which it refuses, and the way to what it needs there."""

import os
import stat
import sys
from pathlib import Path

_PASS = stat.S_IXGRP | stat.S_IXOTH
_READ = stat.S_IRGRP | stat.S_IROTH


def account_of_servers() -> str | None:
    """Return the name of the account for PostgreSQL; None where it runs under our own."""
    if os.geteuid() != 0:
        return None
    # macOS comes with an account for it, and without the command that would make another.
    return "_postgres" if sys.platform == "darwin" else "pgserver"


def open_the_way(path: Path) -> None:
    """Let every account pass through the folders above `path`; what lies in them is shown to nobody.

    What is open stays untouched: the root of macOS, for one, is on a volume that nobody may write to.
    """
    for folder in path.absolute().parents:
        _allow(folder, _PASS)


def open_to_readers(tree: Path) -> None:
    """Let every account read and run what is under `tree`: a private umask leaves an unpacked wheel closed."""
    for path in (tree, *tree.rglob("*")):
        mode = path.stat().st_mode
        _allow(path, _READ | (_PASS if stat.S_ISDIR(mode) or mode & stat.S_IXUSR else 0))


def _allow(path: Path, wanted: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & wanted != wanted:
        path.chmod(mode | wanted)
