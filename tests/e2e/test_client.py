"""The typed client against the real core, behind a front that loses what it is told to lose."""

import time
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import orjson
import pytest

from fleet.client import FleetClient, Refused, Unreachable
from fleet.stack.stack import Stack
from schemas.api import AutoConfirm, BatchItem, IntentRequest, WalletRequest
from schemas.operations import OperationType
from schemas.permits import Payee
from tests.support.flaky_front import CUT_AFTER, CUT_BEFORE, Front, answer, flaky_front

PROBLEM = {"type": "urn:x", "title": "t", "detail": "what to do", "new_field": [1]}


def problem(status: int, code: str, **headers: str) -> bytes:
    body = orjson.dumps({**PROBLEM, "status": status, "code": code}).decode()
    return answer(f"{status} No", body, Content_Type="application/problem+json", **headers)


@pytest.fixture
async def front(stack: Stack) -> AsyncIterator[Front]:
    async with flaky_front(stack.info.public_url) as front:
        yield front


@pytest.fixture
async def client(front: Front, stack: Stack) -> AsyncIterator[FleetClient]:
    async with FleetClient(front.url, stack.info.key_id, stack.info.key_secret) as client:
        yield client


@pytest.fixture
async def wallet(client: FleetClient, front: Front) -> UUID:
    """A wallet with 100.00; what it took to make it is not among the requests seen."""
    made = await client.create_wallet(WalletRequest(owner="client", currency="THB", external_id=uuid4().hex))
    fund = IntentRequest(
        operation=OperationType.MANUAL_ADJUSTMENT, wallet_id=made.id, amount_minor=10_000, currency="THB"
    )
    await client.create_intent(fund, idempotency_key=uuid4().hex)
    front.seen.clear()
    return made.id


def payout(wallet: UUID, amount_minor: int = 100, reference: str = "") -> IntentRequest:
    return IntentRequest(
        operation=OperationType.PAYOUT,
        wallet_id=wallet,
        amount_minor=amount_minor,
        currency="THB",
        payee=Payee(type="mobile", value="0812345678"),
        reference=reference,
        auto_confirm=AutoConfirm(max_fee_minor=500),
    )


@pytest.mark.parametrize("fault", [CUT_BEFORE, CUT_AFTER])
async def test_a_request_whose_connection_is_lost_is_repeated_under_its_key_and_pays_once(
    client: FleetClient, front: Front, wallet: UUID, fault: bytes
) -> None:
    front.script.extend([fault, fault])
    key = uuid4().hex
    made = await client.create_intent(payout(wallet), idempotency_key=key)
    assert front.headers("Idempotency-Key") == [key] * 3
    assert len(set(front.headers("Fleet-Nonce"))) == 3
    assert len(set(front.headers("body"))) == 1
    payouts = [intent.id async for intent in client.list_intents(wallet_id=str(wallet))]
    assert payouts.count(made.id) == 1
    assert len(payouts) == 2


async def test_a_key_that_is_changed_on_the_way_makes_no_payment(
    client: FleetClient, front: Front, wallet: UUID
) -> None:
    front.changed[b"order-1017"] = b"order-1018"
    with pytest.raises(Refused, match="unauthenticated"):
        await client.create_intent(payout(wallet), idempotency_key="order-1017")
    assert len([intent async for intent in client.list_intents(wallet_id=str(wallet))]) == 1


async def test_a_batch_whose_answer_is_lost_is_answered_with_the_first_results(
    client: FleetClient, front: Front, wallet: UUID
) -> None:
    items = [BatchItem(idempotency_key=uuid4().hex, intent=payout(wallet, amount)) for amount in (1, 2, 10**6)]
    front.script.append(CUT_AFTER)
    results = await client.create_intents(items)
    assert [(result.index, result.replayed) for result in results] == [(0, True), (1, True), (2, True)]
    assert [result.intent.amount_minor for result in results if result.intent] == [1, 2, 10**6]


@pytest.mark.parametrize("fault", [CUT_AFTER, problem(401, "replayed_nonce")])
async def test_a_read_whose_answer_is_lost_or_that_a_proxy_sent_twice_is_signed_anew(
    client: FleetClient, front: Front, wallet: UUID, fault: bytes
) -> None:
    await client.get_wallet(wallet)
    front.script.append(fault)
    assert (await client.get_wallet(wallet)).available_minor == 10_000
    nonces = front.headers("Fleet-Nonce")
    assert len(set(nonces)) == len(nonces) == 3


