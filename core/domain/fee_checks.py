"""What a fee rule must pass before it is kept: its expressions give values, its samples their fees. Pure."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice, product
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from core.domain.fee_language import Expression, FeeError
from core.domain.fees import BusinessTime, FeeInput, FeeRule, applies, business_time, context_of, fee_of
from schemas.fees import FeeSample
from schemas.money import MAX_AMOUNT_MINOR

if TYPE_CHECKING:
    import cel

_PROBES: Final = 2_000
"""At most so many payments are tried; a rule with more cases is tried on a share of them, evenly."""
_LITERALS: Final = 24


def check_rule(rule: FeeRule, samples: Iterable[FeeSample], now: datetime, zone: ZoneInfo) -> None:
    """Try the rule on payments around every literal of its own, then on its samples.

    Raises FeeError, in this order: fee_result_type, fee_rule_fails, fee_sample_differs.
    """
    variables = rule.variables
    for probe in _probes(rule, now):
        context = context_of(variables, probe)
        _check_type(rule.when, context, bool, "is neither true nor false")
        if isinstance(rule.fee, Expression) and applies(rule, context):
            _check_type(rule.fee, context, int, "is no whole number of minor units")
            fee_of(rule, probe.amount_minor, context)
    for number, sample in enumerate(samples, start=1):
        time = business_time(sample.at or now, zone)
        asked = FeeInput(sample.amount_minor, rule.currency, rule.operation, time, sample.tier, sample.channel)
        context = context_of(variables, asked)
        fee_minor = fee_of(rule, asked.amount_minor, context) if applies(rule, context) else 0
        if fee_minor != sample.fee_minor:
            text = f"sample {number}: the fee of {sample.amount_minor} is {fee_minor}, not {sample.fee_minor}"
            raise FeeError("fee_sample_differs", text, f"samples.{number - 1}.fee_minor")


def _check_type(expression: Expression, context: "cel.Context", wanted: type, complaint: str) -> None:
    if type(expression.value(context)) is not wanted:
        raise FeeError("fee_result_type", f"{expression.text!r} {complaint}", expression.field)


def _probes(rule: FeeRule, now: datetime) -> Iterator[FeeInput]:
    """Payments on both sides of every literal, so that no branch is kept untried while it can be reached so."""
    expressions = [rule.when] + ([rule.fee] if isinstance(rule.fee, Expression) else [])
    integers = sorted(set().union(*(expression.integers for expression in expressions)))[:_LITERALS]
    texts = ["", *sorted(set().union(*(expression.texts for expression in expressions)))[:_LITERALS]]
    near = {number + step for number in integers for step in (-1, 0, 1)}
    values: dict[str, list[Any]] = {
        "amount_minor": sorted({1, 100, MAX_AMOUNT_MINOR} | {n for n in near if 1 <= n <= MAX_AMOUNT_MINOR}),
        "tier": texts,
        "channel": texts,
        "hour": sorted({0, 23} | {n for n in near if 0 <= n <= 23}),
        "weekday": list(range(1, 8)),
    }
    first = FeeInput(100, rule.currency, rule.operation, BusinessTime(now, 12, 1))
    read = [name for name in values if name in rule.variables]
    count = 1
    for name in read:
        count *= len(values[name])
    # An odd step does not keep to one half of the pairs and sevens that the cases are made of.
    step = -(-count // _PROBES) | 1
    for chosen in islice(product(*(values[name] for name in read)), 0, None, step):
        case = dict(zip(read, chosen, strict=True))
        time = BusinessTime(now, case.pop("hour", 12), case.pop("weekday", 1))
        yield first._replace(time=time, **case)
