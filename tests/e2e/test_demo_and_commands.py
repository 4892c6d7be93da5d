"""What a newcomer types, as processes of their own: the demo on a small file, and the command against a stack."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fleet.demo.example import rows
from fleet.demo.payments_file import COLUMNS
from fleet.stack.stack import Stack, StackPlan, running

ROOT = Path(__file__).parents[2]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleet.demo", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_the_shipped_file_is_what_its_generator_writes() -> None:
    lines = (ROOT / "examples" / "payments.csv").read_text().splitlines()
    assert [line.split(",") for line in lines] == [list(row) for row in rows()]


@pytest.mark.timeout(200)
def test_the_demo_pays_a_file_and_proves_it(tmp_path: Path) -> None:
    path = tmp_path / "payments.csv"
    path.write_text(
        "\n".join(
            (
                ",".join(COLUMNS),
                "a1,alice,mobile,0812345678,10.50,THB,lunch",
                "a2,alice,national_id,1101700230708,20.00,THB,",
                "a3,alice,ewallet,004999000288505,30.00,THB,",
                "a4,alice,mobile,0899990001,40.00,THB,nobody",
                "a5,alice,mobile,0899990002,50.00,THB,the answer is lost",
                "a6,alice,mobile,0812345678,1500000.00,THB,too much",
                "a1,alice,mobile,0812345678,10.50,THB,lunch",
                "broken,line",
                "a7,alice,mobile,0812345678,0,THB,",
            )
        )
    )
    done = demo("--file", str(path), "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["accepted"] == 6
    assert report["settled"] == 4
    assert report["failed"] == {"insufficient_funds": 1, "payee_not_found": 1}
    assert (report["unresolved"], report["dead_lettered"]) == (0, 0)
    assert [(line["line"], line["code"]) for line in report["refused_lines"]] == [
        (8, "duplicate_reference"),
        (9, "malformed_line"),
        (10, "amount_not_positive"),
    ]
    assert report["ledger"] == {"balanced": True, "holds_match_pending": True}
    assert report["provider_book"] == {"paid_twice": 0, "paid_not_settled": 0, "settled_not_paid": 0}


@pytest.mark.parametrize("name", ["absent.csv", "header.csv"])
def test_a_file_that_cannot_be_read_is_refused_before_anything_starts(tmp_path: Path, name: str) -> None:
    (tmp_path / "header.csv").write_text("a,b\n1,2\n")
    done = demo("--file", str(tmp_path / name))
    assert done.returncode == 2
    assert done.stderr.startswith("demo: file_refused: ")


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running(StackPlan(tmp_path_factory.mktemp("stack"))) as stack:
        yield stack


def command(stack: Stack, *arguments: str, code: int = 0) -> Any:
    environment = {**os.environ, "FLEET_STACK": str(stack.home / "stack.json")}
    done = subprocess.run(
        [sys.executable, "-m", "fleet.cli", *arguments, "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


async def test_a_wallet_is_funded_pays_and_is_accounted_for_by_commands_alone(stack: Stack) -> None:
    wallet = command(stack, "wallets", "create", "alice", "--external-id", "alice-1")["id"]
    assert command(stack, "wallets", "create", "alice", "--external-id", "alice-1")["id"] == wallet
    fund = ("intents", "create", "--operation", "MANUAL_ADJUSTMENT", "--wallet", wallet, "--amount", "100.00")
    assert command(stack, *fund)["state"] == "SETTLED"
    made = command(stack, "intents", "create", "--wallet", wallet, "--amount", "10.50", "--payee", "mobile:0812345678")
    intent = made["id"]
    for _ in range(60):
        shown = command(stack, "intents", "show", intent)
        if shown["state"] == "SETTLED":
            break
    assert shown["state"] == "SETTLED"
    balances = command(stack, "wallets", "show", wallet)
    assert (balances["posted_minor"], balances["held_minor"], balances["available_minor"]) == (8950, 0, 8950)
    assert [entry["amount_minor"] for entry in command(stack, "wallets", "history", wallet)["items"]] == [-1050, 10000]
    assert intent in [each["id"] for each in command(stack, "intents", "list")["items"]]
    assert command(stack, "ledger", "verify")["holds"] is True
    assert {row["stream"] for row in command(stack, "streams", "status")} >= {"{promptpay}:jobs", "{promptpay}:results"}
    assert command(stack, "dlq", "list") == []
    refusal = command(stack, "intents", "cancel", intent, code=3)
    assert refusal.startswith("fleet: wrong_state: ")


async def test_keys_are_created_rotated_and_revoked(stack: Stack) -> None:
    made = command(stack, "keys", "create", "--name", "test", "--operations", "PAYOUT")
    rotated = command(stack, "keys", "rotate", made["key_id"])
    assert rotated["secret"] != made["secret"]
    assert command(stack, "keys", "revoke", made["key_id"])["revoked"] is True
    assert command(stack, "keys", "revoke", made["key_id"], code=3).startswith("fleet: not_found: ")


async def test_a_route_is_listed_set_and_disabled(stack: Stack) -> None:
    (route,) = command(stack, "routes", "list")
    assert (route["rail"], route["operation"], route["currency"], route["enabled"]) == (
        "promptpay",
        "PAYOUT",
        "THB",
        True,
    )
    assert command(stack, "routes", "set", "PAYOUT", "thb", "promptpay") == route
    assert command(stack, "routes", "set", "PAYOUT", "THB", "absent", code=3).startswith("fleet: rail_unavailable: ")
    assert command(stack, "routes", "set", "PAYOUT", "XXX", "promptpay", code=2).startswith("fleet: unknown_currency: ")
    assert command(stack, "routes", "disable", "PAYOUT", "USD", code=3).startswith("fleet: not_found: ")
