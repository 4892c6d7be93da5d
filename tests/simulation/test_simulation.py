"""Every seed keeps the invariants; one seed is one history, always."""

import pytest

from tests.simulation.hosts import Rates
from tests.simulation.judge import MONEY
from tests.simulation.planted import PLANTED, Planted
from tests.simulation.report import fewest_faults, run, told
from tests.simulation.scenario import DEFAULT_SEEDS, FAULTS, Scenario

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


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_within_the_default_seeds(bug: Planted) -> None:
    for seed in range(DEFAULT_SEEDS):
        if bug.may_show(Scenario(seed)):
            with bug.plant():
                broken = run(Scenario(seed)).rule
            if broken == bug.breaks or (not bug.breaks and broken in MONEY):
                return
    pytest.fail(f"{DEFAULT_SEEDS} seeds do not find that {bug.name}")


def test_a_failure_is_told_with_as_few_faults_as_show_it() -> None:
    bug = next(each for each in PLANTED if each.name == "a cancel skips the door")
    with bug.plant():
        failed = next(outcome for seed in range(DEFAULT_SEEDS) if (outcome := run(Scenario(seed))).rule == "I3")
        fewest = fewest_faults(failed)
    told_lines = told(fewest).splitlines()
    assert "breaks I3" in told_lines[0]
    assert told_lines[1] == f"replay: pytest tests/simulation --seed {failed.simulation.scenario.seed}"
    before, left = [{fault for fault in FAULTS if each.simulation.scenario.strikes(fault)} for each in (failed, fewest)]
    assert "cancel" in left < before
    assert any("is told CANCELLED" in line for line in told_lines)


class _LostWithItsEntry(Scenario):
    """Half of what the core answers to permits is lost, in the middle of which the streams are wiped and it is away."""

    def strikes(self, fault: str) -> bool:
        return fault in ("wipe", "tail", "core_outage")

    def rates(self) -> Rates:
        return Rates(lost_permit_reply=0.5)


def test_no_payment_fails_because_the_answer_to_its_permit_and_its_entry_were_lost() -> None:
    ours = {None, "insufficient_funds", "confirmation_expired"}
    for seed in range(80, 120):
        outcome = run(_LostWithItsEntry(seed))
        assert not outcome.violations
        intents = outcome.simulation.database.tables["intents"].values()
        failed = [row.failure_code for row in intents if row.failure_code not in ours]
        assert not failed, (seed, failed)
        assert not [row.id for row in intents if row.state == "UNRESOLVED"], seed
