"""The calls of README.md, docs/client.md, docs/signing.md and docs/cli.md, run as they are written."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from typer.main import get_command

from fleet.cli.app import app
from fleet.client import FleetClient
from fleet.stack.stack import Stack
from schemas.api import IntentRequest, WalletRequest
from schemas.operations import OperationType
from tests.support.commands import Fleet

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def example(page: str, language: str) -> str:
    """Return the one example of a page in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return str(found)


@pytest.fixture
async def wallet(stack: Stack) -> UUID:
    async with FleetClient(stack.info.public_url, stack.info.key_id, stack.info.key_secret) as client:
        made = await client.create_wallet(WalletRequest(owner="docs", currency="THB", external_id=uuid4().hex))
        fund = IntentRequest(
            operation=OperationType.MANUAL_ADJUSTMENT, wallet_id=made.id, amount_minor=100_000, currency="THB"
        )
        await client.create_intent(fund, idempotency_key=uuid4().hex)
    return made.id


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="needs curl and openssl")
@pytest.mark.parametrize(("page", "language"), [("client.md", "bash"), ("signing.md", "sh")])
def test_the_call_with_curl_pays(stack: Stack, wallet: UUID, page: str, language: str) -> None:
    # The page's two examples pay the same order; here they are two.
    script = example(page, language).replace("order-1017", uuid4().hex)
    info = stack.info
    known = {"FLEET_URL": info.public_url, "FLEET_KEY_ID": info.key_id, "FLEET_KEY_SECRET": info.key_secret}
    environment = {**os.environ, **known, "WALLET_ID": str(wallet)}
    done = subprocess.run(["sh", "-eu", "-c", script], env=environment, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    intent = orjson.loads(done.stdout)
    assert (intent.get("wallet_id"), intent.get("failure")) == (str(wallet), None), intent


async def test_the_call_with_the_typed_client_pays(
    stack: Stack, wallet: UUID, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    exec(compile(example("client.md", "python"), "docs/client.md", "exec"), names)
    info = stack.info
    await names["pay"](info.public_url, info.key_id, info.key_secret, wallet)
    printed = capsys.readouterr().out.split()
    assert UUID(printed[0])
    assert printed[1] in ("CREATED", "VALIDATED", "AUTHORIZED", "DISPATCHED", "SETTLED")


async def test_the_commands_of_the_readme_work_in_their_order(fleet: Fleet) -> None:
    commands = re.findall(r"^\$ \./dev fleet (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 6
    wallet = (await fleet(*shlex.split(commands[0], comments=True), "--json")).document["id"]
    for command in commands:
        done = await fleet(*shlex.split(command.replace("WALLET_ID", wallet), comments=True))
        assert (done.code, done.err) == (0, ""), command
        assert done.out


async def test_every_command_of_the_page_exists_and_every_command_is_on_the_page(fleet: Fleet) -> None:
    page = (DOCS / "cli.md").read_text()
    rows = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `fleet ")]
    told: set[tuple[str, ...]] = set()
    for row in rows:
        group = ""
        for part in re.findall(r"`([^`]*)`", row):
            words = part.split()
            group, words = (words[1], words[2:]) if words[0] == "fleet" else (group, words)
            told.add((group,) if not words or words[0].startswith("-") else (group, words[0]))
    root = get_command(app)
    loaded = {name: getattr(found, "load", lambda found=found: found)() for name, found in root.commands.items()}  # type: ignore[attr-defined]  # a group
    existing = {
        (name,) if not hasattr(command, "commands") else (name, sub)
        for name, command in loaded.items()
        for sub in getattr(command, "commands", {"": None})
    }
    existing |= {(name,) for name, command in loaded.items() if getattr(command, "invoke_without_command", False)}
    assert told == existing
