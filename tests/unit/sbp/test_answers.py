"""What an answer of QP means: only what the tables list, exactly, and never about another payment."""

from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.runtime import errors
from adapters.runtime import verdicts as runtime_verdicts
from adapters.runtime.port import Order, Outcome
from adapters.runtime.verdicts import Action
from adapters.sbp import signing, verdicts
from adapters.sbp.adapter import SbpRail, fee_minor
from adapters.sbp.client import QpClient, read_json
from adapters.sbp.models import DeclineReason, PayoutStatus
from adapters.sbp.settings import SbpSettings
from schemas.permits import LookupBinding, Payee
from schemas.rails import Timing
from schemas.results import Verdict

ROOT = Path(__file__).parents[3]
VECTORS = orjson.loads((ROOT / "tests" / "vectors" / "payment_rails.json").read_bytes())["vectors"]
CALLBACKS = [
    pytest.param(v, id=v["id"]) for v in VECTORS if v["type"] == "webhook_hmac" and "sbpMerchantId" in v["body"]
]
BANKS = [{"alias": "TBANK", "memberId": "100000000004"}]
ORDER = Order(
    job_id=UUID(int=1), reference="R" * 20, amount_minor=101, currency="RUB", provider_account="qp-1",
    payee=Payee(type="phone_bank", value="79161234567@100000000004"), lookup=LookupBinding(lookup_id="CH1"),
)  # fmt: skip
SAID = {"id": "R" * 20, "amount": 1.01, "currency": "RUB", "status": {"value": "COMPLETED"}, "transactionId": "T1"}


async def told(call: str, *answers: tuple[int, bytes], two_stage: bool = False) -> Outcome:
    """Return the verdict that the runtime makes of these answers, in their order; the last one is repeated."""
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/sbp/banks"):
            return httpx.Response(200, json=BANKS)
        status, body = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(status, content=body)

    action = Action.SUBMIT if call == "pay" else Action.INQUIRE
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://qp") as http:
        chosen = SbpSettings.model_validate({"base_url": "http://qp", "secret": "s", "two_stage": two_stage})
        rail = SbpRail(QpClient(http, "s"), chosen, Timing(send_by_s=5, call_total_s=10, claim_idle_s=60))
        try:
            return runtime_verdicts.checked(action, await getattr(rail, call)(ORDER))
        except Exception as error:  # noqa: BLE001 - as the runtime does
            return runtime_verdicts.of_error(action, error)


def with_(**changed: Any) -> bytes:
    return orjson.dumps({**SAID, **changed})


@pytest.mark.parametrize("call", ["pay", "inquire"])
@pytest.mark.parametrize("status", PayoutStatus)
async def test_each_status_has_its_verdict(call: str, status: PayoutStatus) -> None:
    outcome = await told(call, (200, with_(status={"value": status})))
    assert (outcome.verdict, outcome.amount_minor) == (verdicts.STATUSES[status], 101)


@pytest.mark.parametrize("reason", [*DeclineReason, "SOMETHING_NEW", ""])
async def test_a_decline_says_why_in_our_words(reason: str) -> None:
    outcome = await told("inquire", (200, with_(status={"value": "DECLINED", "declineReason": reason})))
    assert (outcome.verdict, outcome.reason) == (Verdict.DECLINED, verdicts.DECLINES.get(reason, "declined"))


UNLISTED = st.text(max_size=30).filter(lambda text: text not in verdicts.STATUSES)
CODES = {
    *verdicts.REFUSED,
    *verdicts.NOT_TAKEN,
    *verdicts.MISCONFIGURED,
    verdicts.THROTTLED,
    *verdicts.TAKEN,
    *verdicts.NOT_FOUND,
}


@settings(max_examples=40, deadline=None)
@given(status=UNLISTED, call=st.sampled_from(["pay", "inquire"]), two_stage=st.booleans())
async def test_no_unlisted_status_is_ever_a_success_or_a_failure(status: str, call: str, two_stage: bool) -> None:
    outcome = await told(call, (200, with_(status={"value": status})), two_stage=two_stage)
    assert outcome.verdict is Verdict.UNKNOWN


@settings(max_examples=40, deadline=None)
@given(code=st.sampled_from(sorted(CODES)))
async def test_a_question_after_a_taken_reference_ends_no_payment_whatever_it_is_answered(code: str) -> None:
    taken, then = orjson.dumps({"code": verdicts.PAYOUT_EXISTS}), orjson.dumps({"code": code})
    assert (await told("pay", (200, taken), (200, then))).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("code", ["ERROR.INSUFFICIENT_FUNDS", "ERROR.NEW"])
async def test_an_error_code_beside_a_status_is_nonsense_and_not_believed(code: str, status: int) -> None:
    assert (await told("pay", (status, with_(code=code)))).reason == "protocol_violation"


async def test_success_beside_a_status_says_nothing_of_its_own() -> None:
    outcome = await told("inquire", (200, with_(code="SUCCESS", status={"value": "DECLINED"})))
    assert outcome.verdict is Verdict.DECLINED


@pytest.mark.parametrize("call", ["pay", "inquire"])
@pytest.mark.parametrize(
    "body",
    [
        with_(id="S" * 20),
        with_(amount="1,01"),
        with_(amount=-1.01),
        with_(amount=1.015),
        with_(amount=True),
        with_(amount=None),
        with_(currency="rubles"),
        with_(status="COMPLETED"),
        with_(transactionId="T" * 65),
        b'{"id": "RRRRRRRRRRRRRRRRRRRR", "amount": 1e2, "currency": "RUB", "status": {"value": "COMPLETED"}}',
        b"[" * 100_000,
    ],
)
async def test_an_answer_about_another_payment_or_without_an_amount_is_a_violation(call: str, body: bytes) -> None:
    outcome = await told(call, (200, body))
    assert (outcome.verdict, outcome.reason) == (Verdict.UNKNOWN, "protocol_violation")


async def test_a_draft_of_another_amount_is_not_confirmed() -> None:
    waits = {"value": "WAITING_CONFIRMATION"}
    outcome = await told("pay", (200, with_(status=waits, amount=2)), (200, with_()), two_stage=True)
    assert (outcome.verdict, outcome.reason) == (Verdict.UNKNOWN, "protocol_violation")


@pytest.mark.parametrize("vector", CALLBACKS)
def test_a_published_callback_is_signed_over_the_digits_of_its_body(vector: dict[str, Any]) -> None:
    text = signing.payment_text(read_json(orjson.dumps(vector["body"])))
    assert text == vector["control_string"]
    assert signing.is_signed(vector["key"], text, vector["signature"]) is vector["valid"]


def test_the_digits_of_an_amount_are_signed_as_they_are_written() -> None:
    body = b'{"amount": 101.10, "sbpMerchantId": "M", "order": "O", "paymentStatus": "SUCCESS", "transactionDate": "D"}'
    assert signing.payment_text(read_json(body)) == "101.10|M|O|SUCCESS|D"
    assert not signing.is_signed("k", "a", "é")


@pytest.mark.parametrize("fee", ["", ".", "0.000", "-0", "free"])
def test_a_fee_that_is_no_amount_is_nonsense_and_not_nothing(fee: str) -> None:
    with pytest.raises(errors.ProtocolViolation):
        fee_minor(fee, "")
