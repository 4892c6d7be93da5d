"""Fees: arithmetic that loses nothing, rules in order, and expressions that use only what is offered."""

import json
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_UP, Decimal
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain import fees
from core.domain.fee_amounts import rate, rounded_quotient, split
from core.domain.fee_checks import check_rule
from core.domain.fee_language import VARIABLES, FeeError, compile_expression
from core.domain.fee_legs import legs_of_plain, plain_legs
from core.domain.fees import FREE, FeeInput, FeeRule, Pricing, business_time, compile_rule, index_rules, price
from core.domain.intents import IntentRow
from core.domain.ledger import TransferFlags
from core.domain.operations import accounts_of, hold_transfers
from schemas.fees import FeePhase, FeeRuleOutcome, FeeRuleRequest, Rounding
from schemas.money import MAX_AMOUNT_MINOR

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
BANGKOK = ZoneInfo("Asia/Bangkok")
_DECIMAL = {
    Rounding.HALF_UP: ROUND_HALF_UP,
    Rounding.HALF_EVEN: ROUND_HALF_EVEN,
    Rounding.UP: ROUND_UP,
    Rounding.DOWN: ROUND_DOWN,
}
amounts = st.integers(1, MAX_AMOUNT_MINOR)


def request(**changed: Any) -> FeeRuleRequest:
    """A rule of one percent on payouts in baht, changed."""
    body = {"name": "one-percent", "operation": "PAYOUT", "currency": "THB", "fee": {"basis_points": 100}}
    return FeeRuleRequest.model_validate(body | changed)


def rule(version: int = 1, from_at: datetime = NOW, until_at: datetime | None = None, **changed: Any) -> FeeRule:
    return compile_rule(request(**changed), uuid4(), version, from_at, until_at)


def priced(rules: list[FeeRule], amount_minor: int = 10_000, at: datetime = NOW, **changed: Any) -> Pricing:
    asked = FeeInput(amount_minor, "THB", "PAYOUT", business_time(at, BANGKOK), **changed)
    return price(index_rules(rules), asked)


@given(st.integers(0, 10**30), st.integers(1, 10**6), st.sampled_from(Rounding))
def test_rounding_is_that_of_decimal_arithmetic(dividend: int, divisor: int, rounding: Rounding) -> None:
    # Halves are exact at 40 digits more than the quotient has, and nothing else rounds near a half.
    whole, rest = divmod(dividend, divisor)
    fraction = (
        Decimal(0) if rest == 0 else Decimal(5) if 2 * rest == divisor else Decimal(4 if 2 * rest < divisor else 6)
    )
    expected = (Decimal(whole % 1000) + fraction / 10).quantize(Decimal(1), _DECIMAL[rounding]) - whole % 1000
    assert rounded_quotient(dividend, divisor, rounding) == whole + int(expected)


@given(st.integers(0, MAX_AMOUNT_MINOR), st.lists(st.integers(1, 10**6), min_size=1, max_size=16))
def test_shares_sum_to_the_fee_and_none_is_a_unit_off_its_part(fee_minor: int, parts: list[int]) -> None:
    shares = split(fee_minor, parts)
    assert sum(shares) == fee_minor
    assert all(
        abs(share * sum(parts) - fee_minor * part) < sum(parts) for share, part in zip(shares, parts, strict=True)
    )


@given(
    amounts,
    st.lists(
        st.tuples(
            st.sampled_from(FeePhase), st.integers(0, 500), st.integers(0, 300), st.sampled_from(Rounding),
            st.lists(st.integers(1, 1000), min_size=1, max_size=5), st.integers(0, 3), st.booleans(),
            st.booleans(), st.none() | st.tuples(st.integers(0, 10**4), st.integers(0, 10**6)),
        ),
        max_size=6,
    ),
)  # fmt: skip
def test_legs_always_sum_to_the_fees_of_the_rules_that_fired(amount_minor: int, drawn: list[Any]) -> None:
    rules = [
        rule(
            name=f"r{number}", phase=phase, priority=priority, last=last,
            fee={"kind": "FORMULA", "expression": f"{fixed} + amount_minor / {points + 7}"} if formula
            else {"fixed_minor": fixed, "basis_points": points, "rounding": rounding},
            shares=[{"qualifier": f"q{place}", "parts": part} for place, part in enumerate(parts)],
            **({} if bounds is None else {"minimum_minor": bounds[0], "maximum_minor": sum(bounds)}),
        )
        for number, (phase, fixed, points, rounding, parts, priority, last, formula, bounds) in enumerate(drawn)
    ]  # fmt: skip
    try:
        pricing = priced(rules, amount_minor)
    except FeeError as error:
        refused = error.code
    else:
        refused = ""
        check_pricing(pricing, amount_minor)
    assert refused in ("", "fee_exceeds_amount")


