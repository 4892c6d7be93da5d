"""Keeps the tree a place to live in: sizes, names, money without floats, docs that name only what exists.

    python -m tools.tidy    exit 1 and one line per finding

The limits only ratchet down: whoever gets below one lowers it.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MAX_FUNCTION_LINES = 70
MAX_MODULE_LINES = 500
ADR_WORDS = range(120, 451)

MONEY_CODE = (
    "adapters/promptpay/",
    "adapters/sbp/",
    "core/api/",
    "core/domain/",
    "core/services/",
    "core/store/",
    "fleet/demo/payments_file.py",
    "fleet/proof.py",
    "schemas/",
)
# A float on a line that names seconds is a duration, and seconds are the only floats that money code knows.
NAMES_SECONDS = re.compile(r"[a-z]_s\b|[A-Z]_S\b|[a-z]-s\b|\bSeconds\b", re.ASCII)
# How many other lines with floats a file holds: clocks and delays in a container. Only ever lowered.
OTHER_FLOATS = {
    "adapters/promptpay/simulator/book.py": 5,
    "core/services/settling/close_job.py": 1,
    "core/services/access/keys.py": 2,
    "core/services/settling/settle_batch.py": 1,
    "core/store/on_call/figures.py": 1,
    "core/store/settling/jobs.py": 1,
    "core/store/told/listener.py": 2,
    "core/store/terms/routes.py": 2,
}
BANNED_MODULES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
MACHINE_PATH = re.compile(r"/(?:work|home|Users)/[A-Za-z0-9_.-]+")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
NAMED_TEST = re.compile(r"`(tests/[A-Za-z0-9_./-]+\.py)::(\w+)`")
NAMED_FILE = re.compile(r"`((?:[A-Za-z0-9_.-]+/)+[A-Za-z0-9_.-]+\.(?:py|md|lua|toml|sql|json|csv))`")


def tracked() -> list[Path]:
    """Return the files that git tracks, relative to the root."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(name) for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def long_functions(path: Path, tree: ast.AST, _: str) -> Iterator[str]:
    """Find functions that do not fit on a screen."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {lines} lines; at most {MAX_FUNCTION_LINES}"


def long_modules(path: Path, _: ast.AST, text: str) -> Iterator[str]:
    """Find modules that hold more than one idea."""
    lines = text.count("\n")
    if lines > MAX_MODULE_LINES:
        yield f"{path}: {lines} lines; at most {MAX_MODULE_LINES}"


def floats_near_money(path: Path, tree: ast.AST, text: str) -> Iterator[str]:
    """Find floats where money is counted."""
    if not str(path).startswith(MONEY_CODE):
        return
    lines = text.splitlines()
    found = set()
    for node in ast.walk(tree):
        literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
        named = isinstance(node, ast.Name) and node.id == "float"
        if (literal or named) and not NAMES_SECONDS.search(lines[getattr(node, "lineno", 1) - 1]):
            found.add(getattr(node, "lineno", 1))
    if len(found) > OTHER_FLOATS.get(str(path), 0):
        for line in sorted(found):
            yield f"{path}:{line}: a float near money: use integers of minor units"


def vague_names(path: Path, _: ast.AST, __: str) -> Iterator[str]:
    """Find modules whose name says nothing."""
    if path.stem in BANNED_MODULES:
        yield f"{path}: name the module after what it holds"


def undocumented(path: Path, tree: ast.AST, _: str) -> Iterator[str]:
    """Find public modules and classes without a docstring, tests aside."""
    if path.parts[0] == "tests" or not isinstance(tree, ast.Module):
        return
    if ast.get_docstring(tree) is None:
        yield f"{path}: the module has no docstring"
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not node.name.startswith("_") and ast.get_docstring(node) is None:
            yield f"{path}:{node.lineno}: {node.name} has no docstring"


def broken_references(path: Path, text: str) -> Iterator[str]:
    """Find links and file names in prose that lead nowhere."""
    for match in LINK.finditer(text):
        target = match[1]
        if "://" not in target and not target.startswith("mailto:") and not (ROOT / path.parent / target).exists():
            yield f"{path}: the link to {target} leads nowhere"
    for match in NAMED_FILE.finditer(text):
        if not (ROOT / match[1]).exists() and not (ROOT / path.parent / match[1]).exists():
            yield f"{path}: names {match[1]}, which does not exist"


def unknown_tests(path: Path, text: str) -> Iterator[str]:
    """Find tests that prose names and nobody wrote: what they would show is shown by nothing."""
    for match in NAMED_TEST.finditer(text):
        file = ROOT / match[1]
        if not file.exists() or not re.search(rf"^\s*(?:async )?def {match[2]}\(", file.read_text(), re.MULTILINE):
            yield f"{path}: names {match[1]}::{match[2]}, which does not exist"


def adr_length(path: Path, text: str) -> Iterator[str]:
    """Find decisions too short to follow or too long to read."""
    if path.parts[:2] == ("docs", "adr") and len(text.split()) not in ADR_WORDS:
        yield f"{path}: {len(text.split())} words; {ADR_WORDS.start} to {ADR_WORDS.stop - 1} make a decision readable"


def machine_paths(path: Path, text: str) -> Iterator[str]:
    """Find paths of one machine."""
    for match in MACHINE_PATH.finditer(text):
        yield f"{path}: {match[0]} is a path of one machine"


PYTHON_CHECKS: tuple[Callable[[Path, ast.AST, str], Iterator[str]], ...] = (
    long_functions,
    long_modules,
    floats_near_money,
    vague_names,
    undocumented,
)
PROSE_CHECKS: tuple[Callable[[Path, str], Iterator[str]], ...] = (broken_references, unknown_tests, adr_length)


def shared_numbers(files: list[Path]) -> Iterator[str]:
    """Find migrations of one number, which no database can be brought up to date with."""
    seen: dict[str, Path] = {}
    for path in sorted(files):
        if path.parent.name == "migrations" and path.suffix == ".sql":
            number = path.name.partition("_")[0]
            if number in seen:
                yield f"{path}: shares its number with {seen[number].name}; renumber the one that was pushed later"
            seen[number] = path


def findings(files: list[Path]) -> Iterator[str]:
    """Yield one line per finding over the given files."""
    yield from shared_numbers(files)
    for path in files:
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue
        if path.suffix == ".py":
            tree = ast.parse(text)
            for check in PYTHON_CHECKS:
                yield from check(path, tree, text)
        if path.suffix == ".md":
            for prose_check in PROSE_CHECKS:
                yield from prose_check(path, text)
        if path.name not in ("tidy.py", "test_tidy.py"):
            yield from machine_paths(path, text)


def main() -> int:
    """Print the findings; return 1 where there are any."""
    found = list(findings(tracked()))
    for line in found:
        sys.stdout.write(line + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
