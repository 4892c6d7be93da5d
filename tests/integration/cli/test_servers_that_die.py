"""A server that is absent, or dies in the middle of a command, is one line with the remedy and exit code 4."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from fleet.stack.postgres import EmbeddedPostgres
from fleet.stack.processes import free_port
from fleet.stack.provision import RoleUrls, Secrets, create_database, provision
from fleet.stack.valkey import EmbeddedValkey
from tests.support.commands import Done, Fleet
from tests.support.servers import scratch_directory

ANY_ID = "018f8c2e-7d1a-7c3b-9e54-2b6f1d0a9c11"
ON_POSTGRES = [
    ("ledger", "verify"),
    ("keys", "list"),
    ("keys", "create", "--name", "n"),
    ("keys", "rotate", "fk_x"),
    ("keys", "revoke", "fk_x"),
    ("routes", "list"),
    ("routes", "set", "PAYOUT", "THB", "noop"),
    ("routes", "disable", "PAYOUT", "THB"),
    ("recover", "--reason", "r"),
    ("streams", "status"),
]
LOCKED = {
    "ledger": "accounts", "keys": "service_keys, fleet.tenants",
    "routes": "routes, fleet.tenants", "recover": "jobs",
    "streams": "rail_registrations",
}  # fmt: skip


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


@pytest.fixture(scope="module")
async def postgres(home: Path) -> AsyncIterator[tuple[EmbeddedPostgres, RoleUrls]]:
    server = EmbeddedPostgres(home / "postgres")
    server.start()
    yield server, await provision(await create_database(server.admin_url, "fleet"), Secrets.generate())
    server.stop()


@pytest.fixture(scope="module")
def valkey(home: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(home / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("arguments", ON_POSTGRES, ids=" ".join)
async def test_an_absent_postgresql_is_named_with_its_setting(
    fleet: Fleet, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_WORKER_URL", f"postgresql://fleet_worker:x@127.0.0.1:{free_port()}/fleet")
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    assert "DATABASE_WORKER_URL" in (await fleet(*arguments)).must_fail(4, "server_unreachable")


async def test_an_absent_redis_is_named_with_its_setting(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    assert "REDIS_URL" in (await fleet("streams", "status", "--rail", "noop")).must_fail(4, "server_unreachable")


async def test_an_absent_core_is_named_with_its_address_and_the_key_to_repeat_under(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for name, value in (("FLEET_URL", url), ("FLEET_KEY_ID", "fk_x"), ("FLEET_KEY_SECRET", "s")):
        monkeypatch.setenv(name, value)
    done = await fleet("intents", "create", "--wallet", ANY_ID, "--amount", "1", "--key", "order-7")
    line = done.must_fail(4, "core_unreachable")
    assert url in line
    assert "--key order-7" in line


@pytest.mark.parametrize("arguments", ON_POSTGRES, ids=" ".join)
async def test_postgresql_dying_in_the_middle_is_one_line(
    fleet: Fleet,
    arguments: tuple[str, ...],
    postgres: tuple[EmbeddedPostgres, RoleUrls],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, urls = postgres
    monkeypatch.setenv("DATABASE_WORKER_URL", urls.worker)
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    async with stuck_on(urls.admin, LOCKED[arguments[0]]) as blocked:
        running = asyncio.create_task(fleet(*arguments))
        await blocked(running)
        # The immediate shutdown: every session ends at once, as when the machine is lost.
        os.kill(server.pid, signal.SIGQUIT)
        done = await running
    server.restart()
    done.must_fail(4, "server_unreachable")


@asynccontextmanager
async def stuck_on(admin_url: str, table: str) -> AsyncIterator[Callable[[asyncio.Task[Done]], Awaitable[None]]]:
    """Hold the table locked, so that a command that needs it has begun and cannot end."""
    holder, watcher = await asyncpg.connect(admin_url), await asyncpg.connect(admin_url)
    await holder.execute("BEGIN")
    await holder.execute(f"LOCK TABLE fleet.{table} IN ACCESS EXCLUSIVE MODE")

    async def blocked(running: asyncio.Task[Done]) -> None:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fleet-cli' AND wait_event_type = 'Lock'"
        )
        while not await watcher.fetchval(waiting):
            assert not running.done(), running.result()
            await asyncio.sleep(0.02)

    try:
        yield blocked
    finally:
        holder.terminate()
        watcher.terminate()


async def test_redis_dying_in_the_middle_is_one_line(
    fleet: Fleet, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", valkey.admin_url)
    os.kill(valkey.pid, signal.SIGSTOP)
    running = asyncio.create_task(fleet("streams", "status", "--rail", "noop"))
    await asyncio.sleep(0.3)
    assert not running.done()
    os.kill(valkey.pid, signal.SIGKILL)
    done = await running
    valkey.restart()
    done.must_fail(4, "server_unreachable")
    assert (await fleet("streams", "status", "--rail", "noop")).code == 0
