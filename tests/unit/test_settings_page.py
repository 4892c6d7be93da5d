"""The page of settings names every setting that there is, with its default, and none that there is not."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic_settings import BaseSettings

from adapters.bank.settings import BankSettings
from adapters.noop.adapter import NoopSettings
from adapters.promptpay.settings import PromptPaySettings
from adapters.runtime.settings import RuntimeSettings
from adapters.sbp.settings import SbpSettings
from core.settings import Settings
from fleet.cli.connection import _VARIABLES

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs/settings.md").read_text()
SECTIONS: Final[dict[str, type[BaseSettings]]] = {
    "The core": Settings,
    "Every adapter": RuntimeSettings,
    "PromptPay": PromptPaySettings,
    "SBP": SbpSettings,
    "Bank": BankSettings,
    "The rail for measurements": NoopSettings,
}
COMPOSE: Final = (ROOT / "docker-compose.yml").read_text()
NO_SETTINGS: Final = {"BANK_NOT_SUPPORTED"}
"""What looks like one in the manual: a provider's code."""
TOLD_IN_WORDS: Final = {"DATABASE_DIRECT_URL", "DATABASE_READ_URL", "FLEET_INSTANCE", "CONSUMER_NAME"}
"""Settings whose default another setting or the machine gives."""


def section(heading: str) -> str:
    """Return the text below a heading of the second level."""
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(heading: str) -> dict[str, str]:
    """Return what the section's tables say of each variable's default."""
    found = re.findall(r"^\| `([A-Z_]+)` \| (.+?) \| .+ \|$", section(heading), re.MULTILINE)
    assert len(found) == len(dict(found)), "a variable stands twice"
    return {name: text.strip("`") for name, text in found}


def defaults(settings: type[BaseSettings]) -> Iterator[tuple[str, str]]:
    """Yield each variable of a class and how the page has to write its default."""
    for name, field in settings.model_fields.items():
        alias = field.validation_alias or field.alias
        (told,) = getattr(alias, "choices", [alias or settings.model_config.get("env_prefix", "") + name])
        yield str(told).upper(), "**required**" if field.is_required() else written(field.default)


def written(value: Any) -> str:
    """Return a default as the page writes it."""
    value = value.get_secret_value() if hasattr(value, "get_secret_value") else value
    if value in ("", frozenset()):
        return "empty"
    if isinstance(value, bool):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) and value < 100_000 else str(value)


@pytest.mark.parametrize("heading", SECTIONS)
def test_each_setting_stands_on_the_page_with_its_default_and_no_other(heading: str) -> None:
    wanted, told = dict(defaults(SECTIONS[heading])), rows(heading)
    assert wanted.keys() == told.keys()
    assert {name: told[name] for name in wanted.keys() - TOLD_IN_WORDS} == {
        name: wanted[name] for name in wanted.keys() - TOLD_IN_WORDS
    }


def test_every_class_of_settings_has_its_section() -> None:
    sources = "".join(path.read_text() for top in ("core", "adapters") for path in (ROOT / top).rglob("*.py"))
    assert set(re.findall(r"^class (\w+)\(EnvironmentSettings\)", sources, re.MULTILINE)) == {
        each.__name__ for each in SECTIONS.values()
    }


def test_every_other_variable_that_is_read_stands_there_too() -> None:
    text, read = section("The fleet command and other processes"), set(_VARIABLES.values())
    for top in ("core", "adapters", "fleet", "wire"):
        for path in (ROOT / top).rglob("*.py"):
            read |= set(re.findall(r'(?:read_variable\(|environ(?:\.get\(|\[))"([A-Z_]+)"', path.read_text()))
    told = set(re.findall(r"`([A-Z_]{5,})`", text))
    assert read - told == set()
    assert told - read <= {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "DATABASE_ADMIN_URL"}


def test_a_variable_of_ours_that_the_manual_names_is_one() -> None:
    known = set(re.findall(r"`([A-Z_]{5,})`", PAGE)) | set(re.findall(r"\$\{([A-Z_]+)", COMPOSE)) | NO_SETTINGS
    for path in (ROOT / "docs").rglob("*.md"):
        named = re.findall(r"\b(?:FLEET|PROMPTPAY|SBP|BANK|NOOP)_[A-Z_]*[A-Z]\b", path.read_text())
        assert {each.removesuffix("_FILE") for each in named} - known == set(), path