def check_pricing(pricing: Pricing, amount_minor: int) -> None:
    for judged in pricing.fired:
        legs = [leg for leg in pricing.legs if leg.rule_id == judged.rule.id]
        assert sum(leg.amount_minor for leg in legs) == judged.fee_minor > 0
        assert {leg.phase for leg in legs} == {judged.rule.phase}
    assert all(leg.amount_minor > 0 for leg in pricing.legs)
    assert len({leg.name for leg in pricing.legs}) == len(pricing.legs)
    assert pricing.minor(FeePhase.POST) < amount_minor
    assert sum(pricing.minor(phase) for phase in FeePhase) == sum(judged.fee_minor for judged in pricing.fired)
    check_chain(pricing, amount_minor)


def check_chain(pricing: Pricing, amount_minor: int) -> None:
    """The payment's chain debits its wallet alone, by amount and fees on top, and pays each leg to its account."""
    on_top_minor = pricing.minor(FeePhase.PRE)
    named_minor = amount_minor % 7
    intent = IntentRow(
        id=uuid4(), tenant_id=uuid4(), service_key_id="k", operation="PAYOUT", state="VALIDATED", wallet_id=uuid4(),
        amount_minor=amount_minor, currency="THB", accept_state="VALIDATED", fee_minor=on_top_minor + named_minor,
        fee_legs=legs_of_plain(json.loads(json.dumps(plain_legs(pricing.legs)))),
    )  # fmt: skip
    assert intent.fee_legs == pricing.legs
    chain = hold_transfers(intent)
    assert {transfer.debit_account_id for transfer in chain} == {intent.wallet_id}
    assert sum(transfer.amount_minor for transfer in chain) == amount_minor + on_top_minor + named_minor
    assert chain[0].amount_minor == amount_minor - pricing.minor(FeePhase.POST) == intent.received_minor > 0
    assert {transfer.credit_account_id for transfer in chain} <= {account.id for account in accounts_of(intent)}
    assert len({transfer.id for transfer in chain}) == len(chain)
    assert [bool(transfer.flags & TransferFlags.LINKED) for transfer in chain] == [True] * (len(chain) - 1) + [False]


@pytest.mark.parametrize(
    ("rounding", "expected"), [("HALF_UP", 13), ("HALF_EVEN", 12), ("UP", 13), ("DOWN", 12)]
)  # fmt: skip
def test_a_half_unit_goes_where_the_named_rounding_says(rounding: str, expected: int) -> None:
    # 1250 at 1 percent are 12.5 units.
    assert rate(1250, 0, 100, Rounding(rounding)) == expected
    assert priced([rule(fee={"basis_points": 100, "rounding": rounding})], 1250).minor(FeePhase.PRE) == expected


def test_a_fee_stays_within_its_bounds() -> None:
    bounded = rule(minimum_minor=50, maximum_minor=200)
    assert [priced([bounded], amount).minor(FeePhase.PRE) for amount in (100, 10_000, 10**9)] == [50, 100, 200]


def test_a_formula_names_the_fee() -> None:
    tiers = rule(fee={"kind": "FORMULA", "expression": "tier == 'gold' ? 0 : amount_minor / 50 + 3"})
    assert priced([tiers], tier="basic").minor(FeePhase.PRE) == 203
    assert priced([tiers], tier="gold") == FREE


def test_rules_are_looked_at_by_priority_and_the_last_one_ends_its_phase_alone() -> None:
    rules = [
        rule(name="c", priority=3),
        rule(name="b", priority=2, last=True, fee={"fixed_minor": 7}),
        rule(name="a", priority=1, when="amount_minor > 1000000", last=True),
        rule(name="p", priority=9, phase="POST", fee={"fixed_minor": 5}),
    ]
    pricing = priced(rules)
    assert [(leg.name, leg.amount_minor) for leg in pricing.legs] == [("fee:b:1", 7), ("fee:p:1", 5)]


def test_a_rule_of_another_operation_or_currency_is_not_met() -> None:
    assert priced([rule(currency="USD"), rule(operation="REFUND")]) is FREE


def test_a_rule_holds_from_its_first_moment_until_before_its_last() -> None:
    until = NOW + timedelta(days=1)
    moments = (NOW - timedelta(microseconds=1), NOW, until - timedelta(microseconds=1), until)
    assert [bool(priced([rule(until_at=until)], at=at).legs) for at in moments] == [False, True, True, False]


