"""Money in by the bank, against mock-bank: received is what the account shows, and nothing is told twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import orjson
import pytest

from adapters.bank.adapter import BankRail
from adapters.runtime.port import Order
from schemas.collections import (
    PaymentKind,
    PaymentSource,
)
from schemas.operations import OperationType
from schemas.permits import Payee
from schemas.results import Verdict
from tests.integration.bank.conftest import debit
from tests.support.bank import RunningBank, Told
from tests.support.waiting import PATIENCE_S

PAYER = {"name": "Anong P.", "iban": "NL14MOCK0000000002"}


@contextlib.asynccontextmanager
async def watching(rail: BankRail, told: Told) -> AsyncIterator[Told]:
    task = asyncio.create_task(rail.watch(told))
    try:
        yield told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - bounded by the time-out
            await asyncio.sleep(0.02)


def deposit(amount_minor: int = 50_000, lives_s: float = 600) -> Order:
    reference, until_ = uuid4().hex[:16].upper(), datetime.now(UTC) + timedelta(seconds=lives_s)
    operation = OperationType.DEPOSIT
    return Order(uuid4(), reference, amount_minor, "THB", "bank-1", operation=operation, expires_at=until_)


def credit(bank: RunningBank, amount_minor: int = 50_000, **more: Any) -> None:
    bank.ask("POST", "/_mock/credits", account="FLEET", amount=amount_minor, debtor=PAYER, **more)


async def test_a_deposit_shows_the_account_and_a_reference_and_is_paid_when_the_account_shows_it(
    bank: RunningBank, rail: BankRail
) -> None:
    asked = deposit()
    shown = await rail.collect(asked)
    assert shown.verdict is Verdict.AWAITING_PAYMENT
    assert shown.next_action is not None
    assert orjson.loads(shown.next_action.payload)["reference"] == asked.reference
    assert (await rail.check_collection(asked)).verdict is Verdict.AWAITING_PAYMENT
    credit(bank, 49_000, reference=asked.reference)
    paid = await rail.check_collection(asked)
    # What came is told, and never what was asked for.
    assert (paid.verdict, paid.amount_minor, paid.currency) == (Verdict.PAID, 49_000, "THB")
    assert paid.provider_tx_id


@pytest.mark.parametrize(
    "written",
    [
        {"note": "{0} thank you"},
        {"note": "deposit {1}"},
        {"note": "for my wallet, please: {0}", "wrap": 35},
    ],
)
async def test_a_reference_is_found_however_the_payer_wrote_it(
    bank: RunningBank, rail: BankRail, written: dict[str, Any]
) -> None:
    asked = deposit()
    groups = " ".join(asked.reference[at : at + 4] for at in range(0, 16, 4)).lower()
    credit(bank, **{**written, "note": written["note"].format(asked.reference, groups)})
    assert (await rail.check_collection(asked)).verdict is Verdict.PAID


async def test_a_credit_that_names_two_references_is_matched_to_none(bank: RunningBank, rail: BankRail) -> None:
    first, second = deposit(), deposit()
    credit(bank, note=f"{first.reference} {second.reference}")
    for each in (first, second):
        assert (await rail.check_collection(each)).verdict is Verdict.AWAITING_PAYMENT


async def test_a_deposit_that_nobody_paid_expires_and_one_that_was_paid_does_not(
    bank: RunningBank, rail: BankRail
) -> None:
    unpaid, paid = deposit(lives_s=-1), deposit(lives_s=-1)
    credit(bank, reference=paid.reference)
    assert (await rail.check_collection(unpaid)).verdict is Verdict.EXPIRED
    assert (await rail.check_collection(paid)).verdict is Verdict.PAID
    assert (await rail.cancel_collection(deposit())).verdict is Verdict.CANCELLED
    assert (await rail.cancel_collection(paid)).verdict is Verdict.PAID


async def test_the_statement_tells_of_every_credit_once_and_credits_nothing_by_itself(
    bank: RunningBank, rail: BankRail
) -> None:
    asked = deposit()
    credit(bank, reference=asked.reference)
    credit(bank, 777, note="who am I")
    async with watching(rail, Told(away=2)) as told:
        await until(lambda: len(told.payments) == 2)
        bank.advance(1)  # the day's statement shows both again
        await until(lambda: rail.mailbox._statements)
        await asyncio.sleep(0.2)
    assert [(fact.reference, fact.amount_minor) for fact in told.payments] == [(asked.reference, 50_000), ("", 777)]
    assert {fact.source for fact in told.payments} == {PaymentSource.STATEMENT}
    paid = await rail.check_collection(asked)
    assert paid.provider_tx_id == told.payments[0].transaction_id


async def test_a_payment_that_comes_back_is_told_though_nobody_asks(bank: RunningBank, rail: BankRail) -> None:
    bank.behave("return-later", days=1, reason="AC04")
    payee = Payee(type="bank_account", value="004-0123456789")
    asked = Order(uuid4(), uuid4().hex[:30].upper(), 2_500, "THB", "bank-1", payee)
    await rail.pay_many([asked])
    async with watching(rail, Told()) as told:
        bank.advance(2)
        await until(lambda: told.results)
        await asyncio.sleep(0.2)
    [result] = told.results
    assert (result.job_id, result.verdict, result.amount_minor) == (asked.job_id, Verdict.RETURNED, 2_500)
    assert told.payments == []


async def test_a_direct_debit_is_paid_on_its_day_and_may_be_taken_back(bank: RunningBank, rail: BankRail) -> None:
    asked = debit()
    assert (await rail.collect(asked)).verdict is Verdict.PENDING
    bank.advance(1)
    paid = await rail.check_collection(asked)
    assert (paid.verdict, paid.amount_minor) == (Verdict.PAID, 12_345)
    assert (await rail.collect(asked)).verdict is Verdict.PAID  # the same file again
    bank.ask("POST", f"/_mock/collections/{asked.reference}/refuse", reason="MD06")
    async with watching(rail, Told()) as told:
        await until(lambda: len(told.payments) == 2)
    assert [fact.kind for fact in told.payments] == [PaymentKind.PAYMENT, PaymentKind.RETURN]
    assert len({fact.transaction_id for fact in told.payments}) == 1
    back = await rail.check_collection(asked)
    assert (back.verdict, back.amount_minor) == (Verdict.RETURNED, 12_345)


async def test_a_direct_debit_that_the_debtors_bank_refuses_is_declined(bank: RunningBank, rail: BankRail) -> None:
    asked = debit()
    await rail.collect(asked)
    bank.ask("POST", f"/_mock/collections/{asked.reference}/refuse", reason="MD01")
    refused = await rail.check_collection(asked)
    assert (refused.verdict, refused.reason) == (Verdict.DECLINED, "mandate_missing")
