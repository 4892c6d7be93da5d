"""No room left on the disk of PostgreSQL, Valkey and the logs: new work is refused, and what was taken is finished."""

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from core.store.database import Database
from fleet.client import FleetClient, Refused, Unreachable
from fleet.stack.stack import StackPlan, running
from schemas.api import WalletRequest
from tests.chaos.conftest import Fleet, check

pytestmark = [pytest.mark.long, pytest.mark.chaos]

_DISK_MIB = 512


@contextmanager
def small_disk() -> Iterator[Path]:
    """A disk of its own in memory. Skips where this user may not mount one."""
    home = Path(tempfile.mkdtemp(prefix="fleet-disk-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m,mode=755", "tmpfs", str(home)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        home.rmdir()
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield home
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)
        home.rmdir()


def fill(disk: Path) -> Path:
    """Leave no room at all; removing the file gives it back."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return ballast


@pytest.fixture
def home() -> Iterator[tuple[Path, Path]]:
    """A stack's folder and the small disk that its servers and logs write to."""
    with small_disk() as disk, tempfile.TemporaryDirectory(prefix="fleet-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user, who has to pass through
        for part in ("postgres", "valkey", "logs"):
            (disk / part).mkdir()
            (folder / part).symlink_to(disk / part)
        yield folder, disk


@asynccontextmanager
async def fleet_in(folder: Path) -> AsyncIterator[Fleet]:
    async with running(StackPlan(folder, provider_latency_ms=40)) as stack:
        info = stack.info
        database = await Database.connect(info.database_url, max_size=2, application_name="chaos")
        async with FleetClient(info.public_url, info.key_id, info.key_secret, attempts=60) as client:
            yield Fleet(stack, client, database)
        await database.close()


@pytest.mark.timeout(240)
async def test_a_full_disk_refuses_new_work_and_loses_none_that_was_taken(home: tuple[Path, Path]) -> None:
    folder, disk = home
    async with fleet_in(folder) as fleet:
        await check(fleet, await fleet.pay(20), 20)
        task = asyncio.create_task(fleet.pay(40))
        await until_accepted(fleet, 60)
        ballast = fill(disk)
        # Where PostgreSQL could not even write its log ahead, it stops, and the core says that it is away.
        refused_by = await until_refused(fleet)
        assert refused_by in ("storage_full", "unavailable")
        if refused_by == "storage_full":
            await read_signed(fleet)
        await asyncio.sleep(2)
        ballast.unlink()
        await until_back(fleet)
        await check(fleet, await task, 40)


async def until_accepted(fleet: Fleet, payments: int, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        async with fleet.database.acquire() as connection:
            if await connection.fetchval("SELECT count(*) FROM fleet.intents WHERE operation = 'PAYOUT'") >= payments:
                return
        await asyncio.sleep(0.02)
    raise AssertionError("the payments were not accepted")


async def until_refused(fleet: Fleet, timeout_s: float = 30) -> str:
    """Ask for something new until it is refused; return the code."""
    deadline = time.monotonic() + timeout_s
    info = fleet.stack.info
    async with FleetClient(info.public_url, info.key_id, info.key_secret, attempts=1) as hasty:
        while time.monotonic() < deadline:
            try:
                await hasty.create_wallet(WalletRequest(currency="THB", owner=f"filler-{time.monotonic_ns()}"))
            except Refused as refused:
                return refused.problem.code
            except Unreachable:
                return "unavailable"
            await asyncio.sleep(0.1)
    raise AssertionError("a full disk refused nothing")


async def read_signed(fleet: Fleet) -> None:
    """Read by signed calls where nothing can be written: a list, and one of its payments."""
    info = fleet.stack.info
    async with FleetClient(info.public_url, info.key_id, info.key_secret, attempts=1) as reader:
        page = await reader.page_of_intents()
        assert len(page.items) >= 60
        assert (await reader.get_intent(page.items[0].id)).id == page.items[0].id


async def until_back(fleet: Fleet) -> None:
    """Start PostgreSQL where it gave up: what an operator does once there is room."""
    postgres = fleet.stack.postgres
    assert postgres is not None
    await asyncio.sleep(2)
    try:
        os.kill(postgres.pid, 0)
    except ProcessLookupError:
        postgres.restart()
