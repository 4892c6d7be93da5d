"""Each command of `fleet` against a running stack with payments, dead letters and two rails in it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from fleet.client import FleetClient, Refused
from fleet.stack.provision import with_database
from fleet.stack.stack import Stack
from schemas.streams import jobs_stream
from tests.support.commands import Fleet
from wire.client import connect_redis

ROOT = Path(__file__).parents[2]
PAYEE = "mobile:0812345678"


async def until(look: Callable[[], Awaitable[Any]], what: str, within_s: float = 30) -> Any:
    """Return the first truthy answer."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := await look():
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"never saw {what}")


async def funded_wallet(fleet: Fleet, amount: str = "100.00") -> str:
    wallet = (await fleet("wallets", "create", "alice", "--external-id", uuid4().hex, "--json")).document["id"]
    fund = ("--operation", "MANUAL_ADJUSTMENT", "--wallet", wallet, "--amount", amount, "--json")
    assert (await fleet("intents", "create", *fund)).document["state"] == "SETTLED"
    return str(wallet)


async def settled(fleet: Fleet, intent: str) -> None:
    async def look() -> bool:
        return bool((await fleet("intents", "show", intent, "--json")).document["state"] == "SETTLED")

    await until(look, "the payment settled")


async def test_a_wallet_is_funded_pays_and_is_accounted_for_by_commands_alone(fleet: Fleet) -> None:
    create = ("wallets", "create", "alice", "--external-id", "alice-1", "--json")
    wallet = (await fleet(*create)).document["id"]
    assert (await fleet(*create)).document["id"] == wallet
    fund = ("--operation", "MANUAL_ADJUSTMENT", "--wallet", wallet, "--amount", "100.00", "--json")
    assert (await fleet("intents", "create", *fund)).document["state"] == "SETTLED"
    pay = ("intents", "create", "--wallet", wallet, "--amount", "10.50", "--payee", PAYEE, "--key", "k-1", "--json")
    made = (await fleet(*pay)).document
    assert (made["idempotency_key"], (await fleet(*pay)).document["id"]) == ("k-1", made["id"])
    await settled(fleet, made["id"])
    shown = (await fleet("wallets", "show", wallet, "--json")).document
    assert (shown["posted_minor"], shown["held_minor"], shown["available_minor"]) == (8950, 0, 8950)
    history = (await fleet("wallets", "history", wallet, "--json")).document["items"]
    assert [entry["amount_minor"] for entry in history] == [-1050, 10000]
    listed = (await fleet("intents", "list", "--wallet", wallet, "--json")).document["items"]
    assert [each["id"] for each in listed if each["operation"] == "PAYOUT"] == [made["id"]]
    (await fleet("intents", "cancel", made["id"])).must_fail(3, "wrong_state")
    table = (await fleet("intents", "list", "--wallet", wallet)).out
    assert made["id"] in table
    assert "10.50 THB" in table


@pytest.mark.parametrize(("currency", "amount", "closing"), [("JPY", "12345", "12345"), ("KWD", "12.345", "12.345")])
async def test_wallets_without_decimals_and_with_three_are_written_exactly_by_commands(
    fleet: Fleet, tmp_path: Path, currency: str, amount: str, closing: str
) -> None:
    create = ("wallets", "create", "yuki", "--currency", currency, "--external-id", f"yuki-{currency}", "--json")
    wallet = (await fleet(*create)).document["id"]
    fund = ("--operation", "MANUAL_ADJUSTMENT", "--wallet", wallet, "--amount", amount, "--currency", currency)
    assert (await fleet("intents", "create", *fund, "--json")).document["amount_minor"] == 12345
    for command in (("wallets", "show", wallet), ("wallets", "balance", wallet)):
        assert f"{closing} {currency}" in (await fleet(*command)).out
    assert closing in (await fleet("wallets", "list", "--owner", "yuki")).out
    out = tmp_path / "statement.csv"
    await fleet("wallets", "statement", wallet, "--format", "csv", "--out", str(out))
    last = out.read_text().splitlines()[-1]
    assert last.startswith("closing,"), last
    assert f",{closing},{currency}," in last
    assert not out.with_name("statement.csv.partial").exists()
    (await fleet("wallets", "statement", wallet, "--tz", "Mars/Olympus", "--out", str(out))).must_fail(
        3, "invalid_request"
    )


