"""Each operation type is asked for on a running stack and settles there, by its rail or by none; the books hold."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx

from fleet.client import FleetClient
from fleet.stack.stack import Stack
from schemas.api import IntentRequest, IntentView, WalletRequest
from schemas.events import IntentState
from schemas.exchange import PairRequest, PairView, QuoteRequest, RateList, RateRequest, RatesRequest
from schemas.mandates import MANDATE_PAYEE
from schemas.operations import OperationType
from tests.e2e.test_bank import pulled, sign_mandate
from tests.e2e.test_sbp_money_in import pay, topup, until
from tests.support.bank import RunningBank
from tests.support.commands import Fleet

SCOPES = "*,MANUAL_ADJUSTMENT,ADJUSTMENT_ALONE,MINIAPP_CHARGE,RATES,LIQUIDITY"
FUNDS_MINOR, AMOUNT_MINOR = 100_000, 1_000
PAID_OUT = {
    "PAYOUT": {"type": "mobile", "value": "0812345678"},
    "WITHDRAWAL": {"type": "bank_account", "value": "004-0123456789"},
    "BILL_PAYMENT": {"type": "bill", "value": "099400016550100:123456789012:670429"},
}


async def ask(client: FleetClient, operation: str, wallet: UUID, **more: Any) -> IntentView:
    """Ask for 10 baht, with no more of a provider's fee than none."""
    asked = {"operation": operation, "wallet_id": wallet, "amount_minor": AMOUNT_MINOR, "currency": "THB"} | more
    return await client.create_intent(IntentRequest.model_validate(asked), idempotency_key=uuid4().hex)


async def funded(client: FleetClient, currency: str = "THB") -> UUID:
    """Open a wallet of Anna's with money in it."""
    made = await client.create_wallet(WalletRequest(owner="anna", currency=currency, external_id=uuid4().hex))
    await ask(client, "MANUAL_ADJUSTMENT", made.id, amount_minor=FUNDS_MINOR, currency=currency)
    return made.id


async def exchanged(client: FleetClient) -> IntentView:
    """Let the house have yen, and buy some of them."""
    dollars, yen = await funded(client, "SGD"), await funded(client, "JPY")
    await ask(client, "MANUAL_ADJUSTMENT", yen, amount_minor=50_000, currency="JPY", direction="TO_LIQUIDITY")
    pair = {"base": "SGD", "counter": "JPY"}
    terms = PairRequest.model_validate(pair | {"spread_basis_points": 10, "rate_max_age_s": 600})
    await client.call("POST", "/v1/exchange-pairs", PairView, body=terms)
    told = RatesRequest(rates=[RateRequest.model_validate(pair | {"rate": "114.2", "source": "desk"})])
    await client.call("POST", "/v1/rates", RateList, body=told)
    quote = await client.create_quote(
        QuoteRequest(
            wallet_id=dollars,
            counterparty_wallet_id=yen,
            from_currency="SGD",
            to_currency="JPY",
            amount_minor=AMOUNT_MINOR,
        )
    )
    return await client.exchange(quote, idempotency_key=uuid4().hex)


async def topped_up(client: FleetClient, stack: Stack, wallet: UUID) -> IntentView:
    """Pay the code that PromptPay's provider shows."""
    shown = await until(client, (await ask(client, "TOPUP", wallet)).id)
    assert shown.next_action is not None
    async with httpx.AsyncClient(base_url=stack.info.providers["promptpay"], trust_env=False) as provider:
        codes = (await provider.get("/_control/codes")).json()["codes"]
        (code,) = [each["client_ref"] for each in codes if each["payload"] == shown.next_action.payload]
        await provider.post("/_control/pay", json={"reference": code})
    return shown


async def debited(client: FleetClient, stack: Stack, wallet: UUID) -> IntentView:
    """Pull by a mandate, and let the bank's days pass until the account shows it."""
    mandate_id = await sign_mandate(client, wallet)
    payee = {"type": MANDATE_PAYEE, "value": mandate_id}
    made = await ask(client, "DIRECT_DEBIT", wallet, payee=payee)
    bank = RunningBank(stack.info.providers["bank"])
    await pulled(bank, mandate_id)
    await asyncio.to_thread(bank.advance, 7)
    return made


async def test_each_of_the_twelve_operation_types_settles_and_the_books_hold(stack: Stack, fleet: Fleet) -> None:
    key = (await fleet("keys", "create", "--name", "twelve", "--operations", SCOPES, "--json")).document
    async with FleetClient(stack.info.public_url, key["key_id"], key["secret"]) as client:
        anna, shop = await funded(client), await funded(client)
        to_shop = {"counterparty_wallet_id": shop}
        paid = await ask(client, "INTERNAL_P2P", anna, **to_shop)
        asked = [
            paid,
            await ask(client, "REFUND", shop, original_intent_id=paid.id),
            await ask(client, "MINIAPP_CHARGE", anna, **to_shop),
            await ask(client, "MINIAPP_CREDIT", anna, **to_shop),
            await ask(client, "MANUAL_ADJUSTMENT", anna),
            await exchanged(client),
            await topped_up(client, stack, anna),
            await debited(client, stack, anna),
            await topup(client, OperationType.DEPOSIT),
        ]
        await pay(stack, asked[-1])
        for operation, payee in PAID_OUT.items():
            asked.append(await ask(client, operation, anna, payee=payee, auto_confirm={"max_fee_minor": 0}))
        async with asyncio.timeout(120):
            ended = [await until(client, each.id, IntentState.SETTLED, IntentState.FAILED) for each in asked]
    assert [(each.operation, each.failure) for each in ended if each.state != IntentState.SETTLED] == []
    assert {each.operation for each in ended} == set(OperationType)
    assert (await fleet("ledger", "verify")).code == 0
