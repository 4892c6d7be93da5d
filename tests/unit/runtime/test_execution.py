"""What is never sent, whatever the permit says."""

import time
from collections.abc import Callable, Sequence
from typing import cast
from uuid import UUID

import pytest

from adapters.noop.adapter import NoopRail, NoopSettings
from adapters.runtime import execution
from adapters.runtime.errors import Rejected
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


class _Bulk(NoopRail):
    """Answers a batch with what the test says."""

    def __init__(self, answer: Callable[[Sequence[Order]], Sequence[Outcome | Exception]]) -> None:
        super().__init__(Timing(send_by_s=5, call_total_s=10, claim_idle_s=60), NoopSettings())
        self.answer = answer
        self.asked: list[list[str]] = []

    async def pay_many(self, orders: Sequence[Order]) -> Sequence[Outcome | Exception]:
        self.asked.append([order.reference for order in orders])
        return self.answer(orders)


def _permits(count: int) -> list[Granted]:
    one = _granted(JobKind.PAY, PermitMode.SEND)
    return [one.model_copy(update={"job_id": UUID(int=at), "reference": f"{at:024}"}) for at in range(1, count + 1)]


def _paid(order: Order) -> Outcome:
    return Outcome(Verdict.SUCCEEDED, order.amount_minor, order.currency, order.reference)


async def test_one_call_pays_many_and_each_has_its_own_answer() -> None:
    def answer(orders: Sequence[Order]) -> list[Outcome | Exception]:
        first, *_, last = orders
        nonsense = cast("Outcome", None)
        return [_paid(first), Rejected("payee_not_found"), Outcome(Verdict.FOUND), nonsense, _paid(last)]

    rail = _Bulk(answer)
    executed = await Executor(rail, "noop", 10).execute_many(_permits(5), clock_s())
    assert [each.outcome.verdict for each in executed] == [
        Verdict.SUCCEEDED, Verdict.DECLINED, Verdict.UNKNOWN, Verdict.UNKNOWN, Verdict.SUCCEEDED,
    ]  # fmt: skip
    assert [each.outcome.provider_tx_id for each in executed] == [f"{1:024}", None, None, None, f"{5:024}"]
    assert rail.asked == [[f"{at:024}" for at in range(1, 6)]]


async def test_of_many_permits_those_that_lapsed_or_are_of_another_account_are_not_sent_and_keep_their_place() -> None:
    rail = _Bulk(lambda orders: [_paid(order) for order in orders])
    first, second, third, fourth = _permits(4)
    second = second.model_copy(update={"send_by_s": 0.001})
    third = third.model_copy(update={"provider_account": "the account of before"})
    executed = await Executor(rail, "noop", 10).execute_many([first, second, third, fourth], clock_s() - 1)
    assert [(each.outcome.verdict, each.outcome.reason) for each in executed] == [
        (Verdict.SUCCEEDED, ""),
        (Verdict.NOT_SENT, "permit_lapsed"),
        (Verdict.NOT_SENT, "other_account"),
        (Verdict.SUCCEEDED, ""),
    ]
    assert [each.outcome.provider_tx_id for each in executed] == [first.reference, None, None, fourth.reference]
    assert rail.asked == [[first.reference, fourth.reference]]


def _raises(orders: Sequence[Order]) -> list[Outcome | Exception]:
    raise ConnectionResetError


@pytest.mark.parametrize(
    "answer", [_raises, lambda orders: [], lambda orders: [_paid(order) for order in orders] * 2, lambda orders: None]
)
async def test_a_batch_that_fails_or_is_answered_in_part_proves_nothing_about_any_payment(
    answer: Callable[[Sequence[Order]], Sequence[Outcome | Exception]],
) -> None:
    executed = await Executor(_Bulk(answer), "noop", 10).execute_many(_permits(3), clock_s())
    assert [each.outcome.verdict for each in executed] == [Verdict.UNKNOWN] * 3


async def test_a_batch_has_the_time_of_one_call() -> None:
    rail = NoopRail(Timing(send_by_s=5, call_total_s=10, claim_idle_s=60), NoopSettings(delay_ms=5_000))
    executed = await Executor(rail, "noop", 0.05).execute_many(_permits(3), clock_s())
    assert {(each.outcome.verdict, each.outcome.reason) for each in executed} == {(Verdict.UNKNOWN, "call_timed_out")}


def test_only_submissions_go_together_and_only_where_the_rail_takes_many() -> None:
    rail = _Bulk(lambda orders: [])
    executor = Executor(rail, "noop", 10)
    assert executor.pays_together(_granted(JobKind.PAY, PermitMode.SEND))
    assert not executor.pays_together(_granted(JobKind.PAY, PermitMode.INQUIRE_ONLY))
    assert not executor.pays_together(_granted(JobKind.INQUIRE, PermitMode.READ))
    assert not executor.pays_together(_granted(JobKind.LOOKUP, PermitMode.READ))
