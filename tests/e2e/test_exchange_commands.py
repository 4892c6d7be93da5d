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
import pytest

from fleet.client import FleetClient
from fleet.stack.stack import Stack
from tests.support.commands import Fleet

PAGE = (Path(__file__).parents[2] / "docs/exchange.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


@pytest.fixture
async def names(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """What the page's words in capitals stand for, under a key that may do all of it."""
    scopes = "*,MANUAL_ADJUSTMENT,ADJUSTMENT_ALONE,LIQUIDITY"
    key = (await fleet("keys", "create", "--name", "treasury", "--operations", scopes, "--json")).document
    monkeypatch.setenv("FLEET_KEY_ID", key["key_id"])
    monkeypatch.setenv("FLEET_KEY_SECRET", key["secret"])
    made = {}
    for name, owner, currency in (
        ("USD_WALLET", "mia", "USD"),
        ("THB_WALLET", "mia", "THB"),
        ("HOUSE", "house", "THB"),
    ):
        wallet = await fleet("wallets", "create", owner, "--currency", currency, "--json")
        made[name] = wallet.document["id"]
        fund = ("--operation", "MANUAL_ADJUSTMENT", "--amount", "200000.00", "--currency", currency)
        assert (await fleet("intents", "create", "--wallet", made[name], *fund)).code == 0
    (rows,) = re.findall(r"```csv\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "rates.csv"
    file.write_text(rows)
    return made | {"rates.csv": str(file)}


async def test_the_transcript_runs_as_it_is_written(stack: Stack, fleet: Fleet, names: dict[str, str]) -> None:
    commands = re.findall(r"^\$ \./dev fleet (.*)$", PAGE, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["rates"] * 3 + ["liquidity", "quotes", "quotes", "exposure"]
    told: Any = None
    for command in commands:
        meant = names | ({"QUOTE": told["id"]} if told and "side" in told else {})
        done = await fleet(*(meant.get(word, word) for word in shlex.split(command)), "--json")
        assert (done.code, done.err) == (0, ""), command
        told = done.document
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
    async with FleetClient(stack.info.public_url, os.environ["FLEET_KEY_ID"], os.environ["FLEET_KEY_SECRET"]) as client:
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
    environment = {**os.environ, "FLEET_URL": stack.info.public_url, **names}
    done = subprocess.run(
        ["sh", "-eu", "-c", block("sh")], env=environment, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    quote = orjson.loads(done.stdout)
    assert (quote["state"], quote["to_minor"]) == ("OPEN", 349_518), quote
