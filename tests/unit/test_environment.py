"""Any setting may come as a file."""

import traceback
from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from adapters.noop.adapter import NoopSettings
from adapters.promptpay.settings import PromptPaySettings
from adapters.runtime.settings import RuntimeSettings
from core.settings import Settings
from wire.environment import EnvironmentSettings, SettingsError, read_variable

MASTER_KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="


class Example(EnvironmentSettings):
    """A setting with a default."""

    model_config = SettingsConfigDict(env_prefix="EXAMPLE_")

    word: str = "default"
    count: int = 0


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("from the file\n")
    return file


def test_a_file_stands_in_for_a_variable_and_its_last_line_end_is_no_part_of_it(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMPLE_WORD_FILE", str(secret))
    assert Example().word == "from the file"


def test_a_variable_counts_before_the_file(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_WORD_FILE", str(secret))
    monkeypatch.setenv("EXAMPLE_WORD", "from the variable")
    assert Example().word == "from the variable"


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXAMPLE_WORD_FILE", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match=r"EXAMPLE_WORD_FILE names .*absent"):
        Example()


def test_what_is_refused_shows_its_value_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_COUNT", "hidden")
    with pytest.raises(
        SettingsError, match=r"^settings are missing or wrong: EXAMPLE_COUNT: is no whole number"
    ) as caught:
        Example()
    assert "hidden" not in "".join(traceback.format_exception(caught.value))


def test_files_that_no_setting_asks_for_are_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent"))
    assert Example().word == "default"


def test_the_core_reads_its_secrets_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (
        ("DATABASE_URL", "postgresql://a"),
        ("DATABASE_WORKER_URL", "postgresql://b"),
        ("DATABASE_DIRECT_URL", "postgresql://c"),
        ("REDIS_URL", "redis://d"),
        ("FLEET_MASTER_KEY", MASTER_KEY),
    ):
        monkeypatch.delenv(name, raising=False)
        (tmp_path / name).write_text(text)
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    settings = Settings()
    assert settings.database_url.get_secret_value() == "postgresql://a"
    assert settings.direct_url == "postgresql://c"
    assert settings.master_key.get_secret_value() == MASTER_KEY


@pytest.mark.parametrize("settings", [Settings, RuntimeSettings, PromptPaySettings, NoopSettings])
def test_every_process_takes_files(settings: type) -> None:
    assert issubclass(settings, EnvironmentSettings)


def test_a_command_reads_a_variable_or_its_file(secret: Path) -> None:
    assert read_variable("X", {"X_FILE": str(secret)}) == "from the file"
    assert read_variable("X", {"X": "given", "X_FILE": str(secret)}) == "given"
    assert read_variable("X", {}) == ""
