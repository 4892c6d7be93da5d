"""No folder under adapters/ moves money without a certificate: each rail has its tests of the suite."""

import importlib.util
from pathlib import Path

import pytest

import adapters
from adapters.testkit.conformance import RailConformance

_ADAPTERS = Path(adapters.__path__[0])
_NO_RAILS = {"runtime", "testkit"}
"""By name: whatever else lies beside them is a rail, whether or not it can be started yet."""
RAILS = sorted(
    path.name
    for path in _ADAPTERS.iterdir()
    if path.is_dir() and path.name not in _NO_RAILS and any(path.glob("**/*.py"))
)


def test_rails_are_found() -> None:
    assert {"bank", "noop", "promptpay", "sbp"} <= set(RAILS)


@pytest.mark.parametrize("rail", RAILS)
def test_a_rail_can_be_started(rail: str) -> None:
    assert importlib.util.find_spec(f"adapters.{rail}.__main__") is not None, (
        f"python -m adapters.{rail} starts nothing"
    )


@pytest.mark.parametrize("rail", RAILS)
def test_a_rail_has_its_conformance_tests(rail: str) -> None:
    path = Path(__file__).parent / f"test_{rail}.py"
    assert path.exists(), f"adapters/{rail} runs, but tests/conformance/test_{rail}.py is missing"
    spec = importlib.util.spec_from_file_location(f"conformance_of_{rail}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, RailConformance)]
    suites = [each for each in found if each is not RailConformance]
    assert suites, f"tests/conformance/test_{rail}.py has no class that extends RailConformance"
    assert all(each.__name__.startswith("Test") for each in suites), "pytest would not collect it"
