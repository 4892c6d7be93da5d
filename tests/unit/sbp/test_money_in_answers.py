"""What an answer about money in means: no unlisted status is a payment, an end, or a link that a payer is shown."""

import binascii
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.runtime import verdicts as runtime_verdicts
from adapters.runtime.callbacks import CallbackRefused
from adapters.runtime.port import Callback, Order, Outcome, Verified
from adapters.runtime.verdicts import Action
from adapters.sbp import signing, verdicts
from adapters.sbp.adapter import SbpRail
from adapters.sbp.client import QpClient
from adapters.sbp.settings import SbpSettings
from schemas.operations import OperationType
from schemas.permits import Payee
from schemas.rails import Timing
from schemas.results import Verdict

ORDER = Order(
    job_id=UUID(int=1), reference="R" * 20, amount_minor=101, currency="RUB", provider_account="qp-1",
    payee=Payee(type="transaction", value="T1"), operation=OperationType.TOPUP, expires_at=datetime.now(UTC),
)  # fmt: skip
QR_ID = "AD100001ORTF4GAF80KPJ53K186D9A3G"
UNDECIDED = {Verdict.UNKNOWN, Verdict.PENDING}


def link(qr_id: str = QR_ID, kind: str = "02", kopecks: str = "101") -> str:
    body = f"https://qr.nspk.ru/{qr_id}?type={kind}&bank=100000000007&sum={kopecks}&cur=RUB"
    return f"{body}&crc={binascii.crc_hqx(body.encode(), 0xFFFF):04X}"


def order_answer(**changed: Any) -> bytes:
    said = {"order": "R" * 20, "qrStatus": "NEW", "qrId": QR_ID, "qrType": "QRDynamic", "payload": link()}
    return orjson.dumps({**said, **changed})


def payment(status: str, **changed: Any) -> dict[str, Any]:
    said = {"transactionId": "T1", "amount": 1.01, "currency": "RUB", "transactionDate": "2026-11-21T10:00:00+03:00"}
    return {**said, "paymentStatus": status, **changed}


def refund_answer(**changed: Any) -> bytes:
    said = {"refundId": "R" * 20, "amount": 1.01, "currency": "RUB", "refundStatus": "COMPLETED"}
    return orjson.dumps({**said, **changed})


async def told(call: str, *answers: tuple[int, bytes]) -> Outcome:
    """Return the verdict that the runtime makes of these answers, in their order; the last one is repeated."""
    left = list(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        status, body = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(status, content=body)

    action = {"collect": Action.SUBMIT, "refund": Action.SUBMIT, "cancel_collection": Action.CANCEL}
    does = action.get(call, Action.INQUIRE)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://qp") as http:
        chosen = SbpSettings.model_validate({"base_url": "http://qp", "secret": "s"})
        rail = SbpRail(QpClient(http, "s"), chosen, Timing(send_by_s=5, call_total_s=10, claim_idle_s=60))
        try:
            return runtime_verdicts.checked(does, await getattr(rail, call)(ORDER))
        except Exception as error:  # noqa: BLE001 - as the runtime does
            return runtime_verdicts.of_error(does, error)


@settings(max_examples=40, deadline=None)
@given(
    qr=st.text(max_size=20).filter(lambda text: text not in verdicts.QR_STATUSES),
    call=st.sampled_from(["collect", "check_collection", "cancel_collection"]),
)
async def test_no_unlisted_status_of_a_code_ends_a_collection_or_shows_a_link(qr: str, call: str) -> None:
    outcome = await told(call, (200, order_answer(qrStatus=qr)))
    assert (outcome.verdict, outcome.next_action) == (Verdict.UNKNOWN, None)


@settings(max_examples=40, deadline=None)
@given(
    status=st.text(max_size=20).filter(lambda text: text not in verdicts.PAYMENT_STATUSES),
    qr=st.sampled_from(["NEW", "PAID", "EXPIRED", "CANCELLED"]),
)
async def test_no_unlisted_status_of_a_payment_is_a_payment_or_the_end(status: str, qr: str) -> None:
    outcome = await told("check_collection", (200, order_answer(qrStatus=qr, payments=[payment(status)])))
    assert outcome.verdict is Verdict.UNKNOWN


@settings(max_examples=40, deadline=None)
@given(
    status=st.text(max_size=20).filter(lambda text: text not in verdicts.REFUND_STATUSES),
    call=st.sampled_from(["refund", "check_refund"]),
)
async def test_no_unlisted_status_of_a_refund_is_a_success_or_a_failure(status: str, call: str) -> None:
    assert (await told(call, (200, refund_answer(refundStatus=status)))).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("code", sorted({*verdicts.REFUSED, *verdicts.NOT_TAKEN, *verdicts.NOT_FOUND}))
@pytest.mark.parametrize("call", ["collect", "refund"])
async def test_a_question_after_a_taken_reference_ends_nothing_whatever_it_is_answered(call: str, code: str) -> None:
    exists = verdicts.ORDER_EXISTS if call == "collect" else verdicts.REFUND_EXISTS
    taken, then = orjson.dumps({"code": exists}), orjson.dumps({"code": code})
    assert (await told(call, (200, taken), (200, then))).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "changed",
    [
        {"order": "S" * 20},
        {"payload": None},
        {"payload": "https://evil.example/"},
        {"payload": link(kopecks="102")},
        {"payload": link(kind="01")},
        {"payload": link("AD" + "0" * 30)},
        {"payload": link()[:-1] + "X"},
        {"qrType": "QRVariable"},
        {"qrId": None},
    ],
)
async def test_a_link_that_is_not_this_orders_is_shown_to_nobody(changed: dict[str, Any]) -> None:
    for call in ("collect", "check_collection"):
        outcome = await told(call, (200, order_answer(**changed)))
        assert (outcome.verdict in UNDECIDED, outcome.next_action) == (True, None)


