"""The transcript of docs/exchange.md on a running stack: its commands in their order, and its call with curl."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from fleet.client import FleetClient
from fleet.stack.stack import Stack
from tests.support.commands import Fleet

PAGE = (Path(__file__).parents[2] / "docs/exchange.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


async def walked(fleet: Fleet, folder: Path) -> tuple[dict[str, str], Any]:
    """Type the page's commands under the stack's own key; return what its words in capitals came to stand for."""
    (rows,) = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)
    (folder / "rates.csv").write_text(rows)
    names, told = {"rates.csv": str(folder / "rates.csv")}, None
    commands = re.findall(r"^\$ \./dev fleet (.*?)(?: +# (\w+))?$", PAGE, re.MULTILINE)
    assert [command.split()[0] for command, _ in commands] == [
        *(["wallets"] * 3), *(["intents"] * 2), *(["rates"] * 3), "liquidity", "quotes", "quotes", "exposure"
    ]  # fmt: skip
    for command, name in commands:
        done = await fleet(*(names.get(word, word) for word in shlex.split(command)), "--json")
        assert (done.code, done.err) == (0, ""), command
        told = done.document
        if name:
            names[name] = told["id"]
        elif command.startswith("quotes create"):
            names["QUOTE"] = told["id"]
    return names, told


async def test_the_transcript_runs_as_it_is_written(stack: Stack, fleet: Fleet, tmp_path: Path) -> None:
    names, told = await walked(fleet, tmp_path)
    usd, thb = (next(each for each in told["currencies"] if each["currency"] == code) for code in ("USD", "THB"))
    assert (usd["bought_minor"], thb["sold_minor"], thb["spread_minor"]) == (10_000, 349_518, 1757)
    if shutil.which("curl") and shutil.which("openssl"):
        call_with_curl(stack, names)
    (await fleet("quotes", "create", "--wallet", names["USD_WALLET"], "--to", names["THB_WALLET"])).must_fail(
        2, "amount_malformed"
    )
    bought = ("--wallet", names["USD_WALLET"], "--to", names["THB_WALLET"], "--buy", "3500.00")
    quote = await fleet("quotes", "create", *bought)
    assert "3500.00 THB" in quote.out
    assert "UP" in quote.out
    async with FleetClient(stack.info.public_url, stack.info.key_id, stack.info.key_secret) as client:
        shown = await client.get_quote(UUID(re.findall(r"id +(\S+)", quote.out)[0]))
        for _ in range(2):
            intent = await client.exchange(shown, idempotency_key=str(shown.id), max_fee_minor=0)
            assert (intent.state, intent.exchange and intent.exchange.to_minor) == ("SETTLED", 350_000)
    before = (await fleet("exposure", "--json")).document["currencies"]
    (await fleet("quotes", "show", names["USD_WALLET"])).must_fail(3, "not_found")
    forbidden = await fleet("liquidity", "overdraft", "THB", "--forbid", "--json")
    assert forbidden.document["currencies"] == before
    taken = await fleet("liquidity", "take", "--wallet", names["HOUSE"], "--amount", "1.00", "--yes", "--json")
    assert (taken.document["state"], taken.document["direction"]) == ("SETTLED", "FROM_LIQUIDITY")


def call_with_curl(stack: Stack, names: dict[str, str]) -> None:
    """Ask for a quote as the page does with a shell."""
    told = {"FLEET_URL": "public_url", "FLEET_KEY_ID": "key_id", "FLEET_KEY_SECRET": "key_secret"}
    environment = {**os.environ, **{name: getattr(stack.info, field) for name, field in told.items()}, **names}
    done = subprocess.run(
        ["sh", "-eu", "-c", block("sh")], env=environment, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    quote = orjson.loads(done.stdout)
    assert (quote["state"], quote["to_minor"]) == ("OPEN", 349_518), quote
