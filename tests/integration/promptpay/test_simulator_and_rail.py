"""The rail against its provider: a real process, real sockets, and each fault of the script."""

import asyncio
import time
from pathlib import Path
from uuid import uuid4

import httpx
import orjson
import pytest

from adapters.promptpay import signing
from adapters.promptpay.adapter import PromptPayRail, fee_minor
from adapters.promptpay.client import IppsClient
from adapters.runtime import errors
from adapters.runtime.http import provider_client
from adapters.runtime.port import Order, Outcome
from fleet.stack.processes import free_port
from schemas.permits import LookupBinding, Payee
from schemas.results import Verdict
from tests.support.ipps import SECRET, RunningIpps, rail_at, running_ipps
from tests.support.listening import listening
from tests.support.waiting import PATIENCE_S


def order(payee: str = "0812345678", amount_minor: int = 1050, lookup: LookupBinding | None = None) -> Order:
    return Order(
        job_id=uuid4(),
        reference=uuid4().hex[:24].upper(),
        amount_minor=amount_minor,
        currency="THB",
        provider_account="ipps-1",
        payee=Payee(type="mobile", value=payee),
        lookup=lookup,
    )


async def looked_up(rail: PromptPayRail, payee: str = "0812345678") -> Order:
    binding = (await rail.lookup(order(payee))).lookup
    assert binding is not None
    return order(payee, lookup=binding)


async def pay(rail: PromptPayRail, asked: Order) -> Outcome | errors.AdapterError:
    try:
        return await rail.pay(asked)
    except errors.AdapterError as error:
        return error


def times_paid(simulator: RunningIpps, asked: Order) -> list[int]:
    return [entry.amount_minor for entry in simulator.executed(asked.reference)]


async def test_a_payee_is_looked_up_and_paid_exactly(rail: PromptPayRail, simulator: RunningIpps) -> None:
    found = await rail.lookup(order())
    assert (found.verdict, bool(found.payee_name)) == (Verdict.FOUND, True)
    asked = order(lookup=found.lookup)
    paid = await rail.pay(asked)
    assert (paid.verdict, paid.amount_minor, paid.currency) == (Verdict.SUCCEEDED, 1050, "THB")
    assert times_paid(simulator, asked) == [1050]


async def test_the_same_reference_twice_is_one_payment(rail: PromptPayRail, simulator: RunningIpps) -> None:
    asked = await looked_up(rail)
    first, second = await rail.pay(asked), await rail.pay(asked)
    assert first.provider_tx_id == second.provider_tx_id
    assert times_paid(simulator, asked) == [1050]


async def test_a_payee_that_does_not_exist_is_refused_by_the_lookup(rail: PromptPayRail) -> None:
    with pytest.raises(errors.Rejected) as caught:
        await rail.lookup(order("0899990001"))
    assert caught.value.code == "payee_not_found"


@pytest.mark.parametrize(
    ("payee", "was_paid"),
    [
        ("0899990002", True),
        ("0899990003", False),
        ("0899990004", False),
        ("0899990005", True),
        ("0899990006", True),
        ("0899990009", True),
        ("0899990010", False),
    ],
)
async def test_a_lost_answer_is_indeterminate_and_the_inquiry_tells_the_truth(
    rail: PromptPayRail, simulator: RunningIpps, payee: str, was_paid: bool
) -> None:
    asked = await looked_up(rail, payee)
    assert isinstance(await pay(rail, asked), errors.Indeterminate)
    status = await rail.inquire(asked)
    assert status.verdict is (Verdict.SUCCEEDED if was_paid else Verdict.NOT_FOUND)
    assert times_paid(simulator, asked) == ([1050] if was_paid else [])


async def test_a_taken_reference_is_asked_about_and_not_failed(rail: PromptPayRail) -> None:
    outcome = await pay(rail, await looked_up(rail, "0899990011"))
    assert isinstance(outcome, Outcome)
    assert outcome.verdict is Verdict.SUCCEEDED


