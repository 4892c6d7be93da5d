"""A redrive whose process is killed again and again acts upon each letter once, and ends."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import pytest

from core.services.on_call.audit import prove
from core.services.settling.close_job import RACES
from core.services.settling.settle import settle_batch
from fleet.stack.provision import RoleUrls
from tests.integration.oncall.test_redrives import FAST, ask, dead, run, shown
from tests.integration.permits.conftest import World, pay_job

ROOT = Path(__file__).parents[3]
NINE = (
    "redrive.taken=kill", "redrive.put_back=kill", "redrive.letters_closed=kill", "redrive.finished=kill",
    "redrive.journalled=kill", "redrive.observed=kill", "redrive.before_commit=kill@2", "redrive.canary_passed=kill",
    "redrive.after_commit=kill",
)  # fmt: skip
"""Every point of a letter whose job is sent anew; the tenth is that of a result which is settled anew, below."""
THREE = ("redrive.put_back=kill", "redrive.before_commit=kill@2", "redrive.after_commit=kill")


@pytest.mark.timeout(400)  # ten processes one after another: on a busy machine the start of each takes many seconds
@pytest.mark.parametrize("points", [THREE, pytest.param(NINE, marks=pytest.mark.long)], ids=["three", "nine"])
async def test_killed_at_any_point_each_letter_goes_once(
    world: World, fresh_database: RoleUrls, points: tuple[str, ...]
) -> None:
    # At one a second there is always something left for the next process to be killed at.
    letters = 20 + 6 * len(points)
    await dead(world, letters)
    view = await ask(world, dry_run=False, canary=2, ramp_s=0, rate_per_s=1)
    settings = _settings(world, fresh_database)
    enough = asyncio.Event()
    answering = asyncio.create_task(_answer(world.admin, enough))
    for armed in points:
        assert await _ended(settings | {"FLEET_FAILPOINTS": armed}) == -signal.SIGKILL, armed
    enough.set()
    await answering
    await world.admin.execute("UPDATE fleet.redrives SET rate_per_s = 5000")
    await world.admin.execute(_ANSWER)
    assert await _ended(settings) == 0
    rounds = await world.admin.fetch("SELECT rounds, count(*) AS jobs FROM fleet.jobs GROUP BY rounds")
    assert {row["rounds"]: row["jobs"] for row in rounds} == {1: letters}
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.outbox WHERE round = 1") == letters
    await world.admin.execute("UPDATE fleet.jobs SET state = 'CLOSED', closed_at = now(), outcome = 'test'")
    await run(world)
    done = await shown(world, view.id)
    assert (done.state, done.progress.succeeded, done.progress.failed) == ("DONE", letters, 0)
    async with world.uow() as uow:
        assert (await prove(uow, world.core.worker_ports.journal, None)).faults == []


async def test_killed_while_a_result_is_settled_anew_its_money_moves_once(
    world: World, fresh_database: RoleUrls
) -> None:
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    paid = world.fact(pay_job(intent), "SUCCEEDED", provider_tx_id="T1")
    await settle_batch(world.core.worker_ports, world.losing(RACES), [paid])
    view = await ask(world, selection={"error_class": "settlement_failed"}, **FAST)
    settings = _settings(world, fresh_database)
    for _ in range(2):
        assert await _ended(settings | {"FLEET_FAILPOINTS": "redrive.before_result_commit=kill"}) == -signal.SIGKILL
        assert ((await world.state(intent))[0], await world.money(wallet)) == ("AUTHORIZED", (1000, 100))
    assert await _ended(settings) == 0
    await run(world)
    assert (await shown(world, view.id)).progress.succeeded == 1
    assert (await world.state(intent), await world.money(wallet)) == (("SETTLED", None), (900, 0))
    await world.prove()


def test_every_point_that_the_code_has_is_armed() -> None:
    source = (ROOT / "core/services/on_call/run_redrives.py").read_text()
    armed = {point.partition("=")[0] for point in NINE} | {"redrive.before_result_commit"}
    assert set(re.findall(r'failpoint\("([^"]+)"\)', source)) == armed
    assert len(armed) == 10


def _settings(world: World, urls: RoleUrls) -> dict[str, str]:
    return {
        "DATABASE_URL": urls.app, "DATABASE_WORKER_URL": urls.worker, "REDIS_URL": "redis://127.0.0.1:1/0",
        "FLEET_MASTER_KEY": world.core.settings.master_key.get_secret_value(), "FLEET_DB_POOL_SIZE": "2",
    }  # fmt: skip


_ANSWER = "UPDATE fleet.jobs SET state = 'WAITING' WHERE state = 'READY' AND rounds = 1"


async def _ended(settings: Mapping[str, str]) -> int:
    """Run a process until it ends; return how."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.oncall.redrive_process", cwd=ROOT, env=os.environ | dict(settings)
    )
    return await asyncio.wait_for(process.wait(), 120)


async def _answer(admin: asyncpg.Connection, enough: asyncio.Event) -> None:
    """Let the canary's letters be answered, so that the rest may go."""
    while not enough.is_set():
        await admin.execute(_ANSWER)
        await asyncio.sleep(0.05)
