"""A top-up by SBP, as a client, its payer and the payer's bank live it: code, payment, callback, credit."""

import asyncio
from uuid import UUID, uuid4

import httpx

from fleet.client import FleetClient
from fleet.stack.stack import Stack
from schemas.api import IntentRequest, IntentView, WalletRequest
from schemas.codes.nspk_link import verify_link
from schemas.events import IntentState
from schemas.operations import OperationType
from tests.support.waiting import PATIENCE_S, until_async


async def until(client: FleetClient, intent_id: UUID, *states: IntentState) -> IntentView:
    """Wait for a state, or for what the payer is shown."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            intent = await client.get_intent(intent_id)
            if intent.state in states or (not states and intent.next_action is not None):
                return intent
            await asyncio.sleep(0.05)


async def topup(client: FleetClient, operation: OperationType = OperationType.TOPUP) -> IntentView:
    """Ask for 20 roubles into a new wallet; return what the payer is shown."""
    name = uuid4().hex
    wallet = await client.create_wallet(WalletRequest(owner=name, currency="RUB", external_id=name))
    request = IntentRequest(operation=operation, wallet_id=wallet.id, amount_minor=2_000, currency="RUB")
    asked = await client.create_intent(request, idempotency_key=name)
    return await until(client, asked.id)


async def pay(stack: Stack, intent: IntentView, **how: object) -> None:
    """Play the payer at the provider, who knows the link alone."""
    assert intent.next_action is not None
    code = verify_link(intent.next_action.payload).qrc_id
    async with httpx.AsyncClient(base_url=stack.info.providers["sbp"], trust_env=False) as provider:
        done = await provider.post(f"/_control/orders/{code}/pay", json=how)
    assert done.is_success, done.text


async def test_a_topup_shows_a_genuine_link_and_its_callback_credits_the_wallet_once(stack: Stack) -> None:
    info = stack.info
    async with FleetClient(info.public_url, info.key_id, info.key_secret) as client:
        shown = await topup(client)
        assert shown.next_action is not None
        link = verify_link(shown.next_action.payload)
        assert (link.type, link.amount_minor, link.currency) == ("02", 2_000, "RUB")
        # Twice, and with a transaction that nobody signed: the order is read again, and credited once.
        await pay(stack, shown, times=2, changed={"transactionId": "STOLEN"})
        settled = await until(client, shown.id, IntentState.SETTLED)
        wallet = await client.get_wallet(settled.wallet_id)
        assert (wallet.posted_minor, wallet.held_minor) == (2_000, 0)


async def test_a_forged_callback_credits_nothing_and_another_amount_rests_in_suspense(stack: Stack) -> None:
    info = stack.info
    async with FleetClient(info.public_url, info.key_id, info.key_secret) as client:
        forged, differs = await topup(client), await topup(client, OperationType.DEPOSIT)
        await pay(stack, forged, forged=True, status="IN_PROGRESS", changed={"paymentStatus": "SUCCESS"})
        await pay(stack, differs, amount="19.99")
        failed = await until(client, differs.id, IntentState.FAILED)
        assert failed.failure is not None
        assert failed.failure.code == "amount_differs"
        open_still = await client.get_intent(forged.id)
        assert open_still.state not in (IntentState.SETTLED, IntentState.FAILED)
        for each in (forged, differs):
            assert (await client.get_wallet(each.wallet_id)).posted_minor == 0


async def test_each_payment_of_a_static_code_is_a_credit_of_its_own_and_a_callback_told_twice_is_one(
    stack: Stack,
) -> None:
    info = stack.info
    async with FleetClient(info.public_url, info.key_id, info.key_secret) as client:
        shown = await topup(client, OperationType.DEPOSIT)
        # The first one's callback comes last, the second one's twice: of one amount, all three.
        await pay(stack, shown, delay_s=1.0)
        await pay(stack, shown, times=2)
        await pay(stack, shown)

        async def all_are_there() -> bool:
            return (await client.get_wallet(shown.wallet_id)).posted_minor >= 6_000

        await until_async(all_are_there)
        await asyncio.sleep(1.2)  # for the callback that comes last
        assert (await client.get_wallet(shown.wallet_id)).posted_minor == 6_000