async def test_a_success_counts_whatever_the_code_says_and_the_first_one_is_it() -> None:
    later = payment("SUCCESS", transactionId="T2", transactionDate="2026-11-21T10:00:01+03:00", amount=5)
    payments = [later, payment("DECLINED", transactionId="T0"), payment("SUCCESS")]
    for status in ("NEW", "PAID", "EXPIRED", "CANCELLED", "SOMETHING_NEW"):
        outcome = await told("check_collection", (200, order_answer(qrStatus=status, payments=payments)))
        assert (outcome.verdict, outcome.provider_tx_id, outcome.amount_minor) == (Verdict.PAID, "T1", 101)
        assert [(each.transaction_id, each.amount_minor) for each in outcome.further] == [("T2", 500)]


@pytest.mark.parametrize("changed", [{"amount": "1,01"}, {"amount": 0}, {"currency": "rub"}, {"transactionId": ""}])
async def test_a_payment_without_sense_is_no_payment(changed: dict[str, Any]) -> None:
    outcome = await told("check_collection", (200, order_answer(payments=[payment("SUCCESS", **changed)])))
    assert outcome.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("changed", [{"refundId": "S" * 20}, {"amount": 1.015}, {"amount": None}])
async def test_an_answer_about_another_refund_or_without_an_amount_is_a_violation(changed: dict[str, Any]) -> None:
    for call in ("refund", "check_refund"):
        assert (await told(call, (200, refund_answer(**changed)))).verdict is Verdict.UNKNOWN


async def called_back(callback: dict[str, Any], order: httpx.Response) -> Verified:
    """Let a signed callback come while the order reads so."""
    body = {"amount": 1.01, "sbpMerchantId": "M1", "order": "R" * 20, "paymentStatus": "SUCCESS", **callback}
    body = {"transactionDate": "2026-11-21T10:00:00+03:00", "transactionId": "T1", **body}
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: order), base_url="http://qp") as http:
        chosen = SbpSettings.model_validate({"base_url": "http://qp", "secret": "s"})
        rail = SbpRail(QpClient(http, "s"), chosen, Timing(send_by_s=5, call_total_s=10, claim_idle_s=60))
        headers = {signing.SIGNATURE_HEADER.lower(): signing.sign("s", signing.payment_text(body))}
        return await rail.verify(Callback(orjson.dumps(body), headers, "/"))


@pytest.mark.parametrize(
    "order",
    [
        httpx.Response(200, content=order_answer()),
        httpx.Response(200, content=order_answer(payments=[payment("IN_PROGRESS")])),
        httpx.Response(200, content=order_answer(payments=[payment("SUCCESS", transactionId="T0")])),
        httpx.Response(200, content=orjson.dumps({"code": min(verdicts.NOT_FOUND)})),
    ],
    ids=["not_listed", "in_progress", "another_one", "order_unknown"],
)
async def test_a_success_that_the_order_does_not_show_yet_is_not_acknowledged(order: httpx.Response) -> None:
    with pytest.raises(CallbackRefused) as refused:
        await called_back({}, order)
    assert (refused.value.code, refused.value.status) == ("status_lags", 503)


async def test_equal_payments_are_two_events_and_an_order_that_shows_more_is_another() -> None:
    one = [payment("SUCCESS")]
    both = [*one, payment("SUCCESS", transactionId="T2")]
    told = [
        await called_back({"transactionId": name}, httpx.Response(200, content=order_answer(payments=listed)))
        for name, listed in (("T1", one), ("T1", one), ("T1", both), ("T2", both))
    ]
    assert told[0] == told[1]
    assert len({each.event_id for each in told}) == 3
    assert [fact.transaction_id for fact in told[2].facts] == ["T1", "T2"]
    # A decline is only a reason to look: nothing has to be there.
    declined = await called_back({"paymentStatus": "DECLINED"}, httpx.Response(200, content=order_answer()))
    assert list(declined.facts) == []
