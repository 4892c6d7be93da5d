"""What is never sent, whatever the permit says."""

import time
from uuid import UUID

import pytest

from adapters.noop.adapter import NoopRail, NoopSettings
from adapters.runtime import execution
from adapters.runtime.execution import Executor
from adapters.runtime.port import Order, Outcome
from adapters.runtime.timing import clock_s
from schemas.operations import JobKind
from schemas.permits import Granted, Instruction, PermitMode
from schemas.rails import Timing
from schemas.results import Verdict


class _Watched(NoopRail):
    """A rail that counts what reaches it."""

    def __init__(self) -> None:
        super().__init__(Timing(send_by_s=5, call_total_s=10, claim_idle_s=60), NoopSettings())
        self.reached = 0

    async def pay(self, order: Order) -> Outcome:
        self.reached += 1
        return await super().pay(order)

    async def inquire(self, order: Order) -> Outcome:
        self.reached += 1
        return await super().inquire(order)


def _granted(kind: JobKind, mode: PermitMode, account: str = "noop", environment: str = "sandbox") -> Granted:
    return Granted(
        job_id=UUID(int=1), kind=kind, mode=mode, fence=1, first=True, send_by_s=5, reference="R" * 24,
        amount_minor=100, currency="THB", provider_account=account, environment=environment,
        instruction=Instruction(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "mode", "verdict"),
    [
        (JobKind.PAY, PermitMode.SEND, Verdict.NOT_SENT),
        (JobKind.PAY, PermitMode.INQUIRE_ONLY, Verdict.UNKNOWN),
        (JobKind.INQUIRE, PermitMode.READ, Verdict.UNKNOWN),
    ],
)
@pytest.mark.parametrize("scope", [{"account": "the account of before"}, {"environment": "production"}])
async def test_an_order_of_another_account_or_environment_never_reaches_the_provider(
    kind: JobKind, mode: PermitMode, verdict: Verdict, scope: dict[str, str]
) -> None:
    rail = _Watched()
    executor = Executor(rail, "noop", 10)
    executed = await executor.execute(_granted(kind, mode, **scope), clock_s())
    assert (executed.outcome.verdict, executed.outcome.reason) == (verdict, "other_account")
    assert rail.reached == 0
    await executor.execute(_granted(kind, mode), clock_s())
    assert rail.reached == 1


@pytest.mark.parametrize(
    ("kind", "mode", "verdict"),
    [(JobKind.PAY, PermitMode.SEND, Verdict.NOT_SENT), (JobKind.INQUIRE, PermitMode.READ, Verdict.UNKNOWN)],
)
async def test_a_permit_is_not_used_from_the_moment_that_s_has_passed(
    monkeypatch: pytest.MonkeyPatch, kind: JobKind, mode: PermitMode, verdict: Verdict
) -> None:
    rail = _Watched()
    executor = Executor(rail, "noop", 10)
    monkeypatch.setattr(execution, "clock_s", lambda: 1005.0)
    executed = await executor.execute(_granted(kind, mode), sent_at_s=1000.0)
    assert (executed.outcome.verdict, executed.outcome.reason) == (verdict, "permit_lapsed")
    assert rail.reached == 0
    await executor.execute(_granted(kind, mode), sent_at_s=1000.1)
    assert rail.reached == 1


def test_s_is_measured_on_a_clock_that_nobody_sets_and_that_runs_on_through_suspend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine that is set back an hour, or closed for one, must not keep a permit alive."""
    hour = 3600.0
    monkeypatch.setattr(time, "time", lambda: hour)
    monkeypatch.setattr(time, "monotonic", lambda: hour)
    clocks = {getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC): 7.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    assert clock_s() == 7.0
