"""Bills and accounts through PromptPay: looked up by their parts, paid once, refused for what the biller refuses."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from adapters.promptpay.adapter import PromptPayRail
from adapters.runtime import errors
from adapters.runtime.port import Order
from schemas.codes.payable import read_payable
from schemas.operations import OperationType
from schemas.permits import Payee
from schemas.results import Verdict
from tests.support.ipps import RunningIpps


def order(kind: str, value: str, amount_minor: int = 50_000) -> Order:
    payee = Payee(type=kind, value=value)
    return Order(uuid4(), uuid4().hex[:24].upper(), amount_minor, "THB", "ipps-1", payee)


async def paid(rail: PromptPayRail, asked: Order) -> Order:
    """Look up and pay; return the order that was paid."""
    asked = asked._replace(lookup=(await rail.lookup(asked)).lookup)
    outcome = await rail.pay(asked)
    assert (outcome.verdict, outcome.amount_minor) == (Verdict.SUCCEEDED, asked.amount_minor)
    return asked


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bill", "099400000000017:INV2026001"),
        ("bill", "099999990000102:INV2026001:CUST7"),
        ("bill", "099999990000103:0123456789"),
        ("bill", "099999990000104:ANY"),
        ("bank_account", "014-1234567890"),
    ],
)
async def test_a_bill_or_account_is_looked_up_by_its_parts_and_paid_once(
    rail: PromptPayRail, simulator: RunningIpps, kind: str, value: str
) -> None:
    asked = await paid(rail, order(kind, value))
    assert (await rail.pay(asked)).verdict is Verdict.SUCCEEDED
    assert [(entry.payee, entry.amount_minor) for entry in simulator.executed(asked.reference)] == [(value, 50_000)]


@pytest.mark.parametrize(
    ("value", "amount_minor", "code"),
    [
        ("099999990000101:INV17", 50_000, "biller_not_found"),
        ("099999990000102:INV17", 50_000, "bill_reference_refused"),
        ("099999990000103:INV17", 50_000, "bill_reference_refused"),
        ("099999990000104:INV17", 50_001, "bill_amount_refused"),
        ("099999990000105:INV17", 50_000, "bill_already_paid"),
        ("099999990000106:INV17", 50_000, "bill_expired"),
        ("099400015804189:NOSUCHCODE", 50_000, "bill_reference_refused"),
    ],
)
async def test_what_a_biller_refuses_ends_at_the_lookup_before_anything_is_sent(
    rail: PromptPayRail, value: str, amount_minor: int, code: str
) -> None:
    with pytest.raises(errors.Rejected) as caught:
        await rail.lookup(order("bill", value, amount_minor))
    assert caught.value.code == code


@pytest.mark.parametrize("value", ["09940001580418:INV17", "099400015804189", "099400015804189:a-b", "x:INV17"])
async def test_a_bill_that_is_not_written_as_one_never_reaches_the_provider(rail: PromptPayRail, value: str) -> None:
    with pytest.raises(errors.Rejected) as caught:
        await rail.lookup(order("bill", value))
    assert caught.value.code == "payee_type_unknown"


async def code_of(rail: PromptPayRail, lives_s: float = 60) -> tuple[Order, str]:
    """Make a code for 500 baht; return its order and its text."""
    until = datetime.now(UTC) + timedelta(seconds=lives_s)
    collected = Order(
        uuid4(), uuid4().hex[:24].upper(), 50_000, "THB", "ipps-1", operation=OperationType.TOPUP, expires_at=until
    )
    action = (await rail.collect(collected)).next_action
    assert action is not None
    return collected, action.payload


async def test_a_one_time_code_is_paid_as_a_bill_credits_its_owner_and_is_refused_when_used(
    rail: PromptPayRail,
) -> None:
    collected, text = await code_of(rail)
    scanned = read_payable(text)
    assert (scanned.payee_type, scanned.one_time, scanned.amount_minor) == ("bill", True, 50_000)
    await paid(rail, order("bill", scanned.payee_value))
    standing = await rail.check_collection(collected)
    assert (standing.verdict, standing.amount_minor) == (Verdict.PAID, 50_000)
    with pytest.raises(errors.Rejected) as caught:
        await rail.lookup(order("bill", scanned.payee_value))
    assert caught.value.code == "bill_already_paid"


async def test_a_code_that_expired_or_was_cancelled_or_asks_for_another_amount_is_refused(
    rail: PromptPayRail,
) -> None:
    collected, text = await code_of(rail)
    payee = read_payable(text).payee_value
    with pytest.raises(errors.Rejected) as differs:
        await rail.lookup(order("bill", payee, 50_001))
    assert differs.value.code == "bill_amount_refused"
    assert (await rail.cancel_collection(collected)).verdict is Verdict.CANCELLED
    with pytest.raises(errors.Rejected) as cancelled:
        await rail.lookup(order("bill", payee))
    assert cancelled.value.code == "bill_expired"
    _, short = await code_of(rail, lives_s=0.3)
    await asyncio.sleep(0.4)
    with pytest.raises(errors.Rejected) as expired:
        await rail.lookup(order("bill", read_payable(short).payee_value))
    assert expired.value.code == "bill_expired"
