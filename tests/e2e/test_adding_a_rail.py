"""docs/adding-a-rail.md, done: a new rail in a copy of the work tree passes its certificate as it was written."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from fleet.scaffold.new_rail import FolderExistsError, write_rail

ROOT = Path(__file__).resolve().parents[2]
NAME = "zeta_bank"


@pytest.fixture
def work_tree(tmp_path: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def _environment(tree: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "FLEET_"))}
    return {**kept, "PYTHONPATH": str(tree)}


def _run(tree: Path, *command: str) -> str:
    done = subprocess.run(command, check=False, cwd=tree, env=_environment(tree), capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def _fleet(tree: Path, *arguments: str) -> Any:
    return json.loads(_run(tree, sys.executable, "-m", "fleet.cli", *arguments, "--json"))


def _commands_of(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text()
    blocks = text.split("```sh\n")[1:]
    return [line.split("#")[0].strip() for block in blocks for line in block.split("```")[0].splitlines() if line]


def test_a_rail_that_was_just_written_passes_its_certificate_and_the_style(work_tree: Path) -> None:
    python = sys.executable
    assert "fleet rails new zeta_bank" in _commands_of("adding-a-rail.md")
    _run(work_tree, python, "-m", "fleet.cli", "rails", "new", NAME)
    _run(work_tree, python, "-m", "ruff", "check", "--no-cache", "adapters", "tests/conformance")
    _run(work_tree, python, "-m", "ruff", "format", "--no-cache", "--check", "adapters", "tests/conformance")
    assert f"pytest tests/conformance/test_{NAME}.py" in _commands_of("adding-a-rail.md")
    suite = (
        f"tests/conformance/test_{NAME}.py",
        f"tests/conformance/test_every_rail.py::test_a_rail_has_its_conformance_tests[{NAME}]",
    )
    _run(work_tree, python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", *suite)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_rail_that_was_just_written_passes_every_static_check(work_tree: Path) -> None:
    python = sys.executable
    write_rail(work_tree, NAME)
    _run(work_tree, "git", "init", "-q")
    _run(work_tree, "git", "add", "-A")
    _run(work_tree, python, "-m", "mypy", "--cache-dir", str(work_tree / ".mypy"), "-p", f"adapters.{NAME}")
    _run(work_tree, str(Path(python).parent / "lint-imports"))
    _run(work_tree, python, "-m", "tools.tidy")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_payment_goes_through_the_core_by_a_rail_that_was_just_written(work_tree: Path) -> None:
    """Section 4 of the page, command by command, on a stack of its own."""
    _run(work_tree, sys.executable, "-m", "fleet.cli", "rails", "new", NAME)
    documented = _commands_of("adding-a-rail.md")
    assert f"./dev up --rail {NAME}" in documented
    up = [sys.executable, "-m", "fleet.stack", "--rail", NAME, "--port", "0", "--console-port", "0"]
    stack = subprocess.Popen(up, cwd=work_tree, env=_environment(work_tree), stdout=subprocess.PIPE, text=True)
    assert stack.stdout is not None
    try:
        assert any(line.startswith("Ctrl-C") for line in stack.stdout), "it never came up"
        known: dict[str, str] = {}
        for command in documented[documented.index("fleet wallets create anna") :]:
            words = [known.get(word, word) for word in shlex.split(command)]
            if words[:3] == ["fleet", "intents", "show"]:
                break
            answer = _fleet(work_tree, *words[1:])
            known["WALLET" if words[1] == "wallets" else "INTENT"] = answer.get("id", "")
        shown: dict[str, Any] = {}
        deadline = time.monotonic() + 60
        while shown.get("state") != "SETTLED" and time.monotonic() < deadline:
            shown = _fleet(work_tree, "intents", "show", known["INTENT"])
        assert (shown["state"], shown["rail"]) == ("SETTLED", NAME)
        info = json.loads((work_tree / ".fleet/up/stack.json").read_text())
        with urllib.request.urlopen(f"{info['providers'][NAME]}/_control/book") as book:
            assert [row["amount_minor"] for row in json.load(book)["executed"]] == [1_050]
    finally:
        stack.send_signal(signal.SIGINT)
        stack.communicate(timeout=60)  # reads what it says to its end, and closes the pipe


def test_what_is_there_already_is_never_written_over(work_tree: Path) -> None:
    write_rail(work_tree, NAME)
    (work_tree / "adapters" / NAME / "models.py").write_text("mine")
    with pytest.raises(FolderExistsError):
        write_rail(work_tree, NAME)
    assert (work_tree / "adapters" / NAME / "models.py").read_text() == "mine"
