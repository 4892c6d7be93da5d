"""What QP may answer to each call: only what the tables list, exactly, is ever a success or a failure."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.runtime import verdicts as runtime_verdicts
from adapters.runtime.port import Order, Outcome
from adapters.runtime.verdicts import Action
from adapters.sbp import verdicts
from adapters.sbp.adapter import SbpRail
from adapters.sbp.client import QpClient
from adapters.sbp.settings import SbpSettings
from schemas.operations import OperationType
from schemas.permits import LookupBinding, Payee
from schemas.rails import Timing
from schemas.results import Verdict

BANKS = [{"alias": "TBANK", "memberId": "100000000004"}]
PAYOUT = Order(
    job_id=UUID(int=1), reference="R" * 20, amount_minor=101, currency="RUB", provider_account="qp-1",
    payee=Payee(type="phone_bank", value="79161234567@100000000004"), lookup=LookupBinding(lookup_id="CH1"),
)  # fmt: skip
TOPUP = PAYOUT._replace(payee=None, operation=OperationType.TOPUP, expires_at=datetime.now(UTC) + timedelta(days=1))
REFUND = PAYOUT._replace(payee=Payee(type="transaction", value="T1"), operation=OperationType.REFUND)
SAID = {"id": "R" * 20, "amount": 1.01, "currency": "RUB", "status": {"value": "COMPLETED"}, "transactionId": "T1"}
DRAFT = orjson.dumps({**SAID, "status": {"value": "WAITING_CONFIRMATION"}})
TWO_STAGES = "pay in two stages"
SUBMITS = {"pay": PAYOUT, TWO_STAGES: PAYOUT, "collect": TOPUP, "refund": REFUND}
ASKS = {"inquire": PAYOUT, "check_collection": TOPUP, "cancel_collection": TOPUP, "check_refund": REFUND}
CALLS = {**SUBMITS, **ASKS}
CODES = {
    *verdicts.REFUSED, *verdicts.NOT_TAKEN, *verdicts.MISCONFIGURED, verdicts.THROTTLED, *verdicts.TAKEN,
    *verdicts.NOT_FOUND,
}  # fmt: skip
NOT_NOW = {verdicts.THROTTLED, *verdicts.MISCONFIGURED}

calls = st.sampled_from(sorted(CALLS))
http_statuses = st.integers(200, 599)
unlisted_codes = st.text(min_size=1, max_size=40).filter(lambda text: text not in CODES | {verdicts.SUCCESS})
json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)
bodies = json.map(orjson.dumps) | st.binary(max_size=80)


async def told(call: str, *answers: tuple[int, bytes]) -> Outcome:
    """Return the verdict that the runtime makes of these answers, in their order; the last one is repeated."""
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/sbp/banks"):
            return httpx.Response(200, json=BANKS)
        status, body = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(status, content=body)

    asks = Action.CANCEL if call == "cancel_collection" else Action.INQUIRE
    action = Action.LOOKUP if call == "lookup" else Action.SUBMIT if call in SUBMITS else asks
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://qp") as http:
        two_stage = call == TWO_STAGES
        chosen = SbpSettings.model_validate({"base_url": "http://qp", "secret": "s", "two_stage": two_stage})
        rail = SbpRail(QpClient(http, "s"), chosen, Timing(send_by_s=5, call_total_s=10, claim_idle_s=60))
        try:
            called = getattr(rail, "pay" if two_stage else call)
            return runtime_verdicts.checked(action, await called(CALLS.get(call, PAYOUT)))
        except Exception as error:  # noqa: BLE001 - as the runtime does
            return runtime_verdicts.of_error(action, error)


def refused(code: str) -> bytes:
    return orjson.dumps({"code": code, "message": "x"})


@settings(max_examples=80, deadline=None)
@given(call=calls, code=unlisted_codes, http=http_statuses)
async def test_no_unlisted_code_is_ever_a_success_or_a_failure(call: str, code: str, http: int) -> None:
    assert (await told(call, (http, refused(code)))).verdict is Verdict.UNKNOWN


@settings(max_examples=60, deadline=None)
@given(call=calls, code=st.sampled_from(sorted(CODES)), http=st.integers(500, 599))
async def test_no_code_counts_under_a_server_error(call: str, code: str, http: int) -> None:
    assert (await told(call, (http, refused(code)))).verdict is Verdict.UNKNOWN


@settings(max_examples=100, deadline=None)
@given(call=calls, http=http_statuses | st.sampled_from([401, 403, 404, 429]), body=bodies)
async def test_no_json_and_no_garbage_is_ever_a_success_or_a_failure(call: str, http: int, body: bytes) -> None:
    assert (await told(call, (http, body))).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("call", ASKS)
@pytest.mark.parametrize("code", sorted(CODES))
async def test_a_listed_refusal_of_a_question_ends_nothing(call: str, code: str) -> None:
    wanted = {Verdict.NOT_FOUND, Verdict.UNKNOWN} if code in verdicts.NOT_FOUND else {Verdict.UNKNOWN}
    assert (await told(call, (200, refused(code)))).verdict in wanted


@pytest.mark.parametrize("call", SUBMITS)
@pytest.mark.parametrize("code", sorted(verdicts.NOT_FOUND | verdicts.TAKEN))
async def test_what_is_said_of_a_reference_to_whoever_pays_ends_nothing(call: str, code: str) -> None:
    assert (await told(call, (200, refused(code)))).verdict is Verdict.UNKNOWN


@settings(max_examples=60, deadline=None)
@given(
    http=http_statuses,
    second=st.text(max_size=20)
    .filter(lambda text: text not in verdicts.STATUSES)
    .map(lambda status: orjson.dumps({**SAID, "status": {"value": status}}))
    | unlisted_codes.map(refused)
    | bodies,
)
async def test_no_unlisted_answer_to_the_second_stage_ends_a_payout(http: int, second: bytes) -> None:
    assert (await told(TWO_STAGES, (200, DRAFT), (http, second))).verdict is Verdict.UNKNOWN
    assert (await told(TWO_STAGES, (200, DRAFT), (200, orjson.dumps(SAID)))).verdict is Verdict.SUCCEEDED


@settings(max_examples=60, deadline=None)
@given(http=http_statuses, body=bodies | unlisted_codes.map(refused))
async def test_no_answer_to_a_check_but_a_whole_one_finds_anybody_and_none_but_a_listed_one_refuses(
    http: int, body: bytes
) -> None:
    assert (await told("lookup", (http, body))).verdict is Verdict.NOT_SENT  # a check moves no money: it is repeated