def test_hour_and_weekday_are_those_of_the_business_timezone() -> None:
    night = rule(when="hour >= 22 || hour < 6 || weekday > 5")
    # Friday 16:30 UTC is 23:30 in Bangkok; Sunday 17:30 UTC is Monday 00:30 there, Monday 06:30 UTC is 13:30.
    moments = [datetime(2026, 3, 6, 16, 30), datetime(2026, 3, 8, 17, 30), datetime(2026, 3, 9, 6, 30)]  # noqa: DTZ001
    early = NOW - timedelta(days=30)
    found = [bool(priced([rule(from_at=early, when=night.when.text)], at=m.replace(tzinfo=UTC)).legs) for m in moments]
    assert found == [True, True, False]


def test_fees_out_of_the_amount_never_take_all_of_it() -> None:
    taken = rule(phase="POST", fee={"fixed_minor": 100})
    assert priced([taken], 101).minor(FeePhase.POST) == 100
    with pytest.raises(FeeError) as refused:
        priced([taken], 100)
    assert refused.value.code == "fee_exceeds_amount"


def test_a_payer_pays_no_share_to_itself() -> None:
    partner = UUID(int=7)
    shared = rule(shares=[{"wallet_id": str(partner)}, {"parts": 3}])
    assert [leg.amount_minor for leg in priced([shared]).legs] == [25, 75]
    assert [leg.amount_minor for leg in priced([shared], wallet_id=partner).legs] == [75]


def test_a_rule_that_has_no_value_refuses_the_payment_rather_than_guess() -> None:
    with pytest.raises(FeeError) as refused:
        priced([rule(fee={"kind": "FORMULA", "expression": "100 / (amount_minor - 10000)"})])
    assert refused.value.code == "fee_rule_fails"


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("amount_minor > 5 &&", "fee_syntax", "line 1, column 20"),
        ("amount_minor >\n 5 %% 2", "fee_syntax", "line 2, column 5"),
        ("tier = 'gold'", "fee_syntax", "line 1, column 6"),
        ("(" * 400 + "1" + ")" * 400, "fee_syntax", "line 1, column 97: nested too deeply: write it flatter"),
        ("true ? " * 150 + "true" + ": false" * 150, "fee_syntax", "line 1, column 1: nested too deeply"),
        ("balance > 5", "fee_name_unknown", "line 1, column 1: no variable balance"),
        ("true &&\n  tier.matches('x')", "fee_name_unknown", "line 2, column 8: no function matches"),
        ("amount_minor.tier", "fee_name_unknown", "no variable tier"),
        (".tier == 'gold'", "fee_name_unknown", "no variable tier"),
        ("double(1) > 0", "fee_name_unknown", "no function double"),
        ("null == tier", "fee_name_unknown", "no variable null"),
        ("[1, 2].exists(amount_minor, amount_minor > 1)", "fee_expression_forbidden", "no loops: exists"),
        ("size([1].map(amount_minor, amount_minor)) > 0", "fee_expression_forbidden", "column 10: no loops"),
        ("[1].all(tier, true)", "fee_expression_forbidden", "no loops"),
        ("amount_minor * 1.5 > 2", "fee_expression_forbidden", "no fractions"),
        ("amount_minor > 1e3", "fee_expression_forbidden", "no fractions"),
        ("amount_minor > .5", "fee_expression_forbidden", "no fractions"),
        ("amount_minor > 10u", "fee_expression_forbidden", "no unsigned"),
        ("size(b'abc') > 1", "fee_expression_forbidden", "no bytes"),
        ("{'a': 1}['a'] == 1", "fee_expression_forbidden", "no maps"),
    ],
)
def test_an_expression_that_uses_what_is_not_offered_is_refused_with_its_place(text: str, code: str, told: str) -> None:
    with pytest.raises(FeeError) as refused:
        compile_expression(text, "when")
    assert (refused.value.code, told in str(refused.value)) == (code, True), str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "true", "amount_minor >= 0x10 && currency in ['THB', 'USD']", "tier.startsWith('go') || size(channel) == 0",
        "at < timestamp('2030-01-01T00:00:00Z') // balance is no variable, and this a comment",
        "!(channel.contains('exists(') || tier.endsWith(\"{1.5 balance\"))", "hour in [1, 2] ? weekday == 1 : true",
        "!" * 1000 + "true", "true" + " && true" * 120, r"tier == r'\d' || tier == '''it's'''",
    ],
)  # fmt: skip
def test_what_is_offered_is_kept(text: str) -> None:
    check_rule(rule(when=text) if len(text) <= 1000 else rule(), [], NOW, BANGKOK)
    compile_expression(text, "when")


