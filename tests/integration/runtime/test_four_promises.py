"""The four promises of the streams: dispatch does not wait, a slow provider is alone with it, instances share by
themselves, a job survives until it is acked. On a real server."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median

import pytest

from adapters.runtime.breaker import BreakerSettings
from adapters.runtime.concurrency import AdaptiveLimit
from adapters.runtime.errors import NotSent
from adapters.runtime.port import Order, Outcome
from schemas.envelope import Envelope
from schemas.jobs import Job
from schemas.operations import JobKind
from schemas.results import Verdict
from schemas.streams import ADAPTERS_GROUP, jobs_stream, results_stream
from tests.integration.runtime.conftest import PAID, RAIL, Bench, ScriptedRail, a_job, pays
from tests.support.waiting import until, until_async
from wire import functions

NEIGHBOUR = "neighbour"
OFFERED, OFFERED_PER_S = 50, 20
SLOTS = 4
"""Calls that the provider in trouble gets at once."""
QUICK = BreakerSettings(window_s=10, least_calls=5, failed_percent=50, open_s=0.3, open_most_s=0.6, probes=2)
OnPay = Callable[[Order], Awaitable[Outcome]]


async def _slow(_: Order) -> Outcome:
    await asyncio.sleep(0.2)
    return PAID


async def _dead(_: Order) -> Outcome:
    raise NotSent("no connection", reason="no_connection")


def _flapping() -> OnPay:
    async def pay(order: Order) -> Outcome:
        return await (_dead(order) if int(time.monotonic() * 4) % 2 else pays(order))

    return pay


async def _backlog(bench: Bench, rail: str) -> int:
    [group] = await bench.admin.xinfo_groups(jobs_stream(rail))
    return int(group["lag"] or 0) + int(group["pending"])


def _known(bench: Bench, count: int, rail: str = RAIL) -> list[Job]:
    jobs = [a_job(rail=rail) for _ in range(count)]
    for job in jobs:
        bench.core.know(job)
    return jobs


async def test_a_stream_takes_a_thousand_jobs_while_its_adapter_hangs(bench: Bench) -> None:
    async def hangs(_: Order) -> Outcome:
        await asyncio.sleep(30)
        return PAID

    await bench.work(ScriptedRail(hangs))
    jobs = [a_job() for _ in range(1_000)]
    begun_s = time.monotonic()
    await functions.dispatch(
        bench.admin, jobs_stream(RAIL), [Envelope(str(job.job_id), "job", job.model_dump_json()) for job in jobs]
    )
    assert time.monotonic() - begun_s < 2
    assert await _backlog(bench, RAIL) == 1_000


async def test_a_neighbours_jobs_all_end_before_one_call_of_a_provider_that_hangs(bench: Bench) -> None:
    ended, go_on = 0, asyncio.Event()

    async def hangs(_: Order) -> Outcome:
        nonlocal ended
        await go_on.wait()
        ended += 1
        return PAID

    hung = ScriptedRail(hangs, idle_s=50, call_s=40)
    troubled = await bench.work(hung, "troubled", breaker=QUICK)
    troubled.jobs.guard._limit = AdaptiveLimit(SLOTS, SLOTS)
    await bench.send(*_known(bench, 200))
    await until(lambda: hung.running == SLOTS)
    neighbour = await bench.work(ScriptedRail(pays, name=NEIGHBOUR, idle_s=10, call_s=4), "neighbour")
    neighbour.jobs.guard._limit = AdaptiveLimit(SLOTS, SLOTS)
    await bench.send(*_known(bench, OFFERED, NEIGHBOUR))
    # No clock decides: as long as one of these waits for the provider that hangs, they do not all come.
    results = await bench.results(OFFERED, rail=NEIGHBOUR)
    assert {result.verdict for result in results} == {Verdict.SUCCEEDED}
    assert (ended, hung.running, hung.most_running, await _backlog(bench, RAIL)) == (0, SLOTS, SLOTS, 200)
    assert (neighbour.jobs.guard.open_operations, neighbour.jobs.guard.pause_s()) == ([], 0.0)
    go_on.set()


class _Cancels(ScriptedRail):
    async def cancel(self, order: Order) -> Outcome:
        self.calls.append(("cancel", order.reference))
        return Outcome(Verdict.CANCELLED)


async def test_inquiries_and_cancels_pass_payments_that_hang_by_the_control_stream(bench: Bench) -> None:
    go_on = asyncio.Event()

    async def hangs(_: Order) -> Outcome:
        await go_on.wait()
        return PAID

    rail = _Cancels(hangs, idle_s=50, call_s=40)
    worker = await bench.work(rail, breaker=QUICK)
    worker.jobs.guard._limit = AdaptiveLimit(SLOTS, SLOTS)
    await bench.send(*_known(bench, 200))
    await until(lambda: rail.running == SLOTS)
    questions = [a_job(kind) for kind in (JobKind.INQUIRE, JobKind.CANCEL)]
    for job in questions:
        bench.core.know(job, instruction={"target_reference": f"OF-{job.kind}"})
    await bench.send(*questions)
    results = await bench.results(2)
    assert {result.job_id for result in results} == {job.job_id for job in questions}
    assert {call for call in rail.calls if call[0] != "pay"} == {("inquire", "OF-inquire"), ("cancel", "OF-cancel")}
    assert (rail.running, await _backlog(bench, RAIL)) == (SLOTS, 200)
    go_on.set()


@pytest.mark.parametrize("trouble", ["slow", "dead", "flapping"])
async def test_a_provider_in_trouble_is_alone_with_it(bench: Bench, trouble: str) -> None:
    on_pay = {"slow": _slow, "dead": _dead, "flapping": _flapping()}[trouble]
    rail = ScriptedRail(on_pay, idle_s=10, call_s=4)
    troubled = await bench.work(rail, "troubled", breaker=QUICK)
    troubled.jobs.guard._limit = AdaptiveLimit(SLOTS, SLOTS)
    called: list[int] = []

    async def notes(order: Order) -> Outcome:
        called.append(len(rail.calls))
        return await pays(order)

    neighbour = await bench.work(ScriptedRail(notes, name=NEIGHBOUR, idle_s=10, call_s=4), "neighbour")
    neighbour.jobs.guard._limit = AdaptiveLimit(SLOTS, SLOTS)
    await bench.send(*_known(bench, 200))
    most_waiting, offered = 0, list[int]()
    for _ in range(OFFERED):  # at a fixed rate: nothing here waits for an answer, so a stuck neighbour piles up
        offered.append(len(rail.calls))
        await bench.send(*_known(bench, 1, NEIGHBOUR))
        most_waiting = max(most_waiting, await _backlog(bench, NEIGHBOUR))
        await asyncio.sleep(1 / OFFERED_PER_S)
    assert most_waiting <= OFFERED_PER_S, "what was offered in a second was done in a second"
    await bench.results(OFFERED, rail=NEIGHBOUR)
    behind = median(after - before for before, after in zip(offered, called, strict=True))
    assert behind <= 2 * SLOTS, "a job waited for more calls of the other provider than ever run at once"
    assert neighbour.jobs.guard.open_operations == [], "the other's failures opened a breaker here"
    assert rail.calls, "the provider in trouble was never called: nothing was shown"
    assert trouble == "flapping" or await _backlog(bench, RAIL) > 0, "it was over before anything could be seen"


async def test_instances_share_the_work_by_themselves_and_a_tenth_needs_no_configuration(bench: Bench) -> None:
    rails = [ScriptedRail(_slow, idle_s=10, call_s=4) for _ in range(10)]
    for at, rail in enumerate(rails[:2]):
        worker = await bench.work(rail, f"instance-{at}")
        worker.jobs.guard._limit = AdaptiveLimit(2, 2)
    await bench.send(*_known(bench, 40))
    await until(lambda: all(rail.calls for rail in rails[:2]))
    for at, rail in enumerate(rails[2:], start=2):
        worker = await bench.work(rail, f"instance-{at}")
        worker.jobs.guard._limit = AdaptiveLimit(2, 2)
    await bench.send(*_known(bench, 120))
    results = await bench.results(160)
    assert {result.verdict for result in results} == {Verdict.SUCCEEDED}
    # What stands still for as long as a claim lives is inquired about by another: an inquiry pays nothing.
    made = [reference for rail in rails for call, reference in rail.calls if call == "pay"]
    assert len(made) == len(set(made)) == 160, "each was made once, by one of them"
    assert all(rail.calls for rail in rails)


async def test_a_job_survives_until_it_is_acked_whoever_dies_with_it(bench: Bench) -> None:
    jobs = _known(bench, 5)
    await bench.send(*jobs)
    for dying in ("first", "second"):  # reads, and is never heard of again
        taken = await bench.admin.xreadgroup(ADAPTERS_GROUP, dying, {jobs_stream(RAIL): ">"}, count=2)
        assert taken
    assert await bench.admin.xlen(results_stream(RAIL)) == 0
    await bench.work(ScriptedRail(pays), "third")
    results = await bench.results(5)
    assert {result.job_id for result in results} == {job.job_id for job in jobs}

    async def none_left() -> bool:
        return await bench.pending() == 0

    await until_async(none_left)
