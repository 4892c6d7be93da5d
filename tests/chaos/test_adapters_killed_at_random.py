"""Ten adapters of three rails are killed at random while payments flow, and no book shows a payment twice.

`./dev chaos` sends 5,000 and takes minutes; `./dev test --long` sends fewer. The shortest form, with two adapters, is
`test_adapters_killed_one_after_another_pay_everything_once`, a part of every run.
"""

import asyncio
import os
import random
import tempfile
from itertools import zip_longest
from pathlib import Path

import pytest

from core.store.database import Database
from fleet.client import FleetClient
from fleet.demo.runner import Run
from fleet.stack.stack import StackPlan, running
from tests.chaos.conftest import Fleet, check, kill_adapters, restarts_by_rail

PAYMENTS = int(os.environ.get("FLEET_CHAOS_PAYMENTS", "150"))
SEED = int(os.environ.get("FLEET_CHAOS_SEED", "4"))
RAILS = {"promptpay": 4, "sbp": 3, "bank": 3}
AT_A_TIME = 150
"""What is under way at once: what waits for longer than its deadline, before anything was sent, ends unpaid."""
KILLS = max(5, min(PAYMENTS // 20, 40))
"""More would measure how fast processes start: each costs seconds of a processor that the payments need."""

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
                of_rails = (
                    fleet.payments(third, refused=False),
                    fleet.rouble_payments(third),
                    fleet.bank_payments(PAYMENTS - 2 * third),
                )
                lines = [line for lines in zip_longest(*of_rails) for line in lines if line is not None]
                apart_s = (0.3, 1.0) if PAYMENTS < 1_000 else (1.0, 4.0)
                killing = asyncio.create_task(kill_adapters(fleet, KILLS, random.Random(SEED), apart_s))
                run = Run()
                try:
                    for begin in range(0, PAYMENTS, AT_A_TIME):
                        await fleet.send(lines[begin : begin + AT_A_TIME], run)
                    await fleet.until_decided(run, timeout_s=60 + PAYMENTS / 10)
                    killed = await killing
                finally:
                    killing.cancel()
                await check(fleet, run, PAYMENTS)
                assert all(killed[rail] for rail in RAILS), "adapters of each rail died with payments in their hands"
                # A few may find nothing in flight: what was interrupted before was paid by then.
                assert sum(killed.values()) >= min(10, KILLS * 2 // 3), killed
                restarted = restarts_by_rail(fleet)
                assert all(restarted[rail] >= times for rail, times in killed.items()), (killed, restarted)
                books = (await fleet.proof()).by_rail
                assert {rail: book.payments for rail, book in books.items()} == {
                    "promptpay": third,
                    "sbp": third,
                    "bank": PAYMENTS - 2 * third,
                }
            await database.close()
