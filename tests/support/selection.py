"""Which cases of a slow test the default run of all tests has."""

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet


def mostly_long(cases: Iterable[str], *quick: str) -> list[str | ParameterSet]:
    """Return the cases, all but `quick` with the marker `long`: the nightly job of CI has them too."""
    return [case if case in quick else pytest.param(case, marks=pytest.mark.long) for case in cases]
