"""A provider that is down, limited or unfair to be shared: the runtime against a real server and a scripted rail."""

import asyncio
import time
import uuid
from collections import Counter

from prometheus_client import REGISTRY

from adapters.runtime.breaker import BreakerSettings
from adapters.runtime.concurrency import AdaptiveLimit
from adapters.runtime.errors import NotSent, Throttled
from adapters.runtime.port import Order, Outcome
from adapters.runtime.rate import RateSettings
from schemas.operations import JobKind
from schemas.results import Verdict
from schemas.streams import ADAPTERS_GROUP, jobs_dlq_stream, jobs_stream, rate_bucket
from tests.integration.runtime.conftest import PAID, RAIL, Bench, ScriptedRail, a_job, pays
from tests.support.waiting import PATIENCE_S, until

QUICK = BreakerSettings(window_s=10, least_calls=5, failed_percent=50, open_s=0.5, open_most_s=1.0, probes=2)


class Provider:
    """Down until it is told otherwise, and limited to what it is told."""

    def __init__(self) -> None:
        self.down = True
        self.called_at_s: list[float] = []

    async def __call__(self, _: Order) -> Outcome:
        self.called_at_s.append(time.monotonic())
        if self.down:
            raise NotSent("no connection", reason="no_connection")
        return PAID


def _breaker_state() -> float | None:
    return REGISTRY.get_sample_value("fleet_breaker_state", {"rail": RAIL, "operation": "PAYOUT", "kind": "pay"})


def _waits() -> float:
    return REGISTRY.get_sample_value("fleet_rate_waits_total", {"rail": RAIL}) or 0.0


async def _deliveries(bench: Bench) -> list[int]:
    pending = await bench.admin.xpending_range(jobs_stream(RAIL), ADAPTERS_GROUP, "-", "+", 100)
    return [int(each["times_delivered"]) for each in pending]


async def test_an_open_breaker_holds_back_payments_consumes_no_delivery_and_lets_inquiries_go_on(bench: Bench) -> None:
    provider = Provider()
    rail = ScriptedRail(provider)
    jobs = [a_job() for _ in range(40)]
    for job in jobs:
        bench.core.know(job)
    await bench.work(rail, concurrency=10, breaker=QUICK)
    await bench.send(*jobs)
    await until(lambda: _breaker_state() == 2)
    called = len(provider.called_at_s)
    assert called < 20, "what was in flight when it opened, and nothing after"
    question = a_job(JobKind.INQUIRE)
    bench.core.know(question)
    await bench.send(question)
    await until(lambda: "inquire" in [call for call, _ in rail.calls])
    await asyncio.sleep(1.5)  # several times open and half open
    assert len(provider.called_at_s) <= called + 6, "probes alone"
    assert max(await _deliveries(bench), default=0) <= 1, "what waited was delivered at most once"
    assert await bench.admin.xlen(jobs_dlq_stream(RAIL)) == 0
    provider.down = False
    succeeded = 0
    async with asyncio.timeout(PATIENCE_S):
        while succeeded < len(jobs) - len(provider.called_at_s[: called + 6]):
            succeeded = sum(each.verdict is Verdict.SUCCEEDED for each in await bench.results(1))
            await asyncio.sleep(0.05)
    await until(lambda: _breaker_state() == 0)


async def test_two_instances_never_call_more_often_than_the_providers_rate(bench: Bench) -> None:
    provider = Provider()
    provider.down = False
    jobs = [a_job() for _ in range(60)]
    for job in jobs:
        bench.core.know(job)
    begun_s = time.monotonic()
    rate = RateSettings(per_s=20, burst=10)
    for name in ("a", "b"):
        await bench.work(ScriptedRail(provider), name, rate=rate)
    await bench.send(*jobs)
    await bench.results(60)
    for at, called_s in enumerate(provider.called_at_s, start=1):
        assert at <= 10 + 20 * (called_s - begun_s), f"call {at} came too early"
    assert time.monotonic() - begun_s >= 2.4
    assert len(provider.called_at_s) == 60


