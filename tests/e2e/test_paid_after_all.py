"""A provider declines a payout, and pays it after all: its callback makes the core ask, and suspense pays."""

from uuid import uuid4

import asyncpg
import httpx
import pytest

from fleet.client import FleetClient
from fleet.stack.stack import Stack
from schemas.api import AutoConfirm, IntentRequest, WalletRequest
from schemas.events import IntentState
from schemas.operations import OperationType
from schemas.permits import Payee
from tests.e2e.test_sbp_money_in import until
from tests.support.waiting import until_async

RAILS = {
    "promptpay": ("THB", Payee(type="mobile", value="0811114444"), "transfers"),
    "sbp": ("RUB", Payee(type="phone_bank", value="79161114444@100000000004"), "payouts"),
}
AMOUNT_MINOR = 41_37


@pytest.mark.parametrize("rail", RAILS)
async def test_a_payout_that_was_declined_and_is_paid_after_all_is_asked_about_and_paged(
    stack: Stack, rail: str
) -> None:
    info, (currency, payee, things), name = stack.info, RAILS[rail], uuid4().hex
    database = await asyncpg.connect(info.database_url)
    provider = httpx.AsyncClient(base_url=info.providers[rail], trust_env=False)
    async with FleetClient(info.public_url, info.key_id, info.key_secret) as client, provider:
        script = {"fault": "declined", "amount_minor": AMOUNT_MINOR, "times": 1}
        assert (await provider.post("/_control/faults", json=script)).is_success
        wallet = await client.create_wallet(WalletRequest(owner=name, currency=currency, external_id=name))
        put = IntentRequest(
            operation=OperationType.MANUAL_ADJUSTMENT, wallet_id=wallet.id, amount_minor=100_00, currency=currency
        )
        await client.create_intent(put, idempotency_key=f"put-{name}")
        asked = IntentRequest(
            operation=OperationType.PAYOUT, wallet_id=wallet.id, amount_minor=AMOUNT_MINOR, currency=currency,
            payee=payee, auto_confirm=AutoConfirm(max_fee_minor=0),
        )  # fmt: skip
        intent = await client.create_intent(asked, idempotency_key=name)
        await until(client, intent.id, IntentState.FAILED)
        find = "SELECT reference FROM fleet.jobs WHERE intent_id = $1 AND kind = 'pay'"
        reference = await database.fetchval(find, intent.id)
        assert (await provider.post(f"/_control/{things}/{reference}/overturn", json={})).is_success

        async def kinds() -> set[str]:
            rows = await database.fetch("SELECT kind FROM fleet.alerts WHERE intent_id = $1", intent.id)
            return {row["kind"] for row in rows}

        async def is_paged() -> bool:
            return "success_after_void" in await kinds()

        await until_async(is_paged)
        assert await kinds() == {"end_doubted", "success_after_void"}
        assert (await client.get_intent(intent.id)).state == IntentState.FAILED
        moved = "SELECT amount_minor FROM fleet.transfers WHERE user_data = $1 AND flags & 10 = 0"
        assert await database.fetchval(moved, intent.id) == AMOUNT_MINOR, "suspense paid what the provider paid"
        assert (await client.get_wallet(wallet.id)).posted_minor == 100_00
    await database.close()
