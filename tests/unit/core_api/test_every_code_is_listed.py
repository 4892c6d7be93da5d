"""Every code that the source can answer stands in docs/errors.md: the source is read, not trusted."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from core.domain.verdicts import NEGATIVE
from core.services.problems import PROBLEMS

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = (ROOT / "docs" / "errors.md").read_text()
_REFUSING: Final = {"Refusal": 0, "FeeError": 0, "_refused": 2}
"""What makes a refusal, and which of its arguments is the code."""
_DECIDING: Final = {"_void", "_own_fence", "Decision", "Judgement"}
"""What makes a decision of a reason, which is the failure's code where the payment ends by it."""
_ENDING: Final = {"VOID", "REFUSE", "SUSPENDED"}
_FAILS_NONE: Final = {"unknown_reference", "second_payment", "late_payment", "further_payment", "monitored"}
"""Why money rests in suspense that no open payment asked for, or that a person looks at first."""


def _called(call: ast.Call) -> str:
    return (
        call.func.id
        if isinstance(call.func, ast.Name)
        else call.func.attr
        if isinstance(call.func, ast.Attribute)
        else ""
    )


def _texts(node: ast.AST | None, names: dict[str, set[str]]) -> Iterator[str]:
    """Yield the constants that an expression may be: itself, what a name stands for, a call returns, or one branch."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value:
        yield node.value
    elif isinstance(node, ast.Name):
        yield from names.get(node.id, ())
    elif isinstance(node, ast.Call):
        yield from RETURNED.get(_called(node), ())
    elif isinstance(node, ast.BoolOp):
        for each in node.values:
            yield from _texts(each, names)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body, names)
        yield from _texts(node.orelse, names)


def _returned(tree: ast.AST) -> dict[str, set[str]]:
    """Return the texts that the functions of a module return as they stand."""
    return {
        node.name: {text for one in ast.walk(node) if isinstance(one, ast.Return) for text in _texts(one.value, {})}
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and ast.unparse(node.returns or ast.Constant("")) == "str"
    }


RETURNED: dict[str, set[str]] = {}
"""What the functions of the core return, once its modules are read."""


@cache
def _trees() -> list[ast.Module]:
    """Read every module of the core: when a test asks, for each process of a run collects all tests."""
    trees = [ast.parse(path.read_text()) for path in sorted((ROOT / "core").rglob("*.py"))]
    RETURNED.update({name: texts for tree in trees for name, texts in _returned(tree).items() if texts})
    return trees


def _names(tree: ast.AST) -> dict[str, set[str]]:
    """Return what the names of a module stand for where that is a text."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, set()).update(_texts(node.value, {}))
    for node in ast.walk(tree):
        if isinstance(node, ast.NamedExpr):
            found[node.target.id] |= set(_texts(node.value, found))
    return found


@cache
def _constants() -> dict[str, set[str]]:
    """Return what modules import from one another."""
    return {
        name: texts for tree in _trees() for name, texts in _names(tree).items() if name.strip("_").isupper() and texts
    }


def _refusals() -> Iterator[str]:
    constants = _constants()
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and len(node.args) > _REFUSING.get(_called(node), 99):
                yield from _texts(node.args[_REFUSING[_called(node)]], constants)
            # A table of answers: each is the arguments of a refusal.
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.value, ast.Dict)
                and ast.unparse(node.target) == "_REFUSED"
            ):
                yield from (
                    text for one in node.value.values if isinstance(one, ast.Tuple) for text in _texts(one.elts[0], {})
                )


def _failures() -> Iterator[str]:
    constants = _constants()
    for tree in _trees():
        names = constants | _names(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield from (
                    text for one in node.keywords if one.arg == "failure_code" for text in _texts(one.value, names)
                )
                ends = _called(node) in ("_void", "_own_fence") or (
                    _called(node) in _DECIDING
                    and bool(node.args)
                    and any(isinstance(part, ast.Attribute) and part.attr in _ENDING for part in ast.walk(node.args[0]))
                )
                if ends:
                    yield from _texts(node.args[-1], names)
                if _called(node) == "_expired" and len(node.args) > 1:  # the case, its code and what it means
                    yield from _texts(node.args[1], names)
            # What acceptance says of a chain that did not hold: code and text.
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "tuple[str, str]" in ast.unparse(
                node.returns or ast.Constant("")
            ):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Tuple) and len(inner.elts) == 2 and isinstance(inner.ctx, ast.Load):
                        yield from _texts(inner.elts[0], names)


def test_every_refusal_of_the_source_is_a_known_problem() -> None:
    found = set(_refusals())
    assert len(found) > 80
    assert found - set(PROBLEMS) == set()


def test_every_problem_is_answered_somewhere() -> None:
    answers = (ROOT / "core" / "api" / "answers.py").read_text()
    unused = {code for code in set(PROBLEMS) - set(_refusals()) if f'"{code}"' not in answers}
    assert unused == set()


def test_every_failure_of_the_source_is_listed_and_each_that_is_listed_can_be_written() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE.split("## Payments that failed")[1], re.MULTILINE))
    found = {code for code in _failures() if re.fullmatch(r"[a-z_]+", code)} | {verdict.lower() for verdict in NEGATIVE}
    assert found - _FAILS_NONE == listed
