"""A setting that cannot be right is one line that names the setting."""

from pathlib import Path

import pytest

from fleet.stack.processes import free_port
from fleet.stack.provision import RoleUrls, create_database, drop_database, with_database, with_login
from tests.support.commands import Fleet


@pytest.mark.parametrize(
    ("setting", "value", "arguments", "exit_code", "code"),
    [
        ("DATABASE_WORKER_URL", "nonsense", ("ledger", "verify"), 2, "address_malformed"),
        ("DATABASE_WORKER_URL", "mysql://localhost/x", ("keys", "list"), 2, "address_malformed"),
        ("DATABASE_WORKER_URL", "postgresql://h:notaport/x", ("keys", "list"), 2, "address_malformed"),
        ("DATABASE_WORKER_URL", "postgresql://nowhere.invalid/x", ("keys", "list"), 4, "server_unreachable"),
        ("FLEET_URL", "localhost:8080", ("intents", "list"), 2, "address_malformed"),
        ("FLEET_URL", "http://", ("intents", "list"), 2, "address_malformed"),
        ("FLEET_URL", "http://h:notaport", ("intents", "list"), 2, "address_malformed"),
        ("FLEET_KEY_ID", "ключ", ("intents", "list"), 2, "key_malformed"),
        ("FLEET_KEY_ID", "fk_1\nFleet-Admin: 1", ("intents", "list"), 2, "key_malformed"),
        ("FLEET_MASTER_KEY", "c2hvcnQ=", ("keys", "rotate", "x"), 2, "master_key_malformed"),
        ("FLEET_MASTER_KEY", "not base64!", ("keys", "rotate", "x"), 2, "master_key_malformed"),
    ],
)
async def test_a_setting_that_cannot_be_right_is_named(
    fleet: Fleet,
    fresh_database: RoleUrls,
    setting: str,
    value: str,
    arguments: tuple[str, ...],
    exit_code: int,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_WORKER_URL", fresh_database.worker)
    monkeypatch.setenv("FLEET_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("FLEET_KEY_ID", "fk_x")
    monkeypatch.setenv("FLEET_KEY_SECRET", "secret")
    monkeypatch.setenv(setting, value)
    line = (await fleet(*arguments)).must_fail(exit_code, code)
    assert setting in line
    assert "secret" not in line


@pytest.mark.parametrize(
    "arguments", [("ledger", "verify"), ("keys", "list"), ("streams", "status"), ("routes", "list")]
)
async def test_nothing_configured_names_the_setting_that_is_missing(
    fleet: Fleet, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "DATABASE_WORKER_URL" in (await fleet(*arguments)).must_fail(4, "not_configured")
    assert "REDIS_URL" in (await fleet("streams", "status", "--rail", "noop")).must_fail(4, "not_configured")


@pytest.mark.parametrize("value", ["nonsense", "redis://h:notaport/0"])
async def test_beside_the_servers_an_address_of_streams_that_cannot_be_right_is_named(
    fleet: Fleet, fresh_database: RoleUrls, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_WORKER_URL", fresh_database.worker)
    monkeypatch.setenv("REDIS_URL", value)
    assert "REDIS_URL" in (await fleet("streams", "status", "--rail", "noop")).must_fail(2, "address_malformed")


async def test_a_wrong_password_is_told_apart_from_a_server_that_is_away(
    fleet: Fleet, fresh_database: RoleUrls, fresh_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_WORKER_URL", with_login(fresh_database.admin, "fleet_worker", "wrong"))
    monkeypatch.setenv("REDIS_URL", with_login(fresh_redis, "fleet-admin", "wrong"))
    (await fleet("keys", "list")).must_fail(4, "server_refused")
    (await fleet("streams", "status", "--rail", "noop")).must_fail(4, "server_refused")


async def test_a_database_without_the_fleets_tables_is_told_apart(
    fleet: Fleet, fresh_database: RoleUrls, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_database(postgres_url, "fleet_empty")
    monkeypatch.setenv("DATABASE_WORKER_URL", with_database(fresh_database.worker, "fleet_empty"))
    for arguments in (("keys", "list"), ("ledger", "verify"), ("streams", "status")):
        (await fleet(*arguments)).must_fail(4, "not_migrated")
    await drop_database(postgres_url, "fleet_empty")


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff"])
async def test_a_stack_file_that_is_no_stack_file_is_named(
    fleet: Fleet, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stack.json"
    path.write_bytes(content)
    monkeypatch.setenv("FLEET_STACK", str(path))
    assert str(path) in (await fleet("intents", "list")).must_fail(2, "stack_file_unusable")