@given(st.text(alphabet="()[]{}.!?:&|+-*/%<>='\"ab1tier \n\\", max_size=60))
def test_any_text_is_kept_or_refused_in_words(text: str) -> None:
    try:
        answer = compile_expression(text, "when").text
    except FeeError as error:
        answer = error.code
    assert answer in (text, "fee_syntax", "fee_name_unknown", "fee_expression_forbidden")


_LEAVES = st.sampled_from(
    [*VARIABLES, "0", "1", "-1", "9223372036854775807", "'gold'", "''", "true", "[1, 2]", "[tier]", "[]",
     "timestamp('2026-01-01T00:00:00Z')", "timestamp(tier)"]
)  # fmt: skip
_OPERATORS = ["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in"]


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(_OPERATORS), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} ? {parts[1]} : {parts[2]})"),
        st.tuples(inner, inner).map(lambda parts: f"{parts[0]}[{parts[1]}]"),
        st.tuples(inner, st.sampled_from(["contains", "startsWith", "endsWith"]), inner).map(
            lambda parts: f"{parts[0]}.{parts[1]}({parts[2]})"
        ),
        inner.map(lambda part: f"size({part})"),
        inner.map(lambda part: f"!{part}"),
        inner.map(lambda part: f"-({part})"),
    )


@given(st.recursive(_LEAVES, _grown, max_leaves=8), st.booleans())
def test_any_expression_of_what_is_offered_is_kept_or_refused_in_words(text: str, as_fee: bool) -> None:
    changed: dict[str, Any] = {"fee": {"kind": "FORMULA", "expression": text}} if as_fee else {"when": text}
    try:
        check_rule(rule(**changed), [], NOW, BANGKOK)
        answer = ""
    except FeeError as error:
        answer = error.code
    assert answer in ("", "fee_syntax", "fee_result_type", "fee_rule_fails")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"when": "[true][amount_minor - 100]"}, "fee_rule_fails"),
        ({"when": "amount_minor + 1"}, "fee_result_type"),
        ({"when": "'true'"}, "fee_result_type"),
        ({"when": "tier == 'gold' ? 1 > 0 : amount_minor"}, "fee_result_type"),
        ({"when": "tier == 'gold' && amount_minor > tier"}, "fee_rule_fails"),
        ({"when": "amount_minor == 777 && 1 / (amount_minor - 777) > 0"}, "fee_rule_fails"),
        ({"when": "weekday == 3 && startsWith('x')"}, "fee_rule_fails"),
        ({"when": "at > timestamp('yesterday')"}, "fee_rule_fails"),
        ({"fee": {"kind": "FORMULA", "expression": "amount_minor > 5"}}, "fee_result_type"),
        ({"fee": {"kind": "FORMULA", "expression": "500 - amount_minor"}}, "fee_rule_fails"),
        ({"fee": {"kind": "FORMULA", "expression": "amount_minor * amount_minor"}}, "fee_rule_fails"),
        ({"fee": {"kind": "FORMULA", "expression": "100 / (hour - 17)"}}, "fee_rule_fails"),
    ],
)
def test_a_rule_that_fails_on_some_payment_is_refused_when_it_is_saved(changed: dict[str, Any], code: str) -> None:
    with pytest.raises(FeeError) as refused:
        check_rule(rule(**changed), [], NOW, BANGKOK)
    assert refused.value.code == code, str(refused.value)


def test_samples_say_what_a_rule_shall_take() -> None:
    samples = [
        {"amount_minor": 10_000, "tier": "gold", "fee_minor": 0},
        {"amount_minor": 10_000, "fee_minor": 100},
        {"amount_minor": 10_000, "at": "2026-03-02T20:00:00Z", "fee_minor": 0},
    ]
    good = request(when="tier != 'gold' && hour >= 6", samples=samples)
    check_rule(rule(when=good.when), good.samples, NOW, BANGKOK)
    with pytest.raises(FeeError, match=r"sample 3: the fee of 10000 is 100, not 0") as refused:
        check_rule(rule(when="tier != 'gold'"), good.samples, NOW, BANGKOK)
    assert refused.value.code == "fee_sample_differs"


