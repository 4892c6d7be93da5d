"""Every seed keeps the invariants; one seed is one history, always."""

import pytest

from tests.simulation.report import fewest_faults, run, told
from tests.simulation.scenario import Scenario

pytestmark = pytest.mark.timeout(1800)


def test_no_seed_breaks_an_invariant(block: range) -> None:
    for seed in block:
        outcome = run(Scenario(seed))
        if outcome.violations:
            pytest.fail(told(fewest_faults(outcome)), pytrace=False)


def test_a_seed_is_one_history() -> None:
    for seed in (5, 116):
        first, second = run(Scenario(seed)), run(Scenario(seed))
        assert first.simulation.trace == second.simulation.trace
        assert first.simulation.world.steps == second.simulation.world.steps
