"""The rules that stand between a lane and its provider: breaker, adaptive limit, turns. A clock that tests move."""

import heapq
import random
import uuid
from collections import Counter
from collections.abc import Callable

import pytest

from adapters.runtime.breaker import Breaker, BreakerSettings
from adapters.runtime.concurrency import AdaptiveLimit
from adapters.runtime.errors import Indeterminate, Misconfigured, NotSent, ProtocolViolation, Rejected, Throttled
from adapters.runtime.execution import call_of
from adapters.runtime.fairness import in_turn

SETTINGS = BreakerSettings(window_s=10, least_calls=4, failed_percent=50, open_s=2, open_most_s=8, probes=2)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        ticket = breaker.admit()
        assert ticket is not None
        breaker.record(ticket, failed=True)


def test_a_breaker_opens_where_half_of_the_last_calls_failed_and_not_before_there_were_enough() -> None:
    clock = Clock()
    breaker = Breaker(SETTINGS, clock)
    fail(breaker, 3)
    assert breaker.state.name == "CLOSED"
    fail(breaker, 1)
    assert breaker.state.name == "OPEN"
    assert breaker.admit() is None
    assert 1.7 < breaker.reopens_in_s < 2.3


def test_failures_among_many_answers_open_nothing_and_old_ones_are_forgotten() -> None:
    clock = Clock()
    breaker = Breaker(SETTINGS, clock)
    for _ in range(20):
        ticket = breaker.admit()
        assert ticket is not None
        breaker.record(ticket, failed=False)
    fail(breaker, 15)
    assert breaker.state.name == "CLOSED"
    clock.now_s += 11
    fail(breaker, 3)
    assert breaker.state.name == "CLOSED"


def test_half_open_admits_probes_alone_and_closes_when_all_of_them_succeed() -> None:
    clock = Clock()
    breaker = Breaker(SETTINGS, clock)
    fail(breaker, 4)
    clock.now_s += 3
    assert breaker.state.name == "HALF_OPEN"
    first, second, third = breaker.admit(), breaker.admit(), breaker.admit()
    assert first is not None
    assert second is not None
    assert third is None
    breaker.record(first, failed=False)
    assert breaker.state.name == "HALF_OPEN"
    assert breaker.admit() is None, "two probes are enough: no third begins while the second runs"
    breaker.record(second, failed=False)
    assert breaker.state.name == "CLOSED"


def test_a_probe_that_was_not_made_frees_its_place() -> None:
    clock = Clock()
    breaker = Breaker(SETTINGS, clock)
    fail(breaker, 4)
    clock.now_s += 3
    tickets = [breaker.admit(), breaker.admit()]
    assert breaker.admit() is None
    assert tickets[0] is not None
    breaker.unused(tickets[0])
    assert breaker.admit() is not None


def test_each_failed_probe_doubles_the_wait_up_to_the_cap_and_success_begins_anew() -> None:
    clock = Clock()
    breaker = Breaker(SETTINGS, clock)
    fail(breaker, 4)
    waits = []
    for _ in range(4):
        waits.append(breaker.reopens_in_s)
        clock.now_s += waits[-1] + 0.01
        fail(breaker, 1)
    assert [round(wait / 2) for wait in waits] == [1, 2, 4, 4]
    clock.now_s += 10
    for _ in range(2):
        ticket = breaker.admit()
        assert ticket is not None
        breaker.record(ticket, failed=False)
    fail(breaker, 4)
    assert breaker.reopens_in_s < 2.3


def test_what_was_begun_before_it_opened_neither_closes_nor_opens_it() -> None:
    clock = Clock()
    breaker = Breaker(SETTINGS, clock)
    old = [breaker.admit() for _ in range(6)]
    fail(breaker, 4)
    clock.now_s += 3
    assert breaker.state.name == "HALF_OPEN"
    for ticket in old:
        assert ticket is not None
        breaker.record(ticket, failed=False)
    assert breaker.state.name == "HALF_OPEN"


