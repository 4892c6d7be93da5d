"""Every command of the runbook and of the page for people on call is run as it stands, against a running stack."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from fleet.stack.provision import with_database
from fleet.stack.stack import Stack
from schemas.streams import jobs_stream
from tests.e2e.test_commands import funded_wallet, until
from tests.support.commands import Fleet
from wire.client import connect_redis

ROOT = Path(__file__).parents[2]
PAGES = ("docs/runbook.md", "docs/on-call.md")
OPERATOR = "DEAD_LETTERS,REDRIVE_APPROVAL,AUDIT,RECONCILIATION,SUSPENSE,MANUAL_ADJUSTMENT"
OWN_KEY = ("fleet intents", "fleet webhooks", "fleet collections", "fleet rails", "fleet streams")
"""What is done with the stack's own keys, and not with that of the shop's person on call."""
# What refuses here for a reason that the page itself gives.
REFUSED = {"dlq settle": {"wrong_state"}, "intents ask": {"nothing_to_ask"}}


def commands() -> Iterator[str]:
    """Yield each command once: whole lines of fences, and what stands between backticks with all its arguments."""
    seen: set[str] = set()
    for page in PAGES:
        text = (ROOT / page).read_text()
        fenced = "\n".join(re.findall(r"^ *```\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL))
        prose = re.sub(r"^ *```\n.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
        lines = [
            line.split("   #")[0].strip() for line in map(str.strip, fenced.splitlines()) if line.startswith("fleet ")
        ]
        spans = [" ".join(span.split()) for span in re.findall(r"`(fleet [^`]+)`", prose)]
        for line in [*lines, *(span for span in spans if "…" not in span)]:
            if line not in seen:
                seen.add(line)
                yield line


async def owner_of(stack: Stack) -> asyncpg.Connection:
    """Connect as the owner of the stack's database."""
    assert stack.postgres is not None
    return await asyncpg.connect(with_database(stack.postgres.admin_url, "fleet"))


@dataclass(frozen=True, slots=True)
class Scene:
    """What the pages speak of: a settled payment, a dead letter of it, and two people."""

    names: dict[str, str]
    key: dict[str, str]
    tenant: UUID


async def scene_of(fleet: Fleet, stack: Stack, owner: asyncpg.Connection) -> Scene:
    """Make one of each, once."""
    wallet = await funded_wallet(fleet)
    pay = ("--wallet", wallet, "--amount", "1.00", "--payee", "mobile:0812345678", "--json")
    intent = (await fleet("intents", "create", *pay)).document["id"]
    key = (await fleet("keys", "create", "--name", "op", "--operations", OPERATOR, "--json")).document
    client = connect_redis(stack.info.redis_url, "test")
    entry = {"v": "1", "id": "x", "type": "job", "body": '{"not a job": "runbook"}', "traceparent": ""}
    await client.xadd(jobs_stream("promptpay"), entry)  # type: ignore[arg-type]
    await client.aclose()

    async def kept() -> Any:
        settled = await owner.fetchval("SELECT state = 'SETTLED' FROM fleet.intents WHERE id = $1", UUID(intent))
        found = await owner.fetchrow("SELECT id, fingerprint FROM fleet.dead_letters WHERE state = 'OPEN' LIMIT 1")
        return found if settled else None

    letter = await until(kept, "a dead letter and a settled payment")
    tenant = await owner.fetchval("SELECT tenant_id FROM fleet.service_keys WHERE id = $1", key["key_id"])
    await owner.execute(
        "UPDATE fleet.dead_letters SET tenant_id = $1, intent_id = $2 WHERE id = $3", tenant, UUID(intent), letter["id"]
    )
    hook = (await fleet("webhooks", "create", "http://127.0.0.1:9/hook", "--json")).document
    names = {
        "ENDPOINT": hook["endpoint"]["id"],
        "INTENT": intent,
        "WALLET": wallet,
        "LETTER": str(letter["id"]),
        "FINGERPRINT": letter["fingerprint"],
    }
    return Scene(names, {"FLEET_KEY_ID": key["key_id"], "FLEET_KEY_SECRET": key["secret"]}, tenant)


async def set_stage(owner: asyncpg.Connection, scene: Scene, line: str) -> dict[str, str]:
    """Let the command meet an open letter, a break and a redrive of its own; return the names of these."""
    names = {"BREAK": str(uuid4()), "REDRIVE": str(uuid4()), "ALERT": str(uuid4())}
    await owner.execute(
        "INSERT INTO fleet.alerts (id, tenant_id, severity, kind, detail, proposed_by, closed_because)"
        " VALUES ($1, $2, 'page', 'success_after_void', 'planted', $3, 'seen')",
        names["ALERT"], scene.tenant, None if "alerts close" in line else "key:other",
    )  # fmt: skip
    await owner.execute(
        "INSERT INTO fleet.breaks (id, tenant_id, kind, detail, state, proposed_by)"
        " VALUES ($1, $2, 'projection_drift', 'planted', $3, 'key:other')",
        names["BREAK"], scene.tenant, "PROPOSED" if "recon approve" in line else "OPEN",
    )  # fmt: skip
    await owner.execute(
        "INSERT INTO fleet.redrives (id, tenant_id, action, state, reason, incident, selection, total, canary,"
        " rate_per_s, ramp_s, stop_at_percent, asked_by) VALUES ($1, $2, 'REDRIVE', $3, 'r', 'i', '{}', 0, 0, 1, 0,"
        " 20, 'key:other')",
        names["REDRIVE"], scene.tenant, "DONE" if "watch" in line else "AWAITING_APPROVAL",
    )  # fmt: skip
    await owner.execute("UPDATE fleet.redrive_items SET state = 'RELEASED' WHERE state IN ('WAITING', 'SENT')")
    await owner.execute("UPDATE fleet.dead_letters SET state = 'OPEN' WHERE id = $1", UUID(scene.names["LETTER"]))
    return scene.names | names


