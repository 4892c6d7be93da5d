"""What a core says that cannot start: each setting as it is set, and what it takes."""

import pytest

from core.__main__ import main


def test_settings_that_are_missing_or_wrong_are_named_as_they_are_set_and_no_value_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DATABASE_URL", "FLEET_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLEET_ACCEPT_BATCH", "many")
    assert main(["api"]) == 2
    told = capsys.readouterr().err
    assert "DATABASE_URL: is missing: set it, or DATABASE_URL_FILE" in told
    assert "FLEET_MASTER_KEY: is missing: set it, or FLEET_MASTER_KEY_FILE" in told
    assert "FLEET_ACCEPT_BATCH: is no whole number: write digits alone" in told
    assert "many" not in told


_GOOD = {
    "DATABASE_URL": "postgresql://127.0.0.1:1/x",
    "DATABASE_WORKER_URL": "postgresql://127.0.0.1:1/x",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "FLEET_MASTER_KEY": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=",
}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"DATABASE_URL": "mysql://root:hidden@x/y"}, "DATABASE_URL: is no address of PostgreSQL"),
        ({"DATABASE_READ_URL": "hidden"}, "DATABASE_READ_URL: is no address of PostgreSQL"),
        ({"REDIS_URL": "http://hidden"}, "REDIS_URL: is no address of Redis or Valkey"),
        ({"FLEET_RELAY_POLL_S": "hidden"}, "FLEET_RELAY_POLL_S: is no number: write digits, with a point"),
        ({"FLEET_RAILS": "promptpay,Hidden"}, "FLEET_RAILS: names a rail that cannot be"),
        ({"FLEET_CONSOLE_URL": "console.hidden"}, "FLEET_CONSOLE_URL: is no address: write http://HOST:PORT"),
        ({"FLEET_CONSOLE_URL": "https://x/hidden"}, "FLEET_CONSOLE_URL: has a path: write the address alone"),
        ({"FLEET_OIDC_ISSUER": "hidden"}, "FLEET_OIDC_ISSUER: is no address: write http://HOST:PORT"),
        ({"FLEET_MASTER_KEY": "hidden"}, "FLEET_MASTER_KEY: is not base64: openssl rand -base64 32"),
        ({"FLEET_MASTER_KEY": "aGlkZGVu"}, "FLEET_MASTER_KEY: is not 32 bytes in base64: openssl rand"),
        ({"FLEET_BACKLOG_HIGH": "100"}, "FLEET_BACKLOG_LOW has to be less than FLEET_BACKLOG_HIGH, which is 100"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changed: dict[str, str], told: str
) -> None:
    for name, value in (_GOOD | changed).items():
        monkeypatch.setenv(name, value)
    assert main(["relay"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"core: settings are missing or wrong: {told}")
    assert "idden" not in said


def test_a_database_that_is_not_there_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in _GOOD.items():
        monkeypatch.setenv(name, value)
    assert main(["relay"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("core: PostgreSQL does not let us in: ConnectionRefusedError")
    assert said.count("\n") == 1


def test_a_core_that_the_database_lets_not_in_ends_its_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _GOOD.items():
        monkeypatch.setenv(name, value)
    ended: list[str] = []
    monkeypatch.setattr("core.__main__.start_tracing", lambda process: lambda: ended.append(process))
    assert main(["relay"]) == 1
    assert ended == ["core-relay"]
