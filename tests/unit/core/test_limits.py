"""Limits: days and months of calendars whatever clocks do, and counters that agree with a plain list of payments."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from core.domain.limits import (
    Exceeded,
    Held,
    Limit,
    Payer,
    Usage,
    UsageKey,
    claims_of,
    fit,
    given_back,
    period_of,
    renewal_of,
    taken_again,
    terms_of,
)
from core.domain.limits import release as put_back
from schemas.limits import LimitKind, LimitRequest

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TENANT, WALLET = UUID(int=1), UUID(int=2)
PERIODS = st.sampled_from([LimitKind.DAY, LimitKind.MONTH])
ZONES = st.sampled_from(
    ["Asia/Bangkok", "Europe/Moscow", "Africa/Cairo", "America/Havana", "America/Sao_Paulo", "Pacific/Apia",
     "Asia/Beirut", "Pacific/Kiritimati", "Europe/London", "America/New_York", "Asia/Kathmandu", "UTC"]
)  # fmt: skip


def limit(number: int = 1, **changed: Any) -> Limit:
    body = {"name": f"l{number}", "kind": "DAY", "currency": "THB", "max_amount_minor": 100} | changed
    request = LimitRequest.model_validate(body)
    return Limit.of(UUID(int=number), 1, request, ZoneInfo(request.timezone or "UTC"))


@given(PERIODS, ZONES, st.integers(1_325_376_000, 2_114_380_800))
def test_a_period_holds_its_moment_and_ends_with_the_last_second_of_its_calendar(
    kind: LimitKind, name: str, at_s: int
) -> None:
    at = datetime.fromtimestamp(at_s, UTC)
    zone = ZoneInfo(name)
    period = period_of(kind, at, zone)
    renews_at = renewal_of(kind, period, zone)
    assert at < renews_at
    assert period_of(kind, renews_at, zone) > period
    assert period_of(kind, renews_at - timedelta(seconds=1), zone) == period


@pytest.mark.parametrize(
    ("kind", "zone", "period", "renews_at"),
    [
        ("DAY", "Asia/Bangkok", date(2026, 3, 2), datetime(2026, 3, 2, 17, tzinfo=UTC)),
        ("DAY", "Europe/London", date(2026, 3, 29), datetime(2026, 3, 29, 23, tzinfo=UTC)),
        ("DAY", "Europe/London", date(2026, 10, 25), datetime(2026, 10, 26, tzinfo=UTC)),
        # At midnight clocks go to one: the day before ends all the same when it ends.
        ("DAY", "Africa/Cairo", date(2024, 4, 25), datetime(2024, 4, 25, 22, tzinfo=UTC)),
        # Samoa had no 30 December 2011.
        ("DAY", "Pacific/Apia", date(2011, 12, 29), datetime(2011, 12, 30, 10, tzinfo=UTC)),
        ("MONTH", "Asia/Bangkok", date(2026, 2, 1), datetime(2026, 2, 28, 17, tzinfo=UTC)),
        ("MONTH", "UTC", date(2028, 2, 1), datetime(2028, 3, 1, tzinfo=UTC)),
        ("MONTH", "UTC", date(2026, 12, 1), datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_known_days_and_months_end_when_they_end(kind: str, zone: str, period: date, renews_at: datetime) -> None:
    assert renewal_of(LimitKind(kind), period, ZoneInfo(zone)) == renews_at


def test_of_several_limits_the_first_in_precedence_is_named_and_none_is_used() -> None:
    limits = [
        limit(1, kind="DAY"), limit(2, kind="MONTH", max_amount_minor=90), limit(3, kind="MONTH", max_amount_minor=80),
        limit(4, kind="TRANSACTION", max_amount_minor=200),
    ]  # fmt: skip
    claims = claims_of(limits, TENANT, Payer(WALLET), NOON)
    usage: dict[UsageKey, Usage] = {}
    named = []
    for amount_minor in (300, 150, 85):
        answer = fit(amount_minor, claims, usage)
        assert isinstance(answer, Exceeded)
        named.append(answer.limit.name)
    assert (named, usage) == (["l4", "l3", "l3"], {})


def test_each_limit_counts_under_its_own_subject_and_those_of_another_tier_ask_nothing() -> None:
    limits = [
        limit(1), limit(2, subject="OWNER", kind="MONTH"), limit(3, subject="TENANT"), limit(4, tier="gold"),
        limit(5, kind="TRANSACTION", max_amount_minor=70), limit(6, kind="TRANSACTION", tier="basic"),
        limit(7, kind="TRANSACTION", max_amount_minor=60, tier="gold"),
    ]  # fmt: skip
    payer, day, month = Payer(WALLET, "ann", "basic"), date(2026, 3, 2), date(2026, 3, 1)
    asked = [(one.limit.name, one.key and one.key[1:]) for one in claims_of(limits, TENANT, payer, NOON)]
    counted = [("l1", (str(WALLET), day)), ("l2", ("ann", month)), ("l3", (str(TENANT), day))]
    assert sorted(asked) == [*counted, ("l5", None), ("l6", None)]
    assert [terms_of(limits, tier, NOON).largest_minor for tier in ("", "basic", "gold")] == [70, 70, 60]


def test_a_refund_gives_back_its_amount_by_rule_and_no_count() -> None:
    key = UsageKey(UUID(int=1), "w", NOON.date())
    original = [Held(key, 100, 1), Held(UsageKey(UUID(int=9), "w", NOON.date()), 100, 1)]
    giving = {UUID(int=1): limit(1, refund_gives_back=True), UUID(int=9): limit(9)}
    assert given_back(original, giving, 40, 100) == (Held(key, -40, 0),)


PARTS = st.lists(st.tuples(st.integers(1, 50), st.lists(st.integers(1, 50), max_size=3)), max_size=8)


@given(st.integers(1, 120), st.integers(1, 120), PARTS)
def test_refunds_in_any_parts_that_come_back_in_any_parts_never_give_more_than_was_counted(
    counted_minor: int, whole_minor: int, parts: list[tuple[int, list[int]]]
) -> None:
    key = UsageKey(UUID(int=1), "w", NOON.date())
    giving = {UUID(int=1): limit(1, refund_gives_back=True)}
    used, refunded = counted_minor, 0
    for asked, backs in parts:
        part = min(asked, whole_minor - refunded)
        gives = given_back([Held(key, counted_minor, 1)], giving, part, whole_minor)
        used, refunded = used + sum(each.amount_minor for each in gives), refunded + part
        assert used >= 0
        left = part
        for wanted in backs:
            back = min(wanted, left)
            again = taken_again(gives, back, part)
            assert given_back(again, giving, 1, 1) == (), "what comes back is no payment"
            used, refunded, left = used + sum(each.amount_minor for each in again), refunded - back, left - back
    if refunded == 0:
        assert used >= counted_minor


class Counters(RuleBasedStateMachine):
    """The counters against a plain list of what is held."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = [limit(1), limit(2, kind="MONTH", max_amount_minor=250), limit(3, max_count=3)]
        self.usage: dict[UsageKey, Usage] = {}
        self.payments: list[tuple[int, date, tuple[Held, ...]]] = []

    @rule(amount_minor=st.integers(1, 120), days=st.integers(0, 40))
    def pay(self, amount_minor: int, days: int) -> None:
        at = NOON + timedelta(days=days)
        day = at.date()
        claims = claims_of(self.limits, TENANT, Payer(WALLET), at)
        that_day = [amount for amount, when, _ in self.payments if when == day]
        that_month = [amount for amount, when, _ in self.payments if when.month == day.month]
        fits = sum(that_day) + amount_minor <= 100 and sum(that_month) + amount_minor <= 250 and len(that_day) < 3
        answer = fit(amount_minor, claims, self.usage)
        assert isinstance(answer, tuple) == fits
        if isinstance(answer, tuple):
            self.payments.append((amount_minor, day, answer))

    @rule(place=st.integers(0, 5))
    def fail(self, place: int) -> None:
        if place < len(self.payments):
            put_back(self.payments.pop(place)[2], self.usage)

    @invariant()
    def counters_are_sums(self) -> None:
        for key, counter in self.usage.items():
            held = [each for _, _, parts in self.payments for each in parts if each.key == key]
            assert (counter.amount_minor, counter.count) == (sum(h.amount_minor for h in held), len(held))


TestCounters = Counters.TestCase


def test_the_example_of_the_page_is_a_limit() -> None:
    page = (Path(__file__).parents[3] / "docs/limits.md").read_text()
    (text,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert LimitRequest.model_validate(json.loads(text)).name == "payout-daily-basic"