async def test_the_client_waits_as_long_as_the_core_says(client: FleetClient, front: Front, wallet: UUID) -> None:
    front.script.append(problem(503, "unavailable", Retry_After="1"))
    began = time.monotonic()
    await client.create_intent(payout(wallet), idempotency_key=uuid4().hex)
    assert time.monotonic() - began >= 1
    assert len(front.seen) == 2


async def test_a_key_that_is_in_flight_is_asked_for_again(client: FleetClient, front: Front, wallet: UUID) -> None:
    front.script.append(problem(409, "idempotency_in_flight", Retry_After="0"))
    assert (await client.create_intent(payout(wallet), idempotency_key="in flight".replace(" ", "-"))).amount_minor
    assert len(front.seen) == 2


async def test_a_refusal_is_raised_at_once_with_its_code_field_and_remedy(
    client: FleetClient, front: Front, wallet: UUID
) -> None:
    with pytest.raises(Refused) as raised:
        await client.create_intent(payout(uuid4()), idempotency_key=uuid4().hex)
    refused = raised.value.problem
    assert (refused.status, refused.code, refused.field) == (422, "wallet_not_found", "wallet_id")
    assert refused.detail
    front.script.append(problem(409, "wrong_state"))
    with pytest.raises(Refused, match="wrong_state: what to do"):
        await client.cancel_intent(uuid4())
    assert len(front.seen) == 2


async def test_an_answer_that_is_not_the_cores_is_told_apart_from_a_refusal(
    front: Front, stack: Stack, wallet: UUID
) -> None:
    page = answer("200 OK", "<html>welcome</html>", Content_Type="text/html")
    async with FleetClient(front.url, stack.info.key_id, stack.info.key_secret, attempts=2) as client:
        front.script.append(page)
        with pytest.raises(Unreachable, match="not the core's"):
            await client.get_wallet(wallet)
        front.script.extend([answer("502 Bad Gateway", "<html>")] * 2)
        with pytest.raises(Refused, match="not_a_problem") as raised:
            await client.get_wallet(wallet)
        assert raised.value.problem.status == 502
        front.script.extend([CUT_BEFORE] * 9)
        with pytest.raises(Unreachable):
            await client.create_intent(payout(wallet), idempotency_key="k")


async def test_a_wallet_without_an_external_id_is_asked_for_once(client: FleetClient, front: Front) -> None:
    front.script.append(CUT_AFTER)
    with pytest.raises(Unreachable):
        await client.create_wallet(WalletRequest(owner="once", currency="THB"))
    assert len(front.seen) == 1
    front.script.append(CUT_AFTER)
    named = WalletRequest(owner="twice", currency="THB", external_id=uuid4().hex)
    made = await client.create_wallet(named)
    assert len(front.seen) == 3
    assert await client.create_wallet(named) == made


@pytest.mark.parametrize(
    ("skew_s", "code"), [(-290, ""), (290, ""), (-310, "stale_timestamp"), (310, "stale_timestamp")]
)
async def test_a_clock_may_be_five_minutes_off_and_no_more(stack: Stack, skew_s: int, code: str) -> None:
    info = stack.info
    async with FleetClient(info.public_url, info.key_id, info.key_secret, clock=lambda: time.time() + skew_s) as client:
        if not code:
            await client.page_of_intents(limit="1")
            return
        with pytest.raises(Refused, match="NTP") as raised:
            await client.page_of_intents(limit="1")
    assert raised.value.problem.code == code


async def test_pages_are_followed_to_the_end_without_a_gap_or_a_repeat(client: FleetClient, wallet: UUID) -> None:
    items = [BatchItem(idempotency_key=uuid4().hex, intent=payout(wallet, 1 + number)) for number in range(11)]
    made = {result.intent.id for result in await client.create_intents(items) if result.intent}
    listed = [intent async for intent in client.list_intents(wallet_id=str(wallet), limit="4")]
    payouts = [intent.id for intent in listed if intent.operation == "PAYOUT"]
    assert (len(payouts), set(payouts)) == (11, made)
    assert [intent.created_at for intent in listed] == sorted((x.created_at for x in listed), reverse=True)


@pytest.mark.parametrize("reference", ["a/b c+d&e=100%2F;x", "~!*'()[]{}", "?#"])
async def test_a_filter_of_any_signs_is_signed_as_it_is_sent(client: FleetClient, wallet: UUID, reference: str) -> None:
    made = await client.create_intent(payout(wallet, reference=reference), idempotency_key=uuid4().hex)
    found = await client.page_of_intents(reference=reference, wallet_id=str(wallet))
    assert [intent.id for intent in found.items] == [made.id]
