"""Adapters of the bank die around their files: every payment is made once, by the one file that it is in."""

import asyncio
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from core.domain.context import Context
from core.store.database import Database
from fleet.client import FleetClient
from fleet.proof import prove
from fleet.stack.stack import StackPlan, running
from schemas.api import BatchItem, IntentRequest, WalletRequest
from schemas.operations import OperationType
from schemas.permits import Payee
from tests.support.selection import mostly_long

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]

PAYMENTS = 40
ENDED = "SELECT count(*) FROM fleet.intents WHERE operation = 'WITHDRAWAL' AND state = 'SETTLED'"


async def made(client: FleetClient) -> UUID:
    wallet = await client.create_wallet(WalletRequest(owner="bank", currency="THB", external_id=uuid4().hex))
    fund = IntentRequest(
        operation=OperationType.MANUAL_ADJUSTMENT, wallet_id=wallet.id, amount_minor=1_000_000, currency="THB"
    )
    await client.create_intent(fund, idempotency_key=uuid4().hex)
    return wallet.id


def withdrawal(wallet: UUID, number: int) -> BatchItem:
    intent = IntentRequest(
        operation=OperationType.WITHDRAWAL,
        wallet_id=wallet,
        amount_minor=100 + number,
        currency="THB",
        payee=Payee(type="bank_account", value=f"004-{10**9 + number}"),
    )
    return BatchItem(idempotency_key=uuid4().hex, intent=intent)


@pytest.mark.parametrize(
    "failpoint",
    mostly_long(["adapter.during_call", "adapter.after_call", "adapter.after_publish"], "adapter.after_publish"),
)
async def test_a_bank_adapter_that_dies_around_its_file_pays_everybody_once(tmp_path: Path, failpoint: str) -> None:
    async with running(StackPlan(tmp_path, rails={"bank": 2}, failpoints=True)) as stack:
        info = stack.info
        database = await Database.connect(info.database_url, max_size=2, application_name="chaos")
        async with FleetClient(info.public_url, info.key_id, info.key_secret) as client:
            wallet = await made(client)
            for part in range(2):
                stack.arm(failpoint)
                numbers = range(part * PAYMENTS // 2, (part + 1) * PAYMENTS // 2)
                await client.create_intents([withdrawal(wallet, number) for number in numbers])
                await asyncio.sleep(1)
        try:
            async with asyncio.timeout(120):
                settled = 0
                while settled < PAYMENTS:
                    await asyncio.sleep(0.5)
                    async with database.unit_of_work(Context(None, "chaos")) as uow:
                        settled = await uow.connection.fetchval(ENDED)
            proof = await prove(database, await stack.booked())
        finally:
            await database.close()
        assert stack.supervisor.restarts.total() >= 1, "nothing was killed"
    assert proof.holds, proof
    assert proof.booked == PAYMENTS