async def test_a_lookup_is_confirmed_by_command(fleet: Fleet) -> None:
    wallet = await funded_wallet(fleet)
    ask = ("--wallet", wallet, "--amount", "5.00", "--payee", PAYEE, "--no-auto-confirm", "--json")
    intent = (await fleet("intents", "create", *ask)).document["id"]

    async def looked_up() -> Any:
        return (await fleet("intents", "show", intent, "--json")).document["lookup"]

    found = await until(looked_up, "the lookup's answer")
    fee = str(found["fee_minor"])
    (await fleet("intents", "confirm", intent, "501", "--fee-minor", fee)).must_fail(3, "lookup_mismatch")
    assert (await fleet("intents", "confirm", intent, "500", "--fee-minor", fee)).code == 0
    await settled(fleet, intent)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        (("intents", "show", str(uuid4())), 3, "not_found"),
        (("intents", "confirm", str(uuid4()), "100"), 3, "not_found"),
        (("intents", "cancel", str(uuid4())), 3, "not_found"),
        (("intents", "list", "--cursor", "x"), 3, "cursor_malformed"),
        (("intents", "create", "--wallet", str(uuid4()), "--amount", "1", "--payee", PAYEE), 3, "wallet_not_found"),
        (("intents", "create", "--wallet", str(uuid4()), "--amount", "1", "--payee", ":"), 2, "invalid_field"),
        (("intents", "create", "--wallet", str(uuid4()), "--amount", "1", "--key", "two words"), 2, "invalid_field"),
        (("intents", "confirm", str(uuid4()), "0"), 2, "invalid_field"),
        (("intents", "show", "17"), 2, "usage"),
        (("intents", "list", "--state", "LOST"), 2, "usage"),
        (("events", "list", "--type", "nope"), 2, "usage"),
        (("webhooks", "create", "https://shop.example", "--type", "nope"), 2, "usage"),
        (("alerts", "list", "--kind", "nope"), 2, "usage"),
        (("alerts", "list", "--severity", "nope"), 2, "usage"),
        (("recon", "breaks", "--kind", "nope"), 2, "usage"),
        (("dlq", "list", "--operation", "nope"), 2, "usage"),
        (("intents", "fly"), 2, "usage"),
        (("wallets", "show", str(uuid4())), 3, "not_found"),
        (("wallets", "history", str(uuid4())), 3, "not_found"),
        (("wallets", "create", "two words"), 2, "invalid_field"),
        (("dlq", "show", str(uuid4())), 3, "not_found"),
        (("keys", "rotate", "fk_absent"), 3, "not_found"),
        (("keys", "revoke", ""), 3, "not_found"),
        (("keys", "create", "--name", "n", "--operations", "FLY"), 2, "operation_unknown"),
        (("keys", "create", "--name", " "), 2, "name_missing"),
        (("keys", "create", "--name", "n", "--rail", "No Rail"), 2, "rail_malformed"),
        (("keys", "create", "--name", "n", "--tenant", str(uuid4())), 2, "tenant_unknown"),
        (("routes", "set", "PAYOUT", "THB", "absent"), 3, "rail_unavailable"),
        (("routes", "set", "PAYOUT", "USD", "noop"), 3, "no_route"),
        (("routes", "set", "PAYOUT", "XXX", "noop"), 2, "unknown_currency"),
        (("routes", "disable", "PAYOUT", "USD"), 3, "not_found"),
        (("streams", "status", "--rail", "{x}"), 2, "rail_malformed"),
        (("recover", "--reason", " "), 2, "reason_missing"),
    ],
)
async def test_what_is_refused_is_one_line_with_a_code(
    fleet: Fleet, arguments: tuple[str, ...], exit_code: int, code: str
) -> None:
    (await fleet(*arguments)).must_fail(exit_code, code)


