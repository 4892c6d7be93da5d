"""Money out and in by the bank, through every process of a stack: client, core, streams, adapter, mock-bank."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from fleet.client import FleetClient
from fleet.stack.stack import Stack
from schemas.api import IntentRequest, IntentView, WalletRequest
from schemas.events import IntentState
from schemas.mandates import MANDATE_PAYEE, MandateDetail, MandateRequest
from schemas.operations import OperationType
from schemas.permits import Payee
from tests.support.bank import RunningBank

ACCOUNT = Payee(type="bank_account", value="004-0123456789")
_WITHIN_S = 40


@pytest.fixture
def bank(stack: Stack) -> RunningBank:
    [url] = [place.url for place in stack._places if place.rail == "bank"]
    return RunningBank(url)


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[FleetClient]:
    async with FleetClient(stack.info.public_url, stack.info.key_id, stack.info.key_secret) as client:
        yield client


@pytest.fixture
async def wallet(client: FleetClient) -> UUID:
    made = await client.create_wallet(WalletRequest(owner="bank", currency="THB", external_id=uuid4().hex))
    await ask(client, made.id, OperationType.MANUAL_ADJUSTMENT, 10_000)
    return made.id


async def ask(
    client: FleetClient, wallet: UUID, operation: OperationType, amount_minor: int, payee: Payee | None = None
) -> IntentView:
    intent = IntentRequest(
        operation=operation, wallet_id=wallet, amount_minor=amount_minor, currency="THB", payee=payee
    )
    return await client.create_intent(intent, idempotency_key=uuid4().hex)


Look = Callable[[], Awaitable[Any]]


async def until(look: Look, wanted: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(_WITHIN_S):
        while not wanted(found := await look()):  # noqa: ASYNC110 - bounded by the time-out
            await asyncio.sleep(0.1)
    return found


async def until_settled(client: FleetClient, intent: UUID) -> None:
    await until(lambda: client.get_intent(intent), lambda view: view.state == IntentState.SETTLED)


async def until_balance(client: FleetClient, wallet: UUID, available_minor: int) -> None:
    await until(lambda: client.get_wallet(wallet), lambda view: view.available_minor == available_minor)


async def test_each_payment_of_a_deposits_reference_is_credited_with_what_the_account_shows(
    client: FleetClient, wallet: UUID, bank: RunningBank
) -> None:
    # It comes before those, of any file, that turn the bank's clock on: what is paid after the last day is late.
    made = await ask(client, wallet, OperationType.DEPOSIT, 4_000)
    shown = await until(lambda: client.get_intent(made.id), lambda view: view.next_action is not None)
    reference = orjson.loads(shown.next_action.payload)["reference"]
    pays = {"account": "FLEET", "amount": 4_000, "reference": reference, "debtor": {"name": "Anong P."}}
    await asyncio.to_thread(bank.ask, "POST", "/_mock/credits", **pays)
    await until_settled(client, made.id)
    await until_balance(client, wallet, 14_000)
    await asyncio.to_thread(bank.ask, "POST", "/_mock/credits", **pays)
    # The reference may be paid again and again: the statement tells of each, and each is a credit of its own.
    await until_balance(client, wallet, 18_000)
    further = [each async for each in client.list_intents(wallet_id=str(wallet)) if each.id != made.id]
    assert [each.amount_minor for each in further if each.operation is OperationType.DEPOSIT] == [4_000]


async def test_a_withdrawal_is_paid_and_comes_back_to_its_wallet_when_the_bank_returns_it(
    client: FleetClient, wallet: UUID, bank: RunningBank
) -> None:
    await asyncio.to_thread(bank.behave, "return-later", days=1, reason="AC04")
    try:
        made = await ask(client, wallet, OperationType.WITHDRAWAL, 2_500, ACCOUNT)
        await until_settled(client, made.id)
        await until_balance(client, wallet, 7_500)
        await asyncio.to_thread(bank.advance, 7)
        await until_balance(client, wallet, 10_000)
        [back] = [each async for each in client.list_intents(original_intent_id=str(made.id))]
        assert (back.operation, back.amount_minor) == (OperationType.REFUND, 2_500)
        # The bank's pacs.004 says why, and both the payment and what booked its return show it.
        for shown in (made.id, back.id):
            view = await until(partial(client.get_intent, shown), _is_announced)
            assert (view.returned.announced_minor, view.returned.booked_minor) == (2_500, 2_500)
            assert (view.returned.reason, view.returned.provider_reason) == ("account_closed", "AC04")
    finally:
        await asyncio.to_thread(bank.behave, "accept")


def _is_announced(view: IntentView) -> bool:
    return view.returned is not None and view.returned.announced_minor > 0


async def sign_mandate(client: FleetClient, wallet: UUID) -> str:
    """Keep a mandate to debit Somchai for a wallet; return its id."""
    mandate = MandateRequest(
        mandate_id=f"MANDATE-{uuid4().hex[:8].upper()}",
        wallet_id=wallet,
        signed_on=date(2026, 1, 5),
        debtor_account="004-0123456789",
        debtor_name="Somchai Jaidee",
    )
    await client.call("POST", "/v1/mandates", MandateDetail, body=mandate)
    return mandate.mandate_id


async def pulled(bank: RunningBank, mandate_id: str) -> str:
    """Wait until the bank has the collection that names the mandate; return its end-to-end id."""

    async def look() -> list[dict[str, Any]]:
        known = await asyncio.to_thread(bank.ask, "GET", "/_mock/collections")
        return [each for each in known if mandate_id in str(each)]

    [collection] = await until(look, bool)
    return str(collection["end_to_end_id"])


async def test_a_direct_debit_is_credited_on_its_day_and_taken_back_with_its_reason(
    client: FleetClient, wallet: UUID, bank: RunningBank
) -> None:
    mandate_id = await sign_mandate(client, wallet)
    named = Payee(type=MANDATE_PAYEE, value=mandate_id)
    made = await ask(client, wallet, OperationType.DIRECT_DEBIT, 1_234, named)
    reference = await pulled(bank, mandate_id)
    await asyncio.to_thread(bank.advance, 7)
    await until_settled(client, made.id)
    await until_balance(client, wallet, 11_234)
    # Its payer has it taken back: the entry takes it out of the wallet, and the pacs.004 beside it says why.
    await asyncio.to_thread(bank.ask, "POST", f"/_mock/collections/{reference}/refuse", reason="MD06")
    await until_balance(client, wallet, 10_000)
    view = await until(partial(client.get_intent, made.id), _is_announced)
    assert (view.returned.booked_minor, view.returned.announced_minor) == (1_234, 1_234)
    assert (view.returned.reason, view.returned.provider_reason) == ("refund_asked", "MD06")