async def test_a_slow_transfer_is_pending_until_it_settles(rail: PromptPayRail, simulator: RunningIpps) -> None:
    asked = await looked_up(rail, "0899990007")
    first = await rail.pay(asked)
    assert (first.verdict, times_paid(simulator, asked)) == (Verdict.PENDING, [])
    deadline = time.monotonic() + PATIENCE_S
    while (await rail.inquire(asked)).verdict is Verdict.PENDING and time.monotonic() < deadline:
        time.sleep(0.05)  # noqa: ASYNC251 - nothing else runs in this test's loop
    assert times_paid(simulator, asked) == [1050]


async def test_a_decline_says_why(rail: PromptPayRail, simulator: RunningIpps) -> None:
    asked = await looked_up(rail, "0899990008")
    outcome = await rail.pay(asked)
    assert (outcome.verdict, outcome.reason) == (Verdict.DECLINED, "account_closed")
    assert times_paid(simulator, asked) == []


async def test_a_throttled_request_was_not_taken_and_may_be_repeated(rail: PromptPayRail) -> None:
    asked = await looked_up(rail, "0899990012")
    refused = await pay(rail, asked)
    assert isinstance(refused, errors.Throttled)
    assert refused.after_s == 1
    assert (await rail.pay(asked)).verdict is Verdict.SUCCEEDED


async def test_a_tombstone_kills_a_reference_that_was_never_seen(rail: PromptPayRail, simulator: RunningIpps) -> None:
    asked = await looked_up(rail)
    assert (await rail.cancel(asked)).verdict is Verdict.CANCELLED
    assert (await rail.pay(asked)).verdict is Verdict.CANCELLED
    assert times_paid(simulator, asked) == []


async def test_a_cancel_that_comes_too_late_says_that_it_was_paid(rail: PromptPayRail) -> None:
    asked = await looked_up(rail)
    await rail.pay(asked)
    assert (await rail.cancel(asked)).verdict is Verdict.SUCCEEDED


async def test_a_lookup_that_the_provider_never_gave_was_not_taken(rail: PromptPayRail) -> None:
    refused = await pay(rail, order(lookup=LookupBinding(lookup_id="LUnever")))
    assert isinstance(refused, Outcome)
    assert (refused.verdict, refused.reason, refused.retry_after_s) == (Verdict.NOT_SENT, "lookup_expired", None)


async def test_an_expired_lookup_pays_nothing_and_hides_no_earlier_payment(tmp_path: Path) -> None:
    with running_ipps(tmp_path / "book.sqlite", "--lookup-lives-s", "1") as running:
        rail = rail_at(running.url)
        paid_in_time, too_late = await looked_up(rail), await looked_up(rail)
        first = await rail.pay(paid_in_time)
        await asyncio.sleep(1.1)
        refused, again = await pay(rail, too_late), await rail.pay(paid_in_time)
        await rail.close()
        assert isinstance(refused, Outcome)
        assert (refused.verdict, refused.reason, refused.retry_after_s) == (Verdict.NOT_SENT, "lookup_expired", None)
        assert times_paid(running, too_late) == []
        assert (again.verdict, again.provider_tx_id) == (Verdict.SUCCEEDED, first.provider_tx_id)
        assert times_paid(running, paid_in_time) == [1050]