async def test_a_wrong_secret_and_an_unknown_key_are_refused_alike(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_KEY_SECRET", "wrong")
    wrong = (await fleet("intents", "list")).must_fail(3, "unauthenticated")
    monkeypatch.setenv("FLEET_KEY_ID", "fk_absent")
    assert (await fleet("intents", "list")).must_fail(3, "unauthenticated") == wrong


async def test_a_rotated_key_has_two_live_secrets_and_a_revoked_one_none(fleet: Fleet, stack: Stack) -> None:
    create = ("keys", "create", "--name", "shop", "--operations", "PAYOUT,WALLETS", "--json")
    made = (await fleet(*create)).document
    key_id, first = made["key_id"], made["secret"]

    async def answer(secret: str) -> str:
        async with FleetClient(stack.info.public_url, key_id, secret) as client:
            try:
                await client.page_of_intents()
            except Refused as refused:
                return refused.problem.code
            return "ok"

    async def obeyed(secret: str, wanted: str) -> None:
        async def look() -> bool:
            return await answer(secret) == wanted

        await until(look, f"{wanted} within seconds", within_s=10)

    assert await answer(first) == "ok"
    second = (await fleet("keys", "rotate", key_id, "--json")).document["secret"]
    await obeyed(second, "ok")
    assert await answer(first) == "ok"
    (listed,) = [key for key in (await fleet("keys", "list", "--json")).document if key["key_id"] == key_id]
    assert (listed["name"], listed["operations"], listed["secrets"]) == ("shop", ["PAYOUT", "WALLETS"], 2)
    third = (await fleet("keys", "rotate", key_id, "--json")).document["secret"]
    await obeyed(first, "unauthenticated")
    assert (await answer(second), await answer(third)) == ("ok", "ok")
    assert (await fleet("keys", "revoke", key_id, "--json")).document == {"key_id": key_id, "revoked": True}
    for secret in (second, third):
        await obeyed(secret, "unauthenticated")
    (await fleet("keys", "revoke", key_id)).must_fail(3, "not_found")
    listing = await fleet("keys", "list")
    assert key_id in listing.out
    assert not any(secret in listing.out for secret in (first, second, third))


async def test_streams_of_every_registered_rail_are_shown(fleet: Fleet) -> None:
    rows = (await fleet("streams", "status", "--json")).document
    assert {row["rail"] for row in rows} == {"bank", "noop", "promptpay", "sbp"}
    jobs = next(row for row in rows if row["stream"] == "{noop}:jobs")
    assert [each["name"] for each in jobs["consumers"]] == ["noop-1"]
    assert (jobs["group"], jobs["group_exists"], jobs["pending"]) == ("adapters", True, 0)
    table = (await fleet("streams", "status")).out
    assert all(f"{{{rail}}}:{name}" in table for rail in ("noop", "promptpay", "sbp") for name in ("jobs", "control"))
    assert "noop-1=0" in table
    (await fleet("streams", "status", "--rail", "absent", "--json")).must_fail(3, "not_found")


async def test_a_route_is_set_and_the_payment_goes_its_way(fleet: Fleet) -> None:
    assert (await fleet("routes", "set", "PAYOUT", "thb", "noop", "--json")).document["rail"] == "noop"
    try:
        routes = (await fleet("routes", "list", "--json")).document
        payouts = [each for each in routes if (each["operation"], each["currency"]) == ("PAYOUT", "THB")]
        assert [each["rail"] for each in payouts if each["enabled"]] == ["noop"]
        wallet = await funded_wallet(fleet)

        async def carried_by_noop() -> bool:
            pay = ("--wallet", wallet, "--amount", "1.00", "--payee", "any:someone", "--json")
            made = await fleet("intents", "create", *pay)
            return made.code == 0 and made.document["rail"] == "noop"

        await until(carried_by_noop, "a payment on the new route", within_s=10)
        assert (await fleet("routes", "disable", "PAYOUT", "THB")).code == 0
        pay = ("--wallet", wallet, "--amount", "1.00", "--payee", PAYEE)

        async def refused() -> bool:
            return "fleet: no_route: " in (await fleet("intents", "create", *pay)).err

        await until(refused, "no_route", within_s=10)
    finally:
        assert (await fleet("routes", "set", "PAYOUT", "THB", "promptpay")).code == 0


async def test_a_dead_letter_is_listed_with_its_verdict_and_shown_by_its_id(fleet: Fleet, stack: Stack) -> None:
    assert (await fleet("dlq", "list", "--class", "nothing-like-it", "--json")).document["items"] == []
    client = connect_redis(stack.info.redis_url, "test")
    for word in ("first", "second"):
        entry = {"v": "1", "id": word, "type": "job", "body": f'{{"not a job": "{word}"}}', "traceparent": ""}
        await client.xadd(jobs_stream("promptpay"), entry)  # type: ignore[arg-type]
    await client.aclose()
    mine = ("dlq", "list", "--rail", "promptpay", "--class", "poison")

    async def both() -> Any:
        found = (await fleet(*mine, "--json")).document["items"]
        return found if len(found) == 2 else None

    letters = await until(both, "two dead letters")
    assert {letter["verdict"] for letter in letters} == {"REFUSED"}
    shown = (await fleet("dlq", "show", letters[0]["id"], "--json")).document
    # It grows older between the two commands, and shown alone it tells more.
    assert {**shown, **letters[0]} | {"age_s": 0} == shown | {"age_s": 0}
    assert (shown["attempts"], shown["evidence"]) == ([], [])
    assert "not a job" not in json.dumps(shown)
    page = (await fleet(*mine, "--limit", "1")).out
    assert letters[0]["id"] in page
    cursor = page.partition("more: --cursor ")[2].strip()
    rest = (await fleet(*mine, "--cursor", cursor, "--json")).document
    assert [letter["id"] for letter in rest["items"]] == [letters[1]["id"]]


async def test_the_books_verify_and_a_planted_discrepancy_is_named_with_exit_1(fleet: Fleet, stack: Stack) -> None:
    wallet = await funded_wallet(fleet)
    sound = (await fleet("ledger", "verify", "--json")).document
    assert (sound["holds"], sound["discrepancies"]) == (True, [])
    assert stack.postgres is not None
    owner = await asyncpg.connect(with_database(stack.postgres.admin_url, "fleet"))
    plant = "UPDATE fleet.accounts SET credits_posted = credits_posted + $2 WHERE id = $1"
    assert await owner.execute(plant, wallet, 1) == "UPDATE 1"
    try:
        found = await fleet("ledger", "verify", "--json")
        assert (found.code, found.document["holds"]) == (1, False)
        assert ("balance_differs", wallet) in {(d["kind"], d["subject_id"]) for d in found.document["discrepancies"]}
        table = await fleet("ledger", "verify")
        assert (table.code, wallet in table.out) == (1, True)
    finally:
        await owner.execute(plant, wallet, -1)
        await owner.close()
    assert (await fleet("ledger", "verify")).code == 0


async def test_a_core_that_is_killed_in_the_middle_of_a_command_is_waited_for(fleet: Fleet, stack: Stack) -> None:
    os.kill(stack.supervisor.pid("core-api"), signal.SIGSTOP)  # it takes the connection and does not answer
    running = asyncio.create_task(fleet("intents", "list", "--json"))
    await asyncio.sleep(1)
    assert not running.done()
    os.kill(stack.supervisor.pid("core-api"), signal.SIGKILL)
    done = await running
    assert (done.code, done.err) == (0, "")


def test_the_installed_command_ends_quietly_when_its_reader_has_seen_enough(stack: Stack) -> None:
    environment = {**os.environ, "FLEET_STACK": str(stack.home / "stack.json")}
    command = [sys.executable, "-m", "fleet.cli", "intents", "list", "--json"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert (child.stderr.read(), child.wait(60)) == (b"", 0)
