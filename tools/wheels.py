"""Asks the index whether each locked requirement comes as a wheel, with the hash it is locked by, wherever we run.

python -m tools.wheels    for each system and Python; exit 1 and the reason where one would have to be compiled
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHONS: Final = ("3.11", "3.12", "3.13")
SYSTEMS: Final = {
    "x86_64-unknown-linux-gnu": "",
    "aarch64-unknown-linux-gnu": "",
    "aarch64-apple-darwin": "13.0",
    "x86_64-apple-darwin": "15.0",
}
"""Each with the oldest macOS that it stands for, as the README says; those of Linux begin with its glibc 2.28."""


def missing(system: str, python: str, into: str) -> str:
    """Return why the requirements cannot be installed there from wheels alone; empty where they can."""
    uv = [str(ROOT / ".venv" / "bin" / "uv"), "pip", "install", "--dry-run", "--quiet", "--target", into]
    where = ["--python-platform", system, "--python-version", python]
    lock = ["--only-binary", ":all:", "--require-hashes", "-r", str(ROOT / "requirements" / "dev.txt")]
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": SYSTEMS[system]} if SYSTEMS[system] else None
    done = subprocess.run([*uv, *where, *lock], env=environment, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def main() -> int:
    """Ask for each, and print what is missing."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fleet-wheels-") as into:
        for system in SYSTEMS:
            for python in PYTHONS:
                reason = missing(system, python, into)
                failed += bool(reason)
                print(f"{system}, Python {python}: {reason or 'every wheel'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
