"""A redrive whose process is killed again and again acts upon each letter once, and ends."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import pytest

from core.services.on_call.audit import prove
from fleet.stack.provision import RoleUrls
from tests.integration.oncall.test_redrives import ask, dead, run, shown
from tests.integration.permits.conftest import World

ROOT = Path(__file__).parents[3]
TEN = (
    "redrive.taken=kill", "redrive.put_back=kill", "redrive.finished=kill", "redrive.before_commit=kill@2",
    "redrive.canary_passed=kill", "redrive.after_commit=kill", "redrive.taken=kill@2", "redrive.put_back=kill@2",
    "redrive.finished=kill@2", "redrive.before_commit=kill@2",
)  # fmt: skip
THREE = ("redrive.put_back=kill", "redrive.before_commit=kill@2", "redrive.after_commit=kill")


@pytest.mark.parametrize("points", [THREE, pytest.param(TEN, marks=pytest.mark.long)], ids=["three", "ten"])
async def test_killed_at_any_point_each_letter_goes_once(
    world: World, fresh_database: RoleUrls, points: tuple[str, ...]
) -> None:
    # At one a second there is always something left for the next process to be killed at.
    letters = 20 + 6 * len(points)
    await dead(world, letters)
    view = await ask(world, dry_run=False, canary=2, ramp_s=0, rate_per_s=1)
    secret = world.core.settings.master_key.get_secret_value()
    settings = {
        "DATABASE_URL": fresh_database.app, "DATABASE_WORKER_URL": fresh_database.worker,
        "REDIS_URL": "redis://127.0.0.1:1/0", "FLEET_MASTER_KEY": secret, "FLEET_DB_POOL_SIZE": "2",
    }  # fmt: skip
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


_ANSWER = "UPDATE fleet.jobs SET state = 'WAITING' WHERE state = 'READY' AND rounds = 1"


async def _ended(settings: Mapping[str, str]) -> int:
    """Run a process until it ends; return how."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.oncall.redrive_process", cwd=ROOT, env=os.environ | dict(settings)
    )
    return await asyncio.wait_for(process.wait(), 60)


async def _answer(admin: asyncpg.Connection, enough: asyncio.Event) -> None:
    """Let the canary's letters be answered, so that the rest may go."""
    while not enough.is_set():
        await admin.execute(_ANSWER)
        await asyncio.sleep(0.05)
