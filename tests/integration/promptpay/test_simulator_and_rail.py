"""The rail against its provider: a real process, real sockets, and each fault of the script."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from adapters.promptpay.adapter import PromptPayRail
from adapters.promptpay.client import IppsClient
from adapters.promptpay.settings import PromptPaySettings
from adapters.promptpay.simulator.book import read_book
from adapters.runtime import errors
from adapters.runtime.http import provider_client
from adapters.runtime.port import Order, Outcome
from fleet.stack.processes import free_port
from schemas.permits import LookupBinding, Payee
from schemas.rails import Timing
from schemas.results import Verdict

SECRET = "simulator-test-secret"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    port, book = free_port(), tmp_path_factory.mktemp("ipps") / "book.sqlite"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "adapters.promptpay.simulator",
            "--port",
            str(port),
            "--db",
            str(book),
            "--secret",
            SECRET,
            "--timeout-delay-s",
            "3",
            "--settle-after-s",
            "0.3",
        ]
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            if httpx.get(f"{url}/health").is_success:
                break
        except httpx.TransportError:
            time.sleep(0.05)
    yield url, book
    process.terminate()
    process.wait(10)


@pytest.fixture
async def rail(simulator: tuple[str, Path]) -> AsyncIterator[PromptPayRail]:
    settings = PromptPaySettings.model_validate({"base_url": simulator[0], "secret": SECRET})
    http = provider_client(simulator[0], call_total_s=0.5, connect_s=0.5, max_connections=20)
    timing = Timing(send_by_s=1, call_total_s=2, claim_idle_s=4)
    rail = PromptPayRail(IppsClient(http, settings.key_id, SECRET), settings, timing)
    yield rail
    await rail.close()


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


def times_paid(simulator: tuple[str, Path], asked: Order) -> list[int]:
    return [entry.amount_minor for entry in read_book(simulator[1]) if entry.reference == asked.reference]


async def test_a_payee_is_looked_up_and_paid_exactly(rail: PromptPayRail, simulator: tuple[str, Path]) -> None:
    found = await rail.lookup(order())
    assert (found.verdict, bool(found.payee_name)) == (Verdict.FOUND, True)
    asked = order(lookup=found.lookup)
    paid = await rail.pay(asked)
    assert (paid.verdict, paid.amount_minor, paid.currency) == (Verdict.SUCCEEDED, 1050, "THB")
    assert times_paid(simulator, asked) == [1050]


async def test_the_same_reference_twice_is_one_payment(rail: PromptPayRail, simulator: tuple[str, Path]) -> None:
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
    rail: PromptPayRail, simulator: tuple[str, Path], payee: str, was_paid: bool
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


async def test_a_slow_transfer_is_pending_until_it_settles(rail: PromptPayRail, simulator: tuple[str, Path]) -> None:
    asked = await looked_up(rail, "0899990007")
    first = await rail.pay(asked)
    assert (first.verdict, times_paid(simulator, asked)) == (Verdict.PENDING, [])
    deadline = time.monotonic() + 5
    while (await rail.inquire(asked)).verdict is Verdict.PENDING and time.monotonic() < deadline:
        time.sleep(0.05)  # noqa: ASYNC251 - nothing else runs in this test's loop
    assert times_paid(simulator, asked) == [1050]


async def test_a_decline_says_why(rail: PromptPayRail, simulator: tuple[str, Path]) -> None:
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


async def test_a_tombstone_kills_a_reference_that_was_never_seen(
    rail: PromptPayRail, simulator: tuple[str, Path]
) -> None:
    asked = await looked_up(rail)
    assert (await rail.cancel(asked)).verdict is Verdict.CANCELLED
    assert (await rail.pay(asked)).verdict is Verdict.CANCELLED
    assert times_paid(simulator, asked) == []


async def test_a_cancel_that_comes_too_late_says_that_it_was_paid(rail: PromptPayRail) -> None:
    asked = await looked_up(rail)
    await rail.pay(asked)
    assert (await rail.cancel(asked)).verdict is Verdict.SUCCEEDED


async def test_an_expired_or_unknown_lookup_was_not_taken(rail: PromptPayRail) -> None:
    refused = await pay(rail, order(lookup=LookupBinding(lookup_id="LUnever")))
    assert isinstance(refused, Outcome)
    assert (refused.verdict, refused.reason, refused.retry_after_s) == (Verdict.NOT_SENT, "lookup_expired", None)


async def test_a_forged_signature_is_refused_and_counts_as_our_fault(simulator: tuple[str, Path]) -> None:
    http = provider_client(simulator[0], call_total_s=1, connect_s=1, max_connections=2)
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
    rail: PromptPayRail, simulator: tuple[str, Path]
) -> None:
    asked = await looked_up(rail)
    async with httpx.AsyncClient(base_url=simulator[0]) as control:
        script = {"fault": "error_after", "reference": asked.reference}
        assert (await control.post("/_control/faults", json=script)).is_success
        assert isinstance(await pay(rail, asked), errors.Indeterminate)
        refused = await control.post("/_control/faults", json={"fault": "no_such"})
        assert (refused.status_code, refused.json()["code"]) == (422, "fault_invalid")
    assert times_paid(simulator, asked) == [1050]
