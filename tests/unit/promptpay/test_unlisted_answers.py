"""What IPPS may answer: only what the tables list, exactly, is ever a success or a failure."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.promptpay import verdicts
from adapters.promptpay.adapter import PromptPayRail
from adapters.promptpay.client import IppsClient
from adapters.promptpay.models import QrStatus, TransferStatus
from adapters.promptpay.settings import PromptPaySettings
from adapters.runtime import verdicts as runtime_verdicts
from adapters.runtime.port import Order, Outcome
from adapters.runtime.verdicts import Action
from schemas.permits import LookupBinding, Payee
from schemas.rails import Timing
from schemas.results import Verdict

NOW = datetime.now(UTC)
ORDER = Order(
    job_id=UUID(int=1), reference="R" * 24, amount_minor=101, currency="THB", provider_account="ipps-1",
    payee=Payee(type="mobile", value="0812345678"), lookup=LookupBinding(lookup_id="L1"),
    expires_at=NOW + timedelta(days=1),
)  # fmt: skip
SAID = {"client_ref": ORDER.reference, "psp_txid": "T1", "amount": "1.01"}
CODE = {
    "client_ref": ORDER.reference, "payload": "x", "expires_at": (NOW + timedelta(days=1)).isoformat(),
    "payments": [{"psp_txid": "T1", "amount": "1.01"}],
}  # fmt: skip
SUBMITS = {"pay": Action.SUBMIT, "refund": Action.SUBMIT, "collect": Action.SUBMIT}
ASKS = {
    "inquire": Action.INQUIRE, "cancel": Action.CANCEL, "check_refund": Action.INQUIRE,
    "check_collection": Action.INQUIRE, "cancel_collection": Action.CANCEL,
}  # fmt: skip
CALLS = {**SUBMITS, **ASKS}
TABLE: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    **dict.fromkeys(("pay", "inquire", "cancel"), (TransferStatus, verdicts.STATUSES, SAID)),
    **dict.fromkeys(("refund", "check_refund"), (TransferStatus, verdicts.REFUND_STATUSES, SAID)),
    **dict.fromkeys(("collect", "check_collection", "cancel_collection"), (QrStatus, verdicts.QR_STATUSES, CODE)),
}
OPEN = {Verdict.UNKNOWN, Verdict.PENDING, Verdict.NOT_SENT}
NOT_NOW = {verdicts.THROTTLED, verdicts.MISCONFIGURED}
"""Answers that say that the request was not taken, with their codes: a gateway answers so under the status alone."""
LISTED = {
    *verdicts.REFUSED, *verdicts.NOT_TAKEN, *verdicts.NOT_FOUND, verdicts.TAKEN, verdicts.NOT_CANCELABLE, *NOT_NOW,
}  # fmt: skip
CODES = sorted({code for _, code in LISTED})

http_statuses = st.integers(200, 599)
json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)


async def told(call: str, status: int, body: bytes) -> Outcome:
    """Return the verdict that the runtime makes of this answer."""
    action = CALLS.get(call, Action.LOOKUP)
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))
    async with httpx.AsyncClient(transport=transport, base_url="http://ipps") as http:
        chosen = PromptPaySettings.model_validate({"base_url": "http://ipps", "secret": "s"})
        timing = Timing(send_by_s=5, call_total_s=10, claim_idle_s=60)
        rail = PromptPayRail(IppsClient(http, "key", "s"), chosen, timing)
        try:
            return runtime_verdicts.checked(action, await getattr(rail, call)(ORDER))
        except Exception as error:  # noqa: BLE001 - as the runtime does
            return runtime_verdicts.of_error(action, error)


@pytest.mark.parametrize("call", CALLS)
async def test_each_listed_status_has_its_verdict_and_no_other_has_one(call: str) -> None:
    known, table, said = TABLE[call]
    for status in known:
        # A payment that is listed counts by itself: it is there only where the status says so.
        paid: dict[str, Any] = {} if table.get(status) in (Verdict.PAID, Verdict.RETURNED) else {"payments": []}
        outcome = await told(call, 200, orjson.dumps({**said, **paid, "status": status}))
        assert outcome.verdict is table.get(status, Verdict.UNKNOWN), status


@settings(max_examples=60, deadline=None)
@given(call=st.sampled_from(sorted(CALLS)), status=st.text(max_size=20))
async def test_no_unlisted_status_is_ever_a_success_or_a_failure(call: str, status: str) -> None:
    _, table, said = TABLE[call]
    if status not in table:
        assert (await told(call, 200, orjson.dumps({**said, "status": status}))).verdict is Verdict.UNKNOWN


@settings(max_examples=60, deadline=None)
@given(
    call=st.sampled_from(sorted(CALLS)),
    status=http_statuses.filter(lambda each: each >= 300),
    code=st.text(max_size=20) | st.sampled_from(CODES),
)
async def test_no_unlisted_code_ends_anything_whatever_its_http_status(call: str, status: int, code: str) -> None:
    if (status, code) in LISTED:
        return
    outcome = await told(call, status, orjson.dumps({"code": code, "message": "x", "status": "SUCCEEDED"}))
    assert outcome.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("call", sorted(CALLS))
@pytest.mark.parametrize("status", [401, 403, 429])
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"code": "no"}', b'{"code": ""}'])
async def test_a_status_of_whoever_stands_between_proves_nothing(call: str, status: int, body: bytes) -> None:
    assert (await told(call, status, body)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("answer", sorted(NOT_NOW))
async def test_a_request_that_was_listed_as_not_taken_was_not_sent(answer: tuple[int, str]) -> None:
    for call in SUBMITS:
        assert (await told(call, answer[0], orjson.dumps({"code": answer[1]}))).verdict is Verdict.NOT_SENT


@settings(max_examples=60, deadline=None)
@given(call=st.sampled_from(sorted(CALLS)), status=http_statuses, body=json.map(orjson.dumps) | st.binary(max_size=80))
async def test_no_json_and_no_garbage_is_ever_a_success_or_a_failure(call: str, status: int, body: bytes) -> None:
    outcome = await told(call, status, body)
    assert outcome.verdict in OPEN
    assert outcome.verdict is not Verdict.NOT_SENT


@settings(max_examples=40, deadline=None)
@given(status=http_statuses, body=json.map(orjson.dumps) | st.binary(max_size=80))
async def test_no_answer_to_a_lookup_but_a_whole_one_finds_anybody_and_none_but_a_listed_one_refuses(
    status: int, body: bytes
) -> None:
    assert (await told("lookup", status, body)).verdict is Verdict.NOT_SENT  # a lookup moves no money: it is repeated


@pytest.mark.parametrize("answer", LISTED - {verdicts.NOT_CANCELABLE})
async def test_a_listed_refusal_of_a_question_ends_no_payment(answer: tuple[int, str]) -> None:
    for call in ASKS:
        outcome = await told(call, answer[0], orjson.dumps({"code": answer[1]}))
        assert outcome.verdict in (Verdict.UNKNOWN, Verdict.NOT_FOUND)


def field_lost(said: dict[str, Any], name: str) -> bytes:
    return orjson.dumps({key: value for key, value in {**said, "status": "SUCCEEDED"}.items() if key != name})


@pytest.mark.parametrize("call", ["pay", "inquire", "refund", "check_refund"])
@pytest.mark.parametrize("body", [field_lost(SAID, "client_ref"), field_lost(SAID, "status")])
async def test_a_success_that_lacks_whose_it_is_or_what_it_is_is_none(call: str, body: bytes) -> None:
    assert (await told(call, 200, body)).verdict is Verdict.UNKNOWN
