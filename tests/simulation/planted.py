"""Bugs planted into the shipping code, each a rule of the protocol left out: what the simulation must find."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest import mock
from uuid import UUID

from adapters.runtime import verdicts as adapter_verdicts
from adapters.runtime.execution import Executor
from adapters.runtime.port import Outcome
from core.domain import permits as permit_rules
from core.domain.jobs import JobRow
from core.domain.permits import Grant, Refused
from core.domain.resolution import Due, decide_due
from core.domain.verdicts import horizon_passed
from core.services.settling import close_job, permits
from core.services.settling.rails import RailState
from schemas.permits import Granted, PermitMode
from schemas.results import Verdict
from tests.simulation.judge import WAITING
from tests.simulation.provider import PROFILES
from tests.simulation.scenario import Scenario
from tests.simulation.store_jobs import Jobs
from tests.simulation.store_payments import RailStore

Plant = Callable[[], AbstractContextManager[Any]]


def _patched(**changes: Any) -> Plant:
    """Replace names, written with `__` for the dots, by what they shall be."""

    @contextmanager
    def plant() -> Iterator[None]:
        patches = [mock.patch(name.replace("__", "."), new) for name, new in changes.items()]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()

    return plant


def _always_send(*given: Any) -> Grant | Refused:
    decision = permit_rules.decide_permit(*given)
    return (
        replace(decision, mode=PermitMode.SEND)
        if isinstance(decision, Grant) and given[0].kind.moves_money
        else decision
    )


def _window_ignored(job: JobRow, capabilities: Any, gates: Any) -> bool:
    return bool(capabilities.deduplicates_reference)


async def _unsent_whatever_was_sent(uow: Any, ports: Any, job_ids: Any, **how: Any) -> Any:
    class Forgetful(Jobs):
        async def lock_jobs(self, uow: Any, ids: Any) -> dict[UUID, JobRow]:
            return {key: replace(job, fence=0) for key, job in (await super().lock_jobs(uow, ids)).items()}

    return await close_job.close_if_unsent(uow, replace(ports, jobs=Forgetful()), job_ids, **how)


def _reference_per_attempt(item: Any, grant: Any, fence: int, *rest: Any) -> Granted:
    granted = _granted(item, grant, fence, *rest)
    return granted.model_copy(update={"reference": f"{granted.reference[:-2]}{fence:02d}"})


_granted: Final = permits._granted
_of_error: Final = adapter_verdicts.of_error
_execute: Final = Executor.execute


def _doubt_is_not_sent(action: Any, error: BaseException) -> Outcome:
    learned = _of_error(action, error)
    doubt = action is adapter_verdicts.Action.SUBMIT and learned.verdict is Verdict.UNKNOWN
    return Outcome(Verdict.NOT_SENT, reason="timed_out", retry_after_s=1.0) if doubt else learned


async def _any_account(self: Any, granted: Granted, sent_at_s: float) -> Any:
    self._scope = (granted.provider_account, granted.environment)
    return await _execute(self, granted, sent_at_s)


async def _nothing_in_suspense(*_: Any) -> list[Any]:
    return []


def _anything(*_: Any, **__: Any) -> bool:
    return True


async def _without_doubt(self: Any, uow: Any, rail: str) -> RailState:
    return replace(await _rail_state(self, uow, rail), epoch_cleared=True)


_rail_state: Final = RailStore.rail_state


def _one_cancel(case: Any, *, waits: bool) -> Due:
    step = decide_due(case, waits=waits)
    return Due.INQUIRE if step is Due.CANCEL and case.job.tombstoned else step


def _never(*_: Any) -> bool:
    return False


def _every_time(asked: Any, answers: Any) -> list[Any]:
    return [answers[job_id] for job_id in asked]


@dataclass(frozen=True, slots=True)
class Planted:
    """A bug, and the faults that it takes to meet it: seeds without them are left out to save time."""

    name: str
    plant: Plant
    profiles: frozenset[str] = frozenset(PROFILES)
    fault: str | None = None
    breaks: str = ""
    """The rule that it breaks; empty for any rule that money breaks."""

    def may_show(self, scenario: Scenario) -> bool:
        """Whether the scenario has what the bug needs."""
        return scenario.profile.name in self.profiles and (self.fault is None or scenario.strikes(self.fault))


PLANTED: Final = (
    Planted("a permit always says SEND", _patched(core__services__settling__permits__decide_permit=_always_send)),
    Planted(
        "the dedup window is ignored",
        _patched(core__domain__permits___resend_is_deduplicated=_window_ignored),
        frozenset({"forgetful"}),
    ),
    Planted(
        "a cancel skips the door",
        _patched(core__services__payments__cancel__close_if_unsent=_unsent_whatever_was_sent),
        fault="cancel",
    ),
    Planted("H is ignored", _patched(core__domain__verdicts__horizon_passed=_anything), frozenset({"no_cancel"})),
    Planted(
        "not found voids without an expiry",
        _patched(core__domain__verdicts__not_found_is_final=horizon_passed),
        frozenset({"no_expiry", "no_dedup", "fickle"}),
        "slow_request",
    ),
    Planted(
        "a refusal speaks for every fence",
        _patched(core__domain__verdicts__all_negative=_anything, core__domain__resolution__all_negative=_anything),
    ),
    Planted(
        "a reference is minted per attempt",
        _patched(core__services__settling__permits___granted=_reference_per_attempt),
    ),
    Planted("a time-out counts as not sent", _patched(adapters__runtime__verdicts__of_error=_doubt_is_not_sent)),
    Planted(
        "any adapter serves any account",
        _patched(adapters__runtime__execution__Executor__execute=_any_account),
        frozenset({"promptpay"}),
        "rotation",
    ),
    Planted(
        "a late success is dropped",
        _patched(core__services__settling__settle__paid_after_void=_nothing_in_suspense),
        fault="lies",
    ),
    Planted(
        "a restore raises no doubt",
        _patched(tests__simulation__store_payments__RailStore__rail_state=_without_doubt),
        fault="restore",
    ),
    Planted(
        "a paused rail fails what waits",
        _patched(core__services__settling__resolve__ResolverMemory__waits=_never),
        fault="rail_pause",
        breaks=WAITING,
    ),
    Planted(
        "a tombstone is asked for once",
        _patched(core__services__settling__resolve__decide_due=_one_cancel),
        frozenset({"forgetful", "no_dedup", "fickle"}),
        breaks="I5",
    ),
    Planted(
        "a job asked for twice is sent twice",
        _patched(core__services__settling__permits___each_once=_every_time),
        frozenset({"no_dedup", "blind"}),
        "entry_doubled",
    ),
)