async def in_doubt(fleet: Fleet, owner: asyncpg.Connection) -> tuple[str, str]:
    """Return a wallet and a payment of it that was sent and not answered, and that nobody asks about for an hour."""
    wallet = await funded_wallet(fleet)
    await fleet("simulate", "promptpay", "fault", "reset_before", "--amount-minor", "777")
    pay = ("--wallet", wallet, "--amount", "7.77", "--payee", "mobile:0812345678", "--json")
    intent = (await fleet("intents", "create", *pay)).document["id"]

    async def unanswered() -> Any:
        return await owner.fetchval(
            "UPDATE fleet.jobs SET next_check_at = now() + interval '1 hour' WHERE intent_id = $1 AND kind = 'pay'"
            " AND EXISTS (SELECT FROM fleet.facts f WHERE f.job_id = jobs.id AND f.verdict = 'UNKNOWN') RETURNING id",
            UUID(intent),
        )

    await until(unanswered, "a payment in doubt")
    await fleet("simulate", "promptpay", "faults", "--clear")
    return wallet, intent


async def test_the_hand_settlement_of_the_runbook_gives_the_money_back_once_a_second_key_agrees(
    fleet: Fleet, stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evidence.txt").write_text("not among the lines of the register of 2026-11-21")
    (ask,) = [line for line in commands() if line.startswith("fleet dlq settle INTENT UNPAID")]
    owner = await owner_of(stack)
    try:
        wallet, intent = await in_doubt(fleet, owner)
        shown = (await fleet("wallets", "show", wallet, "--json")).document
        assert (shown["posted_minor"], shown["held_minor"]) == (10_000, 777)
        new = ("keys", "create", "--operations", OPERATOR, "--json", "--name")
        keys = [(await fleet(*new, name)).document for name in ("anna", "boris")]

        async def as_(key: dict[str, Any], *arguments: str) -> Any:
            with monkeypatch.context() as patch:
                patch.setenv("FLEET_KEY_ID", key["key_id"])
                patch.setenv("FLEET_KEY_SECRET", key["secret"])
                return await fleet(*arguments)

        asked = await as_(keys[0], *(intent if word == "INTENT" else word for word in shlex.split(ask)[1:]), "--json")
        assert asked.code == 0, asked
        redrive = asked.document["id"]
        assert (await as_(keys[0], "redrives", "approve", redrive, "--yes")).code == 3

        async def approved() -> Any:
            done = await as_(keys[1], "redrives", "approve", redrive, "--yes")
            assert done.code == 0 or "permit_running" in done.err, done
            return done.code == 0

        await until(approved, "the permit's end", 60)
        assert (await fleet("intents", "show", intent, "--json")).document["state"] == "FAILED"
        shown = (await fleet("wallets", "show", wallet, "--json")).document
        assert (shown["posted_minor"], shown["held_minor"], shown["available_minor"]) == (10_000, 0, 10_000)
    finally:
        await owner.close()


def test_the_pages_hold_commands() -> None:
    assert len(list(commands())) > 30


async def test_every_command_of_the_pages_works(
    fleet: Fleet, stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evidence.txt").write_text("line 7 of the register of 2026-11-21")
    owner = await owner_of(stack)
    lines = list(commands())
    try:
        scene = await scene_of(fleet, stack, owner)
        for line in lines:
            if line.count(" ") == 2 and any(other.startswith(f"{line} ") for other in lines):
                continue  # the page names a command that it gives whole elsewhere
            names = await set_stage(owner, scene, line)
            with monkeypatch.context() as patch:
                for name, value in (
                    () if line.startswith(OWN_KEY) and "--to-suspense" not in line else scene.key.items()
                ):
                    patch.setenv(name, value)
                done = await fleet(*(names.get(word, word) for word in shlex.split(line)[1:]))
            refused = re.match(r"fleet: (\w+): ", done.err)
            verb = " ".join(line.split()[1:3])
            if refused is None or refused[1] not in REFUSED.get(verb, set()):
                assert done.code == 0, (line, done)

        async def all_ran() -> Any:
            running = await owner.fetchval("SELECT count(*) FROM fleet.redrives WHERE state = 'RUNNING'")
            ran = "SELECT count(*) FROM fleet.redrives WHERE state = 'DONE' AND started_at IS NOT NULL"
            return not running and await owner.fetchval(ran)

        await until(all_ran, "the core ran what was approved")
    finally:
        # The last of the page's pauses would hold whatever the tests behind this one pay.
        await fleet("rails", "resume", "promptpay")
        await owner.close()