@pytest.mark.parametrize(
    ("error", "failed", "throttled"),
    [
        (None, False, False),
        (Rejected("payee_not_found"), False, False),
        (NotSent("the lookup expired", reason="lookup_expired"), False, False),
        (NotSent("no connection", reason="no_connection"), True, False),
        (Throttled("too many", after_s=3), False, True),
        (Indeterminate("reset"), True, False),
        (ProtocolViolation("nonsense"), True, False),
        (Misconfigured("a wrong secret"), True, False),
        (TimeoutError(), True, False),
        (RuntimeError("a bug"), True, False),
    ],
)
def test_a_provider_that_says_no_works_and_one_that_does_not_answer_has_failed(
    error: Exception | None, failed: bool, throttled: bool
) -> None:
    call = call_of(0.1, error)
    assert (call.failed, call.throttled) == (failed, throttled)


def _calls(limit: AdaptiveLimit, clock: Clock, count: int, elapsed_s: float, *, failed: bool = False) -> None:
    for _ in range(count):
        clock.now_s += elapsed_s / 10
        limit.record("pay", elapsed_s, failed=failed, throttled=False, in_flight=limit.now)


def test_a_provider_that_becomes_slower_gets_fewer_calls_and_more_again_when_it_recovers() -> None:
    clock = Clock()
    limit = AdaptiveLimit(2, 100, clock)
    _calls(limit, clock, 200, 0.2)
    assert limit.now == 100
    _calls(limit, clock, 40, 2.0)
    strained = limit.now
    assert strained < 60
    _calls(limit, clock, 3_000, 0.2)
    assert limit.now > strained + 20


def test_a_provider_that_is_always_slow_is_not_strained_and_one_outlier_cuts_nothing() -> None:
    clock = Clock()
    limit = AdaptiveLimit(2, 50, clock)
    _calls(limit, clock, 100, 5.0)
    assert limit.now == 50
    _calls(limit, clock, 1, 9.0)
    _calls(limit, clock, 20, 5.0)
    assert limit.now == 50


@pytest.mark.parametrize(
    "draw",
    [
        lambda chance: chance.expovariate(1 / 0.3),
        lambda chance: chance.lognormvariate(-1.6, 0.8),
        lambda chance: 2.0 if chance.random() < 0.1 else 0.1,
        lambda chance: 2.0 if chance.random() < 0.3 else 0.05,
    ],
    ids=["exponential", "lognormal", "a tenth of banks are slow", "a third of banks are slow"],
)
def test_a_provider_whose_answers_vary_as_they_always_did_keeps_its_calls(
    draw: Callable[[random.Random], float],
) -> None:
    """There is always work: as many calls run as the limit lets."""
    chance, clock, limits = random.Random(1), Clock(), []
    limit = AdaptiveLimit(4, 100, clock)
    running: list[tuple[float, float]] = []
    for number in range(10_000):
        while len(running) < limit.now:
            took_s = draw(chance)
            heapq.heappush(running, (clock.now_s + took_s, took_s))
        clock.now_s, elapsed_s = heapq.heappop(running)
        limit.record("pay", elapsed_s, failed=False, throttled=False, in_flight=len(running) + 1)
        if number > 1_000:
            limits.append(limit.now)
    assert sum(limits) / len(limits) > 80


def test_errors_and_refusals_cut_the_limit_once_per_call_time_and_never_below_the_least() -> None:
    clock = Clock()
    limit = AdaptiveLimit(5, 100, clock)
    for _ in range(100):  # all that was in flight comes back throttled at the same moment
        limit.record("pay", 0.5, failed=False, throttled=True, in_flight=100)
    assert limit.now == 80
    _calls(limit, clock, 1_000, 0.5, failed=True)
    assert limit.now == 5


def test_the_tenant_with_the_fewest_slots_is_next_however_much_another_has_waiting() -> None:
    many, one = uuid.uuid4(), uuid.uuid4()
    waiting = [(many, at) for at in range(10_000)] + [(one, 0)]
    order = in_turn(waiting, lambda each: each[0], Counter({many: 20}))
    assert order[0] == (one, 0)
    assert [at for owner, at in order if owner == many] == list(range(10_000))
    assert sorted(order) == sorted(waiting)


def test_tenants_that_wait_alike_take_turns() -> None:
    a, b = uuid.uuid4(), uuid.uuid4()
    waiting = [(a, at) for at in range(4)] + [(b, at) for at in range(2)]
    assert [owner for owner, _ in in_turn(waiting, lambda each: each[0], {})] == [a, b, a, b, a, a]
