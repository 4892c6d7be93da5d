"""Ten adapters of three rails are killed at random while payments flow, and no book shows a payment twice.

`./dev chaos` sends 5,000 and takes minutes; `./dev test --long` sends fewer. The shortest form, with two adapters, is
`test_adapters_killed_one_after_another_pay_everything_once`, a part of every run.
"""

import asyncio
import os
import random
import tempfile
from pathlib import Path

import pytest

from core.store.database import Database
from fleet.client import FleetClient
from fleet.stack.stack import StackPlan, running
from tests.chaos.conftest import Fleet, check, kill_adapters, restarts_by_rail

PAYMENTS = int(os.environ.get("FLEET_CHAOS_PAYMENTS", "150"))
SEED = int(os.environ.get("FLEET_CHAOS_SEED", "4"))
RAILS = {"promptpay": 4, "sbp": 3, "bank": 3}

pytestmark = [pytest.mark.chaos, pytest.mark.long]


@pytest.mark.timeout(180 + PAYMENTS)
async def test_ten_adapters_killed_at_random_pay_everything_once_on_every_rails_book() -> None:
    with tempfile.TemporaryDirectory(prefix="fleet-kills-") as home:
        plan = StackPlan(Path(home), rails=RAILS, provider_latency_ms=40)
        async with running(plan) as stack:
            info = stack.info
            database = await Database.connect(info.database_url, max_size=2, application_name="chaos")
            async with FleetClient(info.public_url, info.key_id, info.key_secret, attempts=40) as client:
                fleet = Fleet(stack, client, database)
                third = PAYMENTS // 3
                lines = [
                    *fleet.payments(third, refused=False),
                    *fleet.rouble_payments(third),
                    *fleet.bank_payments(PAYMENTS - 2 * third),
                ]
                times = max(5, PAYMENTS // 20)
                killing = asyncio.create_task(kill_adapters(fleet, times, random.Random(SEED)))
                try:
                    run = await fleet.send(lines)
                    await fleet.until_decided(run, timeout_s=60 + PAYMENTS / 10)
                    killed = await killing
                finally:
                    killing.cancel()
                await check(fleet, run, PAYMENTS)
                assert all(killed[rail] for rail in RAILS), "adapters of each rail died with payments in their hands"
                assert sum(killed.values()) >= min(10, times), killed
                restarted = restarts_by_rail(fleet)
                assert all(restarted[rail] >= times for rail, times in killed.items()), (killed, restarted)
                books = (await fleet.proof()).by_rail
                assert {rail: book.payments for rail, book in books.items()} == {
                    "promptpay": third,
                    "sbp": third,
                    "bank": PAYMENTS - 2 * third,
                }
            await database.close()
