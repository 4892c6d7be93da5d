"""The tidy check finds what it says it finds, and the tree passes it."""

import ast
from pathlib import Path

import pytest

from tools import tidy


def found(check: object, path: str, text: str) -> list[str]:
    return list(check(Path(path), ast.parse(text), text))  # type: ignore[operator]


def test_the_tree_passes() -> None:
    assert list(tidy.findings(tidy.tracked())) == []


def test_a_function_longer_than_a_screen_is_found() -> None:
    body = "def f():\n" + "    x = 1\n" * tidy.MAX_FUNCTION_LINES
    assert found(tidy.long_functions, "core/a.py", body)
    assert not found(tidy.long_functions, "core/a.py", body.replace("    x = 1\n", "", 1))


def test_a_module_longer_than_the_limit_is_found() -> None:
    assert found(tidy.long_modules, "core/a.py", "x = 1\n" * (tidy.MAX_MODULE_LINES + 1))
    assert not found(tidy.long_modules, "core/a.py", "x = 1\n" * tidy.MAX_MODULE_LINES)


@pytest.mark.parametrize("text", ["fee = 0.015", "x = float(y)", "def f(amount: float): ..."])
def test_a_float_in_money_code_is_found_and_elsewhere_allowed(text: str) -> None:
    assert found(tidy.floats_near_money, "core/domain/operations.py", text)
    assert not found(tidy.floats_near_money, "wire/consumer.py", text)


def test_a_duration_in_seconds_is_no_float_near_money() -> None:
    assert not found(tidy.floats_near_money, "core/domain/operations.py", "def f(timeout_s: float = 1.5): ...")
    assert found(tidy.floats_near_money, "core/domain/operations.py", "def f(fees: float = 1.5): ...")


def test_the_count_of_other_floats_only_falls() -> None:
    path, allowed = next(iter(tidy.OTHER_FLOATS.items()))
    assert not found(tidy.floats_near_money, path, "a = 1.5\n" * allowed)
    assert found(tidy.floats_near_money, path, "a = 1.5\n" * (allowed + 1))


def test_a_decision_too_short_to_follow_or_too_long_to_read_is_found() -> None:
    adr = Path("docs/adr/0001.md")
    assert list(tidy.adr_length(adr, "word " * 10))
    assert list(tidy.adr_length(adr, "word " * 451))
    assert not list(tidy.adr_length(adr, "word " * 200))


def test_a_test_that_prose_names_and_nobody_wrote_is_found() -> None:
    page, file = Path("docs/proofs.md"), "tests/unit/tools/test_tidy.py"
    assert not list(tidy.unknown_tests(page, f"`{file}::test_the_tree_passes`"))
    assert list(tidy.unknown_tests(page, f"`{file}::test_the_tree_pass`"))
    assert list(tidy.unknown_tests(page, "`tests/unit/tools/test_gone.py::test_the_tree_passes`"))


def test_a_public_name_without_its_promise_is_found() -> None:
    assert len(found(tidy.undocumented, "core/a.py", "def pay(): ...\nclass Wallet: ...\ndef _own(): ...")) == 3


def test_a_name_that_says_nothing_is_found() -> None:
    assert found(tidy.vague_names, "core/utils.py", "")


def test_a_link_and_a_file_name_that_lead_nowhere_are_found() -> None:
    text = "[a](absent.md) and `core/absent.py` and [b](../README.md) and [c](https://example.com)"
    assert len(list(tidy.broken_references(Path("docs/x.md"), text))) == 2


def test_a_path_of_one_machine_is_found() -> None:
    assert list(tidy.machine_paths(Path("a.md"), "see /home/someone/project"))


def test_two_migrations_of_one_number_are_found() -> None:
    folder = Path("core/store/migrations")
    names = [folder / "0001_one.sql", folder / "0002_two.sql", folder / "0002_other.sql"]
    assert len(list(tidy.shared_numbers(names))) == 1
    assert not list(tidy.shared_numbers(names[:2]))
