"""Runs a command-line tool of the environment, or one that a package of the system brings."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def run_tool(name: str, *arguments: str) -> str:
    """Run a tool beside our interpreter, or on PATH, and return what it said; it must end with 0."""
    own = Path(sys.executable).parent / name
    command = str(own) if own.exists() else shutil.which(name)
    if command is None:
        pytest.fail(f"{name} is not installed")
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, f"{name} {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
