"""Scripts reach money in, refunds, inquiries and cancels by payee and amount too, and strike nothing beside them."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from adapters.promptpay.adapter import PromptPayRail
from adapters.promptpay.simulator.bills import OWN_BILLER
from adapters.runtime import errors
from adapters.runtime.port import Order, Outcome
from schemas.operations import OperationType
from schemas.permits import Payee
from schemas.results import Verdict
from tests.integration.promptpay.test_simulator_and_rail import looked_up
from tests.support.ipps import RunningIpps, rail_at, running_ipps

WORDS = ["timeout", "error", "garbage"]


def top_up(amount_minor: int) -> Order:
    until = datetime.now(UTC) + timedelta(seconds=60)
    kind = OperationType.TOPUP
    return Order(uuid4(), uuid4().hex[:20].upper(), amount_minor, "THB", "ipps-1", operation=kind, expires_at=until)


async def control(simulator: RunningIpps, path: str, **body: Any) -> Any:
    async with httpx.AsyncClient(base_url=simulator.url) as client:
        answer = await client.post(f"/_control/{path}", json=body)
    assert answer.is_success, answer.text
    return answer.json()


async def is_lost(ask: Callable[[Order], Awaitable[Outcome]], asked: Order) -> bool:
    try:
        await ask(asked)
    except errors.AdapterError:
        return True
    return False


@pytest.mark.parametrize("rule", [{"amount_minor": 7_001}, {"payee": OWN_BILLER, "times": 1}])
async def test_a_code_is_struck_by_its_amount_or_by_who_is_paid(
    rail: PromptPayRail, simulator: RunningIpps, rule: dict[str, Any]
) -> None:
    await control(simulator, "faults", fault="error_after", **rule)
    struck, spared = top_up(7_001), top_up(7_002)
    assert (await is_lost(rail.collect, struck), await is_lost(rail.collect, spared)) == (True, False)
    assert (await rail.check_collection(struck)).verdict is Verdict.AWAITING_PAYMENT, "it was made"


async def test_a_refund_is_struck_by_its_amount_or_by_the_payment_that_it_pays_back(
    rail: PromptPayRail, simulator: RunningIpps
) -> None:
    paid, backs = top_up(7_100), [top_up(7_011), top_up(7_012), top_up(7_013)]
    await rail.collect(paid)
    transaction = (await control(simulator, "pay", reference=paid.reference))["psp_txid"]
    backs = [each._replace(amount_minor=place, payee=Payee(type="transaction", value=transaction))
             for place, each in enumerate(backs, 11)]  # fmt: skip
    await control(simulator, "faults", fault="error_after", amount_minor=11)
    assert [await is_lost(rail.refund, each) for each in backs[:2]] == [True, False]
    await control(simulator, "faults", fault="error_before", payee=transaction, times=1)
    assert await is_lost(rail.refund, backs[2])
    await control(simulator, "faults", fault="inquiry_error", payee=transaction, times=1)
    assert await is_lost(rail.check_refund, backs[0])
    ends = [(await rail.check_refund(each)).verdict for each in backs]
    assert ends == [Verdict.SUCCEEDED, Verdict.SUCCEEDED, Verdict.NOT_FOUND]


@pytest.mark.parametrize("word", WORDS)
async def test_an_inquiry_and_a_cancel_of_a_code_lose_their_answers_once(
    rail: PromptPayRail, simulator: RunningIpps, word: str
) -> None:
    amount_minor = 7_201 + WORDS.index(word)
    await control(simulator, "faults", fault=f"inquiry_{word}", amount_minor=amount_minor)
    await control(simulator, "faults", fault=f"cancel_{word}", amount_minor=amount_minor)
    asked = top_up(amount_minor)
    assert (await rail.collect(asked)).verdict is Verdict.AWAITING_PAYMENT, "what strikes an inquiry strikes no code"
    assert await is_lost(rail.check_collection, asked)
    assert (await rail.check_collection(asked)).verdict is Verdict.AWAITING_PAYMENT
    assert await is_lost(rail.cancel_collection, asked)
    assert (await rail.check_collection(asked)).verdict is Verdict.CANCELLED, "it was done"


@pytest.mark.parametrize("word", WORDS)
async def test_an_inquiry_and_a_cancel_of_a_transfer_lose_their_answers_once(
    rail: PromptPayRail, simulator: RunningIpps, word: str
) -> None:
    paid, unpaid = await looked_up(rail), await looked_up(rail)
    await control(simulator, "faults", fault=f"inquiry_{word}", payee="0066812345678", times=1)
    await control(simulator, "faults", fault=f"cancel_{word}", reference=unpaid.reference)
    assert (await rail.pay(paid)).verdict is Verdict.SUCCEEDED
    assert await is_lost(rail.inquire, paid)
    assert (await rail.inquire(paid)).verdict is Verdict.SUCCEEDED
    assert await is_lost(rail.cancel, unpaid)
    assert (await rail.inquire(unpaid)).verdict is Verdict.CANCELLED, "it was buried"


async def test_the_seed_that_a_simulator_is_started_with_draws_whom_its_scripts_strike(tmp_path: Path) -> None:
    async def struck(seed: int, run: int) -> list[bool]:
        with running_ipps(tmp_path / f"{seed}-{run}.sqlite", "--seed", str(seed)) as simulator:
            await control(simulator, "faults", fault="error_before", probability=0.4)
            rail = rail_at(simulator.url)
            try:
                return [await is_lost(rail.collect, top_up(8_000 + number)) for number in range(30)]
            finally:
                await rail.close()

    first = await struck(7, 1)
    assert first == await struck(7, 2) != await struck(8, 1)
    assert 3 < sum(first) < 27
