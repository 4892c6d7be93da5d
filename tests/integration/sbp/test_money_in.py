"""Money in over SBP against a real provider process: codes, payments, refunds, and callbacks that are not believed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from adapters.runtime import errors
from adapters.runtime.callbacks import CallbackRefused
from adapters.runtime.port import Callback, Order, Outcome
from adapters.sbp.adapter import SbpRail
from adapters.sbp.simulator.orders import MERCHANT
from schemas.codes.nspk_link import verify_link
from schemas.collections import NextActionKind, PaymentKind, PaymentStatus
from schemas.operations import OperationType
from schemas.permits import Payee
from schemas.results import Verdict
from tests.support.listening import listening
from tests.support.qp import RunningQp, rail_at, running_qp
from tests.support.waiting import PATIENCE_S


@dataclass(frozen=True, slots=True)
class World:
    """The rail, its provider, and what the provider calls back."""

    rail: SbpRail
    qp: RunningQp
    received: asyncio.Queue[Callback]

    async def pay(self, asked: Order, **how: object) -> None:
        await self._control(asked, "pay", how)

    async def call_back(self, asked: Order, **how: object) -> None:
        await self._control(asked, "callback", how)

    async def callback(self) -> Callback:
        return await asyncio.wait_for(self.received.get(), PATIENCE_S)

    async def _control(self, asked: Order, verb: str, how: dict[str, object]) -> None:
        async with httpx.AsyncClient(base_url=self.qp.url) as control:
            done = await control.post(f"/_control/orders/{asked.reference}/{verb}", json=how)
        assert done.is_success, done.text


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    received: asyncio.Queue[Callback] = asyncio.Queue()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
        received.put_nowait(Callback(await reader.readexactly(int(headers["content-length"])), headers, "/"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with listening(receive) as port:
        callback = f"http://127.0.0.1:{port}/callbacks"
        options = ("--callback-url", callback, "--callback-delay-s", "0")
        with running_qp(tmp_path_factory.mktemp("money-in") / "book.sqlite", *options) as running:
            rail = rail_at(running.url)
            yield World(rail, running, received)
            await rail.close()


def order(amount_minor: int = 2_000, operation: OperationType = OperationType.TOPUP, lives_s: float = 60) -> Order:
    return Order(
        job_id=uuid4(),
        reference=uuid4().hex[:20].upper(),
        amount_minor=amount_minor,
        currency="RUB",
        provider_account="qp-1",
        operation=operation,
        expires_at=datetime.now(UTC) + timedelta(seconds=lives_s),
    )


@pytest.mark.parametrize(("operation", "kind"), [(OperationType.TOPUP, "02"), (OperationType.DEPOSIT, "01")])
async def test_a_code_is_issued_once_shown_as_a_verified_link_and_its_payment_counts(
    world: World, operation: OperationType, kind: str
) -> None:
    asked = order(operation=operation)
    first, again = await world.rail.collect(asked), await world.rail.collect(asked)
    assert first.next_action is not None
    assert (first.verdict, first.next_action) == (Verdict.AWAITING_PAYMENT, again.next_action)
    link = verify_link(first.next_action.payload)
    assert (first.next_action.kind, link.type, link.amount_minor) == (NextActionKind.LINK, kind, 2_000)
    assert (first.next_action.expires_at is None) is (operation is OperationType.DEPOSIT)
    assert (await world.rail.check_collection(asked)).verdict is Verdict.AWAITING_PAYMENT
    await world.pay(asked)
    await world.callback()
    paid = await world.rail.check_collection(asked)
    assert (paid.verdict, paid.amount_minor, paid.currency) == (Verdict.PAID, 2_000, "RUB")


@pytest.mark.parametrize("rubles", ["0.01", "0.02", "0.18", "0.19", "0.21", "19.99", "20.01"])
async def test_what_was_received_is_told_and_never_what_the_code_says(world: World, rubles: str) -> None:
    asked = order(20)
    await world.rail.collect(asked)
    await world.pay(asked, amount=rubles)
    await world.callback()
    assert (await world.rail.check_collection(asked)).amount_minor == int(rubles.replace(".", ""))


async def test_a_code_that_ran_out_is_expired_and_a_payment_after_it_is_told_all_the_same(world: World) -> None:
    asked = order(lives_s=-1)
    assert (await world.rail.collect(asked)).verdict is Verdict.EXPIRED
    await world.pay(asked)
    await world.callback()
    assert (await world.rail.check_collection(asked)).verdict is Verdict.PAID


async def test_a_payment_that_began_in_time_keeps_an_expired_code_open(world: World) -> None:
    asked = order(lives_s=-1)
    await world.rail.collect(asked)
    for status, verdict in [
        ("DECLINED", Verdict.EXPIRED),
        ("IN_PROGRESS", Verdict.PENDING),
        ("NO_INFO", Verdict.PENDING),
        ("SOMETHING_NEW", Verdict.UNKNOWN),
        ("SUCCESS", Verdict.PAID),
    ]:
        await world.pay(asked, transaction_id=f"T{asked.reference}", status=status)
        await world.callback()
        assert (await world.rail.check_collection(asked)).verdict is verdict, status


async def test_a_cancelled_order_is_buried_also_one_never_seen_and_a_paid_one_says_so(world: World) -> None:
    unseen, paid = order(), order()
    assert (await world.rail.check_collection(unseen)).verdict is Verdict.NOT_FOUND
    assert (await world.rail.cancel_collection(unseen)).verdict is Verdict.CANCELLED
    assert (await world.rail.collect(unseen)).verdict is Verdict.CANCELLED
    await world.rail.collect(paid)
    await world.pay(paid)
    await world.callback()
    assert (await world.rail.cancel_collection(paid)).verdict is Verdict.PAID


@pytest.mark.parametrize("fault", ["timeout_after", "error_after", "garbage_after", "reset_after"])
async def test_a_lost_answer_to_an_issue_is_indeterminate_and_the_same_code_is_found(world: World, fault: str) -> None:
    asked = order()
    await world.qp.script(fault, reference=asked.reference)
    with pytest.raises(errors.Indeterminate):
        await world.rail.collect(asked)
    assert (await world.rail.check_collection(asked)).next_action == (await world.rail.collect(asked)).next_action


async def test_an_unknown_status_of_a_code_decides_nothing(world: World) -> None:
    asked = order()
    await world.qp.script("unknown_status_after", reference=asked.reference)
    outcome = await world.rail.collect(asked)
    assert (outcome.verdict, outcome.next_action) == (Verdict.UNKNOWN, None)


async def test_a_callback_counts_by_what_is_read_again_and_not_by_what_it_says(world: World) -> None:
    asked = order()
    await world.rail.collect(asked)
    # The currency is not signed: changed, and the signature still holds.
    await world.pay(asked, changed={"currency": "USD"}, times=2)
    first, twice = await world.callback(), await world.callback()
    verified = await world.rail.verify(first)
    truth = await world.rail.check_collection(asked)
    [fact] = verified.facts
    assert (fact.transaction_id, fact.currency, fact.amount_minor) == (truth.provider_tx_id, "RUB", 2_000)
    assert (fact.reference, fact.status, fact.confirmed) == (asked.reference, PaymentStatus.SUCCEEDED, True)
    assert verified == await world.rail.verify(twice)
    # Nor is the transaction: one that the order does not show is not acknowledged, and told again.
    await world.call_back(asked, changed={"transactionId": "STOLEN"})
    with pytest.raises(CallbackRefused) as lagging:
        await world.rail.verify(await world.callback())
    assert lagging.value.status == 503
    await world.call_back(asked, forged=True)
    with pytest.raises(CallbackRefused):
        await world.rail.verify(await world.callback())


async def test_a_callback_that_is_ahead_of_the_status_is_told_again_and_credits_nothing(world: World) -> None:
    asked = order()
    await world.rail.collect(asked)
    await world.pay(asked, status="IN_PROGRESS", changed={"paymentStatus": "SUCCESS"})
    with pytest.raises(CallbackRefused) as lagging:
        await world.rail.verify(await world.callback())
    assert (lagging.value.code, lagging.value.status) == ("status_lags", 503)


async def test_a_second_payment_by_a_code_is_a_fact_of_its_own(world: World) -> None:
    asked = order()
    await world.rail.collect(asked)
    for _ in range(2):
        await world.pay(asked)
        callback = await world.callback()
    facts = (await world.rail.verify(callback)).facts
    assert len({fact.transaction_id for fact in facts}) == len(facts) == 2
    assert (await world.rail.check_collection(asked)).provider_tx_id == facts[0].transaction_id


async def test_a_callback_about_no_order_is_no_fact_and_one_without_sense_is_refused(
    world: World,
) -> None:
    asked = order()
    await world.rail.collect(asked)
    for name in ("../payouts", "x" * 41):
        await world.pay(asked, changed={"order": name})
        assert (await world.rail.verify(await world.callback())).facts == []
    await world.pay(asked, changed={"order": asked.reference[::-1]})
    with pytest.raises(CallbackRefused) as lagging:
        await world.rail.verify(await world.callback())
    assert lagging.value.status == 503
    for body in (b"", b"[]", b"{}", b'{"payout": []}', b"\xff", b"[" * 100_000):
        with pytest.raises(CallbackRefused):
            await world.rail.verify(Callback(body, {}, "/"))


async def test_a_callback_whose_status_cannot_be_read_is_to_be_repeated(world: World) -> None:
    asked = order()
    await world.rail.collect(asked)
    await world.pay(asked)
    callback = await world.callback()
    away = rail_at("http://127.0.0.1:9")
    with pytest.raises(CallbackRefused) as caught:
        await away.verify(callback)
    await away.close()
    assert caught.value.status == 503


async def test_a_callback_about_a_payout_only_makes_the_core_ask(world: World) -> None:
    payee = Payee(type="phone_bank", value="79161234567@100000000004")
    found = await world.rail.lookup(order()._replace(payee=payee))
    paid = order()._replace(payee=payee, lookup=found.lookup)
    await world.qp.script("late_callback", reference=paid.reference)
    await world.rail.pay(paid)
    [fact] = (await world.rail.verify(await world.callback())).facts
    assert (fact.kind, fact.status, fact.reference) == (PaymentKind.OUT, PaymentStatus.SUCCEEDED, paid.reference)
    assert not fact.confirmed


async def refunded(world: World, transaction: str, amount_minor: int) -> tuple[Order, Outcome | errors.AdapterError]:
    asked = order(amount_minor)._replace(payee=Payee(type="transaction", value=transaction))
    try:
        return asked, await world.rail.refund(asked)
    except errors.AdapterError as error:
        return asked, error


async def test_a_payment_is_paid_back_in_parts_and_never_more_than_it_was(world: World) -> None:
    asked = order()
    await world.rail.collect(asked)
    await world.pay(asked)
    await world.callback()
    transaction = (await world.rail.check_collection(asked)).provider_tx_id or ""
    first, outcome = await refunded(world, transaction, 1_500)
    assert isinstance(outcome, Outcome)
    assert (outcome.verdict, outcome.amount_minor) == (Verdict.SUCCEEDED, 1_500)
    assert (await world.rail.refund(first)).amount_minor == 1_500, "the same refund again is the same refund"
    _, too_much = await refunded(world, transaction, 501)
    assert isinstance(too_much, errors.Rejected)
    assert too_much.code == "refund_exceeds_payment"
    _, rest = await refunded(world, transaction, 500)
    assert isinstance(rest, Outcome)
    assert rest.verdict is Verdict.SUCCEEDED
    _, nothing = await refunded(world, "NEVER", 1)
    assert isinstance(nothing, errors.Rejected)
    assert nothing.code == "payment_not_found"


async def test_a_slow_refund_is_pending_a_lost_one_is_asked_about_and_an_unseen_one_is_not_found(world: World) -> None:
    asked = order()
    await world.rail.collect(asked)
    await world.pay(asked)
    await world.callback()
    transaction = (await world.rail.check_collection(asked)).provider_tx_id or ""
    for fault, verdict in [("slow_settle", Verdict.PENDING), ("declined", Verdict.DECLINED)]:
        back = order(100)._replace(payee=Payee(type="transaction", value=transaction))
        assert (await world.rail.check_refund(back)).verdict is Verdict.NOT_FOUND
        await world.qp.script(fault, reference=back.reference)
        assert (await world.rail.refund(back)).verdict is verdict
    lost = order(100)._replace(payee=Payee(type="transaction", value=transaction))
    await world.qp.script("error_after", reference=lost.reference)
    with pytest.raises(errors.Indeterminate):
        await world.rail.refund(lost)
    assert (await world.rail.check_refund(lost)).verdict is Verdict.SUCCEEDED


@pytest.mark.parametrize("rule", [{"amount_minor": 7_001}, {"payee": MERCHANT, "times": 1}])
async def test_an_order_is_struck_by_its_amount_or_by_who_is_paid(world: World, rule: dict[str, object]) -> None:
    await world.qp.script("error_after", **rule)
    struck, spared = order(7_001), order(7_002)
    with pytest.raises(errors.Indeterminate):
        await world.rail.collect(struck)
    assert (await world.rail.collect(spared)).verdict is Verdict.AWAITING_PAYMENT
    assert (await world.rail.check_collection(struck)).verdict is Verdict.AWAITING_PAYMENT


async def test_a_refund_is_struck_by_its_amount_or_by_the_payment_that_it_pays_back(world: World) -> None:
    asked = order(7_100)
    await world.rail.collect(asked)
    await world.pay(asked)
    await world.callback()
    transaction = (await world.rail.check_collection(asked)).provider_tx_id or ""
    of_it = Payee(type="transaction", value=transaction)
    lost, declined, spared = (order(amount_minor)._replace(payee=of_it) for amount_minor in (711, 712, 713))
    await world.qp.script("error_after", amount_minor=711)
    with pytest.raises(errors.Indeterminate):
        await world.rail.refund(lost)
    await world.qp.script("declined", payee=transaction, times=1)
    assert (await world.rail.refund(declined)).verdict is Verdict.DECLINED
    assert (await world.rail.refund(spared)).verdict is Verdict.SUCCEEDED
    await world.qp.script("inquiry_garbage", payee=transaction, times=1)
    with pytest.raises(errors.AdapterError):
        await world.rail.check_refund(lost)
    assert (await world.rail.check_refund(lost)).verdict is Verdict.SUCCEEDED


@pytest.mark.parametrize("word", ["timeout", "error", "garbage"])
async def test_an_inquiry_and_a_cancel_of_an_order_lose_their_answers_once(world: World, word: str) -> None:
    asked = order(7_200 + ord(word[0]))
    await world.qp.script(f"inquiry_{word}", amount_minor=asked.amount_minor)
    await world.qp.script(f"cancel_{word}", amount_minor=asked.amount_minor)
    assert (await world.rail.collect(asked)).verdict is Verdict.AWAITING_PAYMENT, (
        "what strikes an inquiry strikes no order"
    )
    with pytest.raises(errors.AdapterError):
        await world.rail.check_collection(asked)
    assert (await world.rail.check_collection(asked)).verdict is Verdict.AWAITING_PAYMENT
    with pytest.raises(errors.AdapterError):
        await world.rail.cancel_collection(asked)
    assert (await world.rail.check_collection(asked)).verdict is Verdict.CANCELLED, "it was done"


async def test_the_seed_that_a_simulator_is_started_with_draws_whom_its_scripts_strike(tmp_path: Path) -> None:
    async def struck(seed: int, run: int) -> list[bool]:
        with running_qp(tmp_path / f"{seed}-{run}.sqlite", "--seed", str(seed)) as qp:
            await qp.script("error_before", probability=0.4)
            rail = rail_at(qp.url)
            try:
                return [await _is_lost(rail, order(8_000 + number)) for number in range(30)]
            finally:
                await rail.close()

    first = await struck(7, 1)
    assert first == await struck(7, 2) != await struck(8, 1)
    assert 3 < sum(first) < 27


async def _is_lost(rail: SbpRail, asked: Order) -> bool:
    try:
        await rail.collect(asked)
    except errors.AdapterError:
        return True
    return False
