"""What a process does not need, it does not import: every start pays for it, and tests start hundreds."""

import subprocess
import sys

import pytest
from typer.main import get_group

from fleet.cli.app import COMMANDS, app
from fleet.cli.later import Later

_LISTENERS = {"fastapi", "jinja2", "core.api", "core.console", "authlib", "joserfc"}
_RULES = {"cel", "prompt_toolkit"}
_PLAYED = {"adapters.promptpay", "adapters.sbp", "adapters.bank", "fleet.stack", "fleet.demo", "mockbank", "uvicorn"}
_TEST_KITS = {"hypothesis", "schemathesis", "pytest", "grafana_foundation_sdk"}


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("core.__main__", _LISTENERS | _RULES | _TEST_KITS),
        ("core.api.serve", {"core.console", *_RULES, *_TEST_KITS}),
        ("adapters.promptpay.__main__", {"fastapi", "jinja2", "asyncpg", *_RULES, *_TEST_KITS}),
        ("fleet.cli.app", {"core", "asyncpg", "redis", "httpx", "aiohttp", "faststream", *_PLAYED, *_RULES}),
        ("fleet.cli.wallets", {"faststream", "fastapi", *_PLAYED, *_RULES}),
    ],
)
def test_a_start_imports_only_what_it_needs(module: str, without: set[str]) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert without.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_a_command_says_in_the_list_what_its_own_help_begins_with(name: str) -> None:
    listed = get_group(app).commands[name]
    assert isinstance(listed, Later)
    own = listed.load()
    assert own.name == name
    assert (own.help or "").split("\n\n")[0].replace("\n", " ") == listed.help


def test_every_module_of_commands_is_listed() -> None:
    listed = {place.partition(":")[0] for _, place, _ in COMMANDS}
    script = """
import importlib, pkgutil, typer, fleet.cli as found
for each in pkgutil.iter_modules(found.__path__):
    if each.name not in ("app", "__main__"):
        module = importlib.import_module(f"fleet.cli.{each.name}")
        if isinstance(getattr(module, "app", None), typer.Typer): print(each.name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= listed