async def _fill(bench: Bench, tokens: int) -> None:
    """Let the rail's rate hold so many calls now, as if none had been made for a while."""
    seconds, micros = await bench.admin.time()
    await bench.admin.hset(rate_bucket(RAIL), "tokens", str(tokens))
    await bench.admin.hset(rate_bucket(RAIL), "at_ms", str(seconds * 1000 + micros // 1000))


async def test_payments_leave_a_part_of_the_rate_to_inquiries(bench: Bench) -> None:
    rail = ScriptedRail(pays)
    jobs = [a_job() for _ in range(30)]
    question = a_job(JobKind.INQUIRE)
    for job in (*jobs, question):
        bench.core.know(job)
    # So slow that none comes back while the test lasts: what is there is all there is.
    await _fill(bench, 20)
    await bench.work(rail, rate=RateSettings(per_s=0.001, burst=20))
    await bench.send(*jobs)
    await until(lambda: len(rail.calls) >= 18)
    waited = _waits()
    await until(lambda: _waits() > waited)
    assert [call for call, _ in rail.calls] == ["pay"] * 18, "a tenth is not theirs, however many wait"
    await bench.send(question)
    await until(lambda: len(rail.calls) > 18)
    assert rail.calls[-1][0] == "inquire"


async def test_while_the_rate_cannot_be_read_nothing_is_sent_and_all_of_it_afterwards(bench: Bench) -> None:
    rail = ScriptedRail(pays)
    jobs = [a_job() for _ in range(5)]
    for job in jobs:
        bench.core.know(job)
    await bench.admin.set(rate_bucket(RAIL), "this is no bucket")
    await bench.work(rail, rate=RateSettings(per_s=50, burst=20))
    waited = _waits()
    await bench.send(*jobs)
    await until(lambda: _waits() >= waited + 2 * len(jobs))
    assert rail.calls == [], "what cannot be counted is not sent"
    await bench.admin.delete(rate_bucket(RAIL))
    assert {each.verdict for each in await bench.results(len(jobs))} == {Verdict.SUCCEEDED}
    assert max(await _deliveries(bench), default=0) <= 1


async def test_a_provider_that_throttles_is_left_alone_for_as_long_as_it_said(bench: Bench) -> None:
    calls: list[float] = []

    async def throttles(_: Order) -> Outcome:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise Throttled("too many", after_s=1.0)
        return PAID

    first, second = a_job(), a_job()
    bench.core.know(first)
    bench.core.know(second)
    await bench.work(ScriptedRail(throttles))
    await bench.send(first)
    [told] = await bench.results(1)
    assert (told.verdict, told.reason, told.retry_after_s) == (Verdict.NOT_SENT, "throttled", 1.0)
    await bench.send(second)
    await bench.results(2)
    assert calls[1] - calls[0] >= 0.9


async def test_while_the_core_throttles_reading_slows_and_nothing_is_sent(bench: Bench) -> None:
    job, rail = a_job(), ScriptedRail(pays)
    bench.core.know(job, answer="THROTTLED", after_s=0.8)
    await bench.work(rail)
    await bench.send(job)
    await until(lambda: len(bench.core.asked_at_s) >= 2)
    first, second = bench.core.asked_at_s[:2]
    assert second - first >= 0.7
    assert rail.calls == []
    assert max(await _deliveries(bench)) <= 1
    del bench.core.script[job.job_id]
    [result] = await bench.results(1)
    assert result.verdict is Verdict.SUCCEEDED


async def test_one_tenants_many_jobs_do_not_keep_another_tenants_one_waiting(bench: Bench) -> None:
    served: list[str] = []
    tenant_of: dict[str, uuid.UUID] = {}

    async def slowly(order: Order) -> Outcome:
        served.append(order.reference)
        await asyncio.sleep(0.1)
        return PAID

    many, one = uuid.uuid4(), uuid.uuid4()
    jobs = [a_job().model_copy(update={"tenant_id": many}) for _ in range(9)]
    jobs.append(a_job().model_copy(update={"tenant_id": one}))
    for job in jobs:
        reference = f"REF{job.job_id.hex[:21].upper()}"
        tenant_of[reference] = job.tenant_id
        bench.core.know(job, reference=reference)
    await bench.send(*jobs)  # all of them wait before the worker's first read
    worker = await bench.work(ScriptedRail(slowly))
    worker.jobs.guard._limit = AdaptiveLimit(5, 5)  # it reads ahead by twice that
    await bench.results(10)
    order = [tenant_of[reference] for reference in served]
    assert one in order[:2]
    assert Counter(order) == {many: 9, one: 1}