@pytest.mark.parametrize(
    "changed",
    [
        {"minimum_minor": 5, "maximum_minor": 4}, {"shares": [{}, {}]}, {"shares": []}, {"name": "Ä"},
        {"valid_from": "2026-01-02T00:00:00Z", "valid_until": "2026-01-02T00:00:00Z"},
        {"fee": {"basis_points": 1.5}}, {"fee": {"basis_points": 10_001}}, {"when": "x" * 1001},
        {"shares": [{"wallet_id": str(uuid4()), "qualifier": "x"}]}, {"when": "tier == '\0'"},
        {"valid_from": "0001-01-01T00:00:00+14:00"}, {"valid_until": "9999-12-31T23:59:59-12:00"},
        {"fee": {"kind": "FORMULA"}},
    ],
)  # fmt: skip
def test_a_rule_that_contradicts_itself_is_no_rule(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        request(**changed)


def test_of_a_thousand_rules_a_payment_looks_only_at_its_own_few(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = [
        rule(name=f"r{number}", operation=operation, currency=currency, when=f"amount_minor > {number} && tier == 't'")
        for number in range(40)
        for operation in ("PAYOUT", "REFUND", "TOPUP", "DEPOSIT", "INTERNAL_P2P")
        for currency in ("USD", "EUR", "JPY", "SGD", "RUB")
    ]
    mine = [rule(name="mine", when="amount_minor >= 500 && hour < 24"), rule(name="other", when="amount_minor < 500")]
    looked_at: list[str] = []
    asked_of = fees.applies

    def noted(rule: FeeRule, context: Any) -> bool:
        looked_at.append(rule.name)
        return asked_of(rule, context)

    monkeypatch.setattr(fees, "applies", noted)
    price(index_rules(crowd + mine), FeeInput(10_000, "THB", "PAYOUT", business_time(NOW, BANGKOK)))
    assert sorted(looked_at) == ["mine", "other"]


CONDITIONS = ["true", "amount_minor >= 500", "tier == 'gold'", "weekday >= 6", "hour < 12 && channel == 'app'"]
RULES = st.tuples(
    st.sampled_from(CONDITIONS), st.sampled_from(FeePhase), st.booleans(), st.integers(0, 3), st.integers(-2, 2),
    st.none() | st.integers(-2, 2), st.booleans(),
)  # fmt: skip
PARTNER = UUID(int=77)
PAYMENTS = st.tuples(
    st.integers(2, 1000) | st.sampled_from([499, 500]), st.sampled_from(["", "gold"]), st.sampled_from(["", "app"]),
    st.integers(-60, 60), st.sampled_from([None, PARTNER]),
)  # fmt: skip


@given(st.lists(RULES, max_size=5), st.lists(PAYMENTS, max_size=12))
def test_what_is_remembered_of_conditions_and_fees_is_what_judging_each_payment_anew_finds(
    rules: list[tuple[str, FeePhase, bool, int, int, int | None, bool]],
    payments: list[tuple[int, str, str, int, UUID | None]],
) -> None:
    made = [
        rule(
            name=f"r{n}", when=when, phase=phase, last=last, priority=priority,
            from_at=NOW + timedelta(hours=begins), until_at=None if ends is None else NOW + timedelta(hours=ends),
            fee={"kind": "FORMULA", "expression": "amount_minor / 300"} if formula else {"basis_points": 10},
            shares=[{"parts": 1}, {"wallet_id": str(PARTNER), "parts": 1}] if formula else [{"parts": 1}],
        )
        for n, (when, phase, last, priority, begins, ends, formula) in enumerate(rules)
    ]  # fmt: skip
    index = index_rules(made)
    for amount_minor, tier, channel, minutes, payer in payments:
        at = business_time(NOW + timedelta(minutes=3 * minutes), BANGKOK)
        asked = FeeInput(amount_minor, "THB", "PAYOUT", at, tier, channel, payer)
        shelf = index.get(("PAYOUT", "THB", False))
        judged = () if shelf is None else fees.judge(shelf, asked)
        applied = [each for each in judged if each.outcome is FeeRuleOutcome.APPLIED]
        assert price(index, asked) == fees.pricing_of(applied, asked)


def test_payments_that_pay_the_same_have_one_pricing_and_others_their_own() -> None:
    shares = [{"parts": 1}, {"wallet_id": str(PARTNER), "parts": 1}]
    index = index_rules([rule(name="sold", shares=shares, fee={"fixed_minor": 4, "basis_points": 100})])

    def priced(amount_minor: int, payer: UUID | None = None) -> fees.Pricing:
        return price(index, FeeInput(amount_minor, "THB", "PAYOUT", business_time(NOW, BANGKOK), wallet_id=payer))

    assert priced(100) is priced(120)
    assert [leg.amount_minor for leg in priced(100).legs] == [3, 2]
    assert [leg.amount_minor for leg in priced(300).legs] == [4, 3]
    assert len(priced(100, PARTNER).legs) == 1
