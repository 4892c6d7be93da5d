"""People of the console by commands: made, changed, revoked; what is refused is one line."""

import base64
import io
import secrets

import asyncpg
import pytest

from fleet.stack.provision import RoleUrls
from tests.support.commands import SETTINGS, Fleet, fleet_command


@pytest.fixture
def fleet(fresh_database: RoleUrls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """The command, at a database without people."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_WORKER_URL", fresh_database.worker)
    monkeypatch.setenv("FLEET_MASTER_KEY", base64.b64encode(secrets.token_bytes(32)).decode())
    return fleet_command(capsys, monkeypatch)


async def test_people_are_let_in_changed_and_kept_out_by_commands(
    fleet: Fleet, admin_connection: asyncpg.Connection
) -> None:
    made = (await fleet("console", "users", "add", "anna", "--role", "operator", "--json")).document
    assert (made["name"], made["role"], len(made["password"]) >= 20) == ("anna", "operator", True)
    (await fleet("console", "users", "add", "anna", "--role", "admin")).must_fail(3, "person_exists")
    assert (await fleet("console", "users", "roles", "anna", "--role", "approver")).code == 0
    again = (await fleet("console", "users", "password", "anna", "--json")).document["password"]
    assert again != made["password"]
    assert (await fleet("console", "users", "revoke", "anna")).code == 0
    (person,) = (await fleet("console", "users", "list", "--json")).document
    assert (person["name"], person["role"], person["revoked_at"] is not None) == ("anna", "approver", True)
    (await fleet("console", "users", "revoke", "nobody")).must_fail(3, "not_found")
    told = await admin_connection.fetch("SELECT actor, data FROM fleet.audit_entries WHERE subject = 'people'")
    assert len(told) == 4
    assert {row["actor"] for row in told} == {"fleet-cli"}
    assert not [row for row in told if "scrypt" in row["data"]]


async def test_a_password_may_come_from_stdin_and_a_short_one_or_a_strange_name_is_refused(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ("console", "users", "add", "boris", "--role", "viewer", "--password-stdin")
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    (await fleet(*add)).must_fail(3, "invalid_request")
    monkeypatch.setattr("sys.stdin", io.StringIO("a long enough password\n"))
    assert "password" not in (await fleet(*add, "--json")).document
    (await fleet("console", "users", "add", "a b", "--role", "viewer")).must_fail(3, "invalid_request")
