"""Runs a scenario, and tells a failure as short as it can be told."""

import logging
from dataclasses import dataclass, replace
from typing import Final

from core.domain.jobs import mint_reference
from tests.simulation.core_side import lookup_job_of, pay_job_of
from tests.simulation.hosts import Event
from tests.simulation.judge import Violation, judge
from tests.simulation.scenario import FAULTS, Scenario
from tests.simulation.simulate import Simulation

_LINES: Final = 150
_NEAR_S: Final = 0.5
_ACCIDENTS: Final = frozenset({"world", "streams", "database", "operator"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """A seed that ran to its end, or to the error that a process of the system did not handle."""

    simulation: Simulation
    violations: list[Violation]

    @property
    def rule(self) -> str:
        """The gravest rule that was broken, empty where none was."""
        return self.violations[0].rule if self.violations else ""


def run(scenario: Scenario) -> Outcome:
    """Run one scenario and judge it. The shipping code's own warnings are the faults' business."""
    simulation = Simulation(scenario)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        simulation.run()
    except Exception as error:  # noqa: BLE001 - an error that leaks is what the simulation looks for
        return Outcome(simulation, [Violation("no error leaks", f"{type(error).__name__}: {error}")])
    finally:
        logging.disable(disabled)
    return Outcome(simulation, judge(simulation))


def fewest_faults(failed: Outcome) -> Outcome:
    """Return a failure by the same rule with as few kinds of faults and payments as can be left."""
    best = failed
    for fault in (*FAULTS, *FAULTS):
        if best.simulation.scenario.strikes(fault):
            without = best.simulation.scenario.without | {fault}
            best = _better(best, replace(best.simulation.scenario, without=without))
    for payments in (1, 2, 4, 8):
        if payments < best.simulation.scenario.payments:
            fewer = _better(best, replace(best.simulation.scenario, payments=payments))
            if fewer is not best:
                return fewer
    return best


def _better(best: Outcome, scenario: Scenario) -> Outcome:
    tried = run(scenario)
    return tried if tried.rule == best.rule else best


def told(outcome: Outcome) -> str:
    """Return the failure as text: what broke, how to see it again, and what led to it."""
    scenario, broken = outcome.simulation.scenario, outcome.violations[0]
    faults = [fault for fault in FAULTS if scenario.strikes(fault)]
    lines = [
        f"seed {scenario.seed} with {scenario.profile.name} breaks {broken.rule}: {broken.text}",
        f"replay: pytest tests/simulation --seed {scenario.seed}",
        f"faults: {', '.join(faults) or 'none'}; {scenario.payments} payments",
    ]
    subjects: set[str] = set()
    if broken.intent_id is not None:
        pay = pay_job_of(broken.intent_id)
        references = {mint_reference(job, 24) for job in (pay, lookup_job_of(broken.intent_id))}
        subjects = {str(broken.intent_id), str(pay), *references}
        lines.append(f"intent {broken.intent_id}")
    shown = _shown(outcome.simulation.trace, subjects) if broken.intent_id is not None else outcome.simulation.trace
    lines += [f"{event.at_s:9.3f} s  {event.host:<11} {event.what}" for event in shown[-_LINES:]]
    return "\n".join(lines)


def _shown(trace: list[Event], subjects: set[str]) -> list[Event]:
    """Return what was about the intent, the accidents of all, and what befell other hosts at about those moments."""
    own = [event.at_s for event in trace if event.subject in subjects]
    return [
        event
        for event in trace
        if event.subject in subjects
        or (not event.subject and (event.host in _ACCIDENTS or any(abs(event.at_s - at_s) < _NEAR_S for at_s in own)))
    ]
