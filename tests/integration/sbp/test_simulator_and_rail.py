"""The rail against its provider: a real process, real sockets, and each fault of the script."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest

from adapters.runtime import errors
from adapters.runtime.port import Order, Outcome
from adapters.sbp import signing
from adapters.sbp.adapter import SbpRail
from adapters.sbp.client import read_json
from schemas.permits import LookupBinding, Payee
from schemas.results import Basis, Verdict
from tests.support.listening import listening
from tests.support.qp import BANK, PHONE, SECRET, RunningQp, rail_at, running_qp
from tests.support.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningQp]:
    with running_qp(tmp_path_factory.mktemp("qp") / "book.sqlite", "--fee-kopecks", "525") as running:
        yield running


@dataclass(frozen=True, slots=True)
class Scripted:
    """A simulator whose slow payouts end by hand alone and whose checks are short, and what it calls back."""

    qp: RunningQp
    received: asyncio.Queue[tuple[str, bytes]]

    async def control(self, asked: Order, verb: str, **body: object) -> int:
        async with httpx.AsyncClient(base_url=self.qp.url) as control:
            return (await control.post(f"/_control/payouts/{asked.reference}/{verb}", json=body)).status_code


@pytest.fixture(scope="module")
async def scripted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scripted]:
    received: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
        body = await reader.readexactly(int(headers["content-length"]))
        received.put_nowait((headers[signing.SIGNATURE_HEADER.lower()], body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with listening(receive) as port:
        callback = f"http://127.0.0.1:{port}/callbacks"
        options = (
            "--settle-after-s",
            "60",
            "--check-lives-s",
            "2",
            "--callback-url",
            callback,
            "--callback-delay-s",
            "0",
        )
        with running_qp(tmp_path_factory.mktemp("scripted") / "book.sqlite", *options) as running:
            yield Scripted(running, received)


@pytest.fixture(params=[False, True], ids=["one stage", "two stages"])
async def rail(simulator: RunningQp, request: pytest.FixtureRequest) -> AsyncIterator[SbpRail]:
    rail = rail_at(simulator.url, two_stage=request.param)
    yield rail
    await rail.close()


@pytest.fixture
async def plain(simulator: RunningQp) -> AsyncIterator[SbpRail]:
    rail = rail_at(simulator.url)
    yield rail
    await rail.close()


def order(phone: str = PHONE, amount_minor: int = 1050, lookup: LookupBinding | None = None, bank: str = BANK) -> Order:
    return Order(
        job_id=uuid4(),
        reference=uuid4().hex[:20].upper(),
        amount_minor=amount_minor,
        currency="RUB",
        provider_account="qp-1",
        payee=Payee(type="phone_bank", value=f"{phone}@{bank}"),
        lookup=lookup,
    )


async def looked_up(rail: SbpRail, phone: str = PHONE) -> Order:
    binding = (await rail.lookup(order(phone))).lookup
    assert binding is not None
    return order(phone, lookup=binding)


async def pay(rail: SbpRail, asked: Order) -> Outcome | errors.AdapterError:
    try:
        return await rail.pay(asked)
    except errors.AdapterError as error:
        return error


async def ended(rail: SbpRail, asked: Order) -> Outcome:
    async with asyncio.timeout(PATIENCE_S):
        while (outcome := await rail.inquire(asked)).verdict is Verdict.PENDING:  # noqa: ASYNC110 - a process decides
            await asyncio.sleep(0.05)
    return outcome


def times_paid(simulator: RunningQp, asked: Order) -> list[int]:
    return [entry.amount_minor for entry in simulator.executed(asked.reference)]


async def test_a_receiver_is_checked_by_name_and_paid_exactly(rail: SbpRail, simulator: RunningQp) -> None:
    found = await rail.lookup(order())
    assert (found.verdict, bool(found.payee_name)) == (Verdict.FOUND, True)
    assert found.lookup is not None
    assert found.lookup.fee_minor == 525
    asked = order(lookup=found.lookup)
    paid = await rail.pay(asked)
    assert (paid.verdict, paid.amount_minor, paid.currency) == (Verdict.SUCCEEDED, 1050, "RUB")
    assert [(entry.amount_minor, entry.payee) for entry in simulator.executed(asked.reference)] == [
        (1050, f"{PHONE}@TBANK")
    ]


async def test_the_bank_may_be_named_by_its_alias(plain: SbpRail, simulator: RunningQp) -> None:
    binding = (await plain.lookup(order(bank="ALFABANK"))).lookup
    asked = order(bank="ALFABANK", lookup=binding)
    await plain.pay(asked)
    assert simulator.executed(asked.reference)[0].payee == f"{PHONE}@ALFABANK"


async def test_a_receiver_that_does_not_exist_is_refused_by_the_check_under_http_200(plain: SbpRail) -> None:
    with pytest.raises(errors.Rejected) as caught:
        await plain.lookup(order("79990000001"))
    assert caught.value.code == "payee_not_found"
    assert caught.value.evidence.startswith("200 ")


async def test_a_bank_that_is_no_member_is_refused_and_the_code_names_it(plain: SbpRail) -> None:
    with pytest.raises(errors.Rejected) as caught:
        await plain.lookup(order(bank="999999999999"))
    assert caught.value.code == "payee_bank_unknown"


@pytest.mark.parametrize(
    ("phone", "was_paid"),
    [
        ("79990000002", True),
        ("79990000003", False),
        ("79990000004", False),
        ("79990000005", True),
        ("79990000006", True),
        ("79990000009", True),
        ("79990000010", False),
    ],
)
async def test_a_lost_answer_is_indeterminate_and_the_inquiry_tells_the_truth(
    plain: SbpRail, simulator: RunningQp, phone: str, was_paid: bool
) -> None:
    asked = await looked_up(plain, phone)
    assert isinstance(await pay(plain, asked), errors.Indeterminate)
    status = await plain.inquire(asked)
    assert status.verdict is (Verdict.SUCCEEDED if was_paid else Verdict.NOT_FOUND)
    assert times_paid(simulator, asked) == ([1050] if was_paid else [])


async def test_a_reference_that_exists_is_asked_about_and_not_failed(plain: SbpRail, simulator: RunningQp) -> None:
    asked = await looked_up(plain, "79990000011")
    outcome = await plain.pay(asked)
    assert (outcome.verdict, outcome.basis) == (Verdict.SUCCEEDED, Basis.REFERENCE_STATUS)
    assert times_paid(simulator, asked) == [1050]


async def test_the_same_reference_for_another_payment_shows_the_first_ones_amount(
    plain: SbpRail, simulator: RunningQp
) -> None:
    asked = await looked_up(plain)
    await plain.pay(asked)
    other = (await plain.lookup(order(amount_minor=2_000))).lookup
    again = await plain.pay(asked._replace(amount_minor=2_000, lookup=other))
    assert (again.verdict, again.amount_minor) == (Verdict.SUCCEEDED, 1050)
    assert times_paid(simulator, asked) == [1050]


async def test_a_slow_payout_is_pending_until_it_settles(rail: SbpRail, simulator: RunningQp) -> None:
    asked = await looked_up(rail, "79990000007")
    first = await rail.pay(asked)
    assert (first.verdict, times_paid(simulator, asked)) == (Verdict.PENDING, [])
    assert (await ended(rail, asked)).verdict is Verdict.SUCCEEDED
    assert times_paid(simulator, asked) == [1050]


async def test_a_decline_comes_later_and_is_found_by_asking(rail: SbpRail, simulator: RunningQp) -> None:
    asked = await looked_up(rail, "79990000008")
    assert (await rail.pay(asked)).verdict is Verdict.PENDING
    outcome = await ended(rail, asked)
    assert (outcome.verdict, outcome.reason) == (Verdict.DECLINED, "payee_account_refused")
    assert times_paid(simulator, asked) == []


async def test_a_throttled_request_was_not_taken_and_may_be_repeated(plain: SbpRail, simulator: RunningQp) -> None:
    asked = await looked_up(plain, "79990000012")
    refused = await pay(plain, asked)
    assert isinstance(refused, errors.Throttled)
    assert refused.after_s == 1
    assert (await plain.pay(asked)).verdict is Verdict.SUCCEEDED
    assert times_paid(simulator, asked) == [1050]


async def test_a_refusal_under_http_200_is_a_refusal(rail: SbpRail, simulator: RunningQp) -> None:
    asked = await looked_up(rail, "79990000013")
    refused = await pay(rail, asked)
    assert isinstance(refused, errors.Rejected)
    assert (refused.code, refused.evidence[:4]) == ("insufficient_provider_funds", "200 ")
    assert times_paid(simulator, asked) == []


async def test_a_draft_whose_answer_is_lost_pays_nothing_and_the_next_permit_confirms_it(simulator: RunningQp) -> None:
    rail = rail_at(simulator.url, two_stage=True)
    asked = await looked_up(rail)
    await simulator.script("error_after", reference=f"draft:{asked.reference}")
    assert isinstance(await pay(rail, asked), errors.Indeterminate)
    assert ((await rail.inquire(asked)).verdict, times_paid(simulator, asked)) == (Verdict.PENDING, [])
    assert (await rail.pay(asked)).verdict is Verdict.SUCCEEDED
    assert times_paid(simulator, asked) == [1050]
    await rail.close()


async def test_a_draft_that_nobody_confirms_is_declined_when_its_check_runs_out(scripted: Scripted) -> None:
    rail = rail_at(scripted.qp.url, two_stage=True)
    asked, too_late = await looked_up(rail), await looked_up(rail)
    await scripted.qp.script("reset_after", reference=f"draft:{asked.reference}")
    assert isinstance(await pay(rail, asked), errors.Indeterminate)
    outcome = await ended(rail, asked)
    refused = await rail.pay(too_late)
    await rail.close()
    assert (outcome.verdict, outcome.reason) == (Verdict.DECLINED, "provider_timeout")
    assert (refused.verdict, refused.reason, refused.retry_after_s) == (Verdict.NOT_SENT, "lookup_expired", None)
    assert (times_paid(scripted.qp, asked), times_paid(scripted.qp, too_late)) == ([], [])


async def test_a_check_that_the_provider_never_gave_was_not_taken(plain: SbpRail) -> None:
    refused = await pay(plain, order(lookup=LookupBinding(lookup_id="CHnever")))
    assert isinstance(refused, Outcome)
    assert (refused.verdict, refused.reason, refused.retry_after_s) == (Verdict.NOT_SENT, "lookup_expired", None)


async def test_another_amount_than_the_checked_one_is_refused(plain: SbpRail, simulator: RunningQp) -> None:
    asked = (await looked_up(plain))._replace(amount_minor=1051)
    refused = await pay(plain, asked)
    assert isinstance(refused, errors.Rejected)
    assert (refused.code, times_paid(simulator, asked)) == ("lookup_mismatch", [])


async def test_a_wrong_key_is_our_own_fault_and_a_provider_that_is_not_there_is_not_sent(
    simulator: RunningQp, plain: SbpRail
) -> None:
    plain._client._headers = {"Authorization": "Bearer wrong"}
    with pytest.raises(errors.Misconfigured):
        await plain.inquire(order())
    absent = rail_at("http://127.0.0.1:9")
    assert isinstance(await pay(absent, order(lookup=LookupBinding(lookup_id="CH"))), errors.NotSent)
    await absent.close()


async def test_what_is_paid_is_called_back_signed_by_a_few_fields_and_a_decline_never_is(scripted: Scripted) -> None:
    rail = rail_at(scripted.qp.url)
    await scripted.qp.script("slow_settle", amount_minor=1050)
    declined, paid = await looked_up(rail), await looked_up(rail)
    for asked, verb in ((declined, "decline"), (paid, "settle")):
        assert (await rail.pay(asked)).verdict is Verdict.PENDING
        assert await scripted.control(asked, verb, reason="WRONG_RECIPIENT") == 200
        assert await scripted.control(asked, verb) == 409
    outcomes = [await rail.inquire(asked) for asked in (declined, paid)]
    assert [(each.verdict, each.reason) for each in outcomes] == [
        (Verdict.DECLINED, "payee_mismatch"),
        (Verdict.SUCCEEDED, ""),
    ]
    signature, body = await asyncio.wait_for(scripted.received.get(), PATIENCE_S)
    payout = read_json(body)["payout"]
    assert signing.is_signed(SECRET, signing.payout_text(payout), signature)
    assert (payout["id"], payout["amount"], payout["status"]["value"]) == (paid.reference, "10.50", "COMPLETED")
    await scripted.control(paid, "callback", times=2, forged=True)
    forged = [await asyncio.wait_for(scripted.received.get(), PATIENCE_S) for _ in range(2)]
    assert [signing.is_signed(SECRET, signing.payout_text(payout), each) for each, _ in forged] == [False, False]
    assert scripted.received.empty()
    await rail.close()


async def test_a_payout_is_told_of_twice_late_forged_and_with_an_older_status_and_knows_no_return(
    scripted: Scripted,
) -> None:
    rail = rail_at(scripted.qp.url)
    asked = await looked_up(rail)
    await scripted.qp.script("slow_settle", reference=asked.reference)
    assert (await rail.pay(asked)).verdict is Verdict.PENDING

    async def told() -> tuple[bool, str, bytes]:
        signature, body = await asyncio.wait_for(scripted.received.get(), PATIENCE_S)
        payout = read_json(body)["payout"]
        genuine = signing.is_signed(SECRET, signing.payout_text(payout), signature)
        return genuine, payout["status"]["value"], body

    assert await scripted.control(asked, "settle", times=2) == 200
    assert [(await told())[:2] for _ in range(2)] == [(True, "COMPLETED")] * 2
    await scripted.control(asked, "callback", times=2)
    first, again = await told(), await told()
    assert (first, first[:2]) == (again, (True, "COMPLETED"))
    await scripted.control(asked, "callback", delay_s=1.0)
    older = {"value": "IN_PROGRESS", "date": "2026-01-01T00:00:00+00:00"}  # signed are both, so both are told
    await scripted.control(asked, "callback", changed={"status": older})
    assert [(await told())[1], (await told())[1]] == ["IN_PROGRESS", "COMPLETED"]
    await scripted.control(asked, "callback", forged=True)
    assert (await told())[0] is False
    assert await scripted.control(asked, "return") == 404
    assert (await rail.inquire(asked)).verdict is Verdict.SUCCEEDED
    await rail.close()


async def test_the_list_of_banks_is_asked_for_at_run_time_and_an_old_one_serves(scripted: Scripted) -> None:
    rail = rail_at(scripted.qp.url, banks_retry_s=0.01)
    async with httpx.AsyncClient(base_url=scripted.qp.url) as control:
        await rail.lookup(order())
        await control.put("/_control/banks", json=None)
        await asyncio.sleep(0.02)
        assert (await rail.lookup(order())).verdict is Verdict.FOUND
        with pytest.raises(errors.Rejected):
            await rail.lookup(order(bank="100000000999"))
        joined = [{"alias": "NEWBANK", "memberId": "100000000999", "name": "New"}]
        await control.put("/_control/banks", json=joined)
        await asyncio.sleep(0.02)
        assert (await rail.lookup(order(bank="100000000999"))).verdict is Verdict.FOUND
    await rail.close()