async def test_another_body_under_a_reference_is_a_conflict_and_pays_nothing(
    rail: PromptPayRail, simulator: RunningIpps
) -> None:
    asked, other = await looked_up(rail), await looked_up(rail, "0811111111")
    await rail.pay(asked)
    body = orjson.dumps({"client_ref": asked.reference, "lookup_id": _lookup_id(other), "amount": "10.50"})
    timestamp = str(int(time.time()))
    headers = {
        signing.KEY_HEADER: "sandbox",
        signing.TIMESTAMP_HEADER: timestamp,
        signing.SIGNATURE_HEADER: signing.sign(SECRET, timestamp, body),
    }
    async with httpx.AsyncClient(base_url=simulator.url) as http:
        refused = await http.post("/v1/transfers", content=body, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (409, "duplicate_reference")
    assert times_paid(simulator, asked) == [1050]


async def test_the_late_callback_comes_signed_and_tells_what_was_paid(tmp_path: Path) -> None:
    received: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
        received.put_nowait((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with listening(receive) as port:
        callback = f"http://127.0.0.1:{port}/callbacks"
        options = ("--callback-url", callback, "--callback-delay-s", "0.2")
        with running_ipps(tmp_path / "book.sqlite", *options) as running:
            rail = rail_at(running.url)
            asked = await looked_up(rail)
            await script(running, fault="late_callback", reference=asked.reference)
            paid = await rail.pay(asked)
            headers, body = await asyncio.wait_for(received.get(), PATIENCE_S)
            await rail.close()
    timestamp, signature = headers[signing.TIMESTAMP_HEADER.lower()], headers[signing.SIGNATURE_HEADER.lower()]
    assert signing.is_signed(SECRET, timestamp, body, signature, int(time.time()))
    event = orjson.loads(body)
    assert (event["client_ref"], event["status"], event["amount"]) == (asked.reference, "SUCCEEDED", "10.50")
    assert event["psp_txid"] == paid.provider_tx_id


async def test_a_forged_signature_is_refused_and_counts_as_our_fault(simulator: RunningIpps) -> None:
    http = provider_client(simulator.url, call_total_s=1, connect_s=1, max_connections=2)
    client = IppsClient(http, "sandbox", "wrong")
    with pytest.raises(errors.Misconfigured):
        await client.inquire("R" * 24)
    await client.aclose()


async def test_a_provider_that_is_not_there_is_not_sent() -> None:
    http = provider_client(f"http://127.0.0.1:{free_port()}", call_total_s=1, connect_s=1, max_connections=2)
    client = IppsClient(http, "sandbox", SECRET)
    with pytest.raises(errors.NotSent):
        await client.inquire("R" * 24)
    await client.aclose()


async def test_a_fault_can_be_scripted_for_one_reference_and_cleared(
    rail: PromptPayRail, simulator: RunningIpps
) -> None:
    asked, spared = await looked_up(rail), await looked_up(rail)
    await script(simulator, fault="error_after", reference=asked.reference)
    assert isinstance(await pay(rail, asked), errors.Indeterminate)
    assert (await rail.pay(spared)).verdict is Verdict.SUCCEEDED
    assert times_paid(simulator, asked) == [1050]


async def test_scripts_are_cleared_and_nonsense_is_refused_by_name(tmp_path: Path) -> None:
    with running_ipps(tmp_path / "book.sqlite") as running:
        async with httpx.AsyncClient(base_url=running.url) as control:
            refused = await control.post("/_control/faults", json={"fault": "no_such"})
            assert (refused.status_code, refused.json()["code"]) == (422, "fault_invalid")
            built_in = (await control.get("/_control/faults")).json()
            assert built_in["scripts"]
            await control.post("/_control/faults", json={"fault": "timeout_after", "payee": "0066812345678"})
            assert (await control.get("/_control/faults")).json() != built_in
            assert (await control.delete("/_control/faults")).json() == built_in


@pytest.mark.parametrize("fee", ["", ".", "0.000", "-0", "free"])
async def test_a_fee_that_is_no_amount_is_nonsense_and_not_nothing(fee: str) -> None:
    with pytest.raises(errors.ProtocolViolation):
        fee_minor(fee, "")


@pytest.mark.parametrize(("fee", "satang"), [("0", 0), ("0.00", 0), ("5.25", 525)])
async def test_a_fee_is_read_exactly(fee: str, satang: int) -> None:
    assert fee_minor(fee, "") == satang


async def test_a_fault_can_be_scripted_for_one_amount(rail: PromptPayRail, simulator: RunningIpps) -> None:
    await script(simulator, fault="error_after", amount_minor=1_051)
    odd = (await rail.lookup(order(amount_minor=1_051))).lookup
    assert isinstance(await pay(rail, order(amount_minor=1_051, lookup=odd)), errors.Indeterminate)
    assert (await rail.pay(await looked_up(rail))).verdict is Verdict.SUCCEEDED


async def script(simulator: RunningIpps, **rule: str | int) -> None:
    async with httpx.AsyncClient(base_url=simulator.url) as control:
        assert (await control.post("/_control/faults", json=rule)).is_success


def _lookup_id(asked: Order) -> str:
    assert asked.lookup is not None
    return asked.lookup.lookup_id
