"""What people do on the pages, on real rows: the same use cases as at the API, and each step in the journal."""

import re
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID, uuid4

import pytest

from core.domain.roles import Role
from core.services.on_call.run_redrives import run_redrives
from core.services.settling.facts import Alert
from core.store.settling.facts import close_alerts, raise_alerts
from schemas.on_call import LetterFields, LetterQuery, LetterSelection
from tests.integration.console.conftest import ConsoleWorld
from tests.integration.oncall.conftest import bury
from tests.integration.permits.conftest import RAIL, World, pay_job
from tests.integration.permits.test_announced_returns import announce, reference_of
from tests.integration.permits.test_collections import opened
from tests.integration.permits.test_returns import paid
from tests.integration.permits.test_suspense import parked
from tests.support.browsing import Browser

PAYEE = "0812345678"


async def journal(world: World, action: str) -> list[dict[str, Any]]:
    """Return who did this, to what and with which data."""
    rows = await world.admin.fetch("SELECT actor, subject, data FROM fleet.audit_entries WHERE action = $1", action)
    return [dict(row) for row in rows]


async def looking(console: ConsoleWorld, role: Role, name: str = "") -> Browser:
    """Return somebody's browser, who looks at the world's own tenant."""
    browser = await console.person(role, name)
    await browser.open("/")
    await browser.send("/tenant", tenant=str(console.world.caller.tenant_id))
    return browser


async def test_a_discard_waits_for_another_approver_than_who_asked_and_the_journal_names_both(
    console: ConsoleWorld,
) -> None:
    world = console.world
    wallet = await world.wallet(10_000)
    await bury(world, *[await world.pay(wallet) for _ in range(3)])
    anna, boris = await console.person(Role.APPROVER, "anna"), await console.person(Role.APPROVER, "boris")
    await anna.open("/dead-letters", text="poison")
    assert anna.text.count("no permit was ever given") == 3
    await anna.open("/redrives/new", error_class="poison", action="DISCARD", reason="known rubbish", incident="INC-1")
    assert "3 letters" in anna.text
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.redrives") == 0
    await anna.send("/redrives")
    where = anna.page.url.path
    assert "another person with the role approver decides" in anna.text
    # A double click is the same redrive; her own approval is refused though her role would do.
    token = anna.form("/sign-out").fields["form_token"]
    own = await anna.http.post(f"{where}/approve", data={"form_token": token})
    assert (own.status_code, "redrive_own" in own.text) == (403, True)
    await boris.open(where)
    await boris.send(f"{where}/approve", reason="agreed")
    assert "Approved." in boris.text
    await run_redrives(world.core.worker_ports, world.uow)
    await boris.open(where)
    assert "0 wait" in boris.text
    asked, approved = await journal(world, "redrive_asked"), await journal(world, "redrive_approved")
    assert [each["actor"] for each in asked] == ["person:anna"]
    assert [each["actor"] for each in approved] == ["person:boris"]


async def test_the_same_form_sent_twice_is_one_redrive_and_a_cancel_gives_its_letters_back(
    console: ConsoleWorld,
) -> None:
    world = console.world
    await bury(world, await world.pay(await world.wallet(10_000)))
    olga = await console.person(Role.OPERATOR)
    asked = {"error_class": "poison", "action": "DISCARD", "reason": "rubbish", "incident": "INC-1"}
    await olga.open("/redrives/new", **asked)
    form = olga.form("/redrives").fields
    places = {(await olga.http.post("/redrives", data=form)).headers["location"] for _ in range(2)}
    assert len(places) == 1
    await olga.open(places.pop())
    where = olga.page.url.path
    await olga.send(f"{where}/cancel", reason="wrong kind")
    assert "Cancelled" in olga.text
    await olga.open("/redrives/new", **asked)
    assert "1 letters" in olga.text


async def test_a_payment_that_comes_back_shows_what_was_announced_of_it_and_why(console: ConsoleWorld) -> None:
    world = console.world
    intent = await paid(world, await world.wallet(10_000))
    await announce(world, await reference_of(world, intent))
    viewer = await looking(console, Role.VIEWER)
    await viewer.open(f"/intents/{intent}")
    assert "0.00 THB of 1.00 THB that were announced: account closed (AC04)" in viewer.text
    assert "its return account_closed AC04: 1.00 THB" in viewer.text


async def test_a_payment_tells_its_story_and_hides_its_payee_until_somebody_says_why(console: ConsoleWorld) -> None:
    world = console.world
    intent = await world.pay(await world.wallet(10_000))
    viewer, olga = await looking(console, Role.VIEWER), await looking(console, Role.OPERATOR)
    for browser in (viewer, olga):
        await browser.open("/intents")
        assert "payout" in browser.text
        for address in (f"/intents/{intent}", f"/intents?find={pay_job(intent)}"):
            await browser.open(address)
            assert "hold of 1.00 THB" in browser.text
            assert PAYEE not in browser.page.text
    refused = await olga.send(f"/intents/{intent}/reveal", reason="x")
    assert (refused.status_code, PAYEE in refused.text) == (422, False)
    assert await journal(world, "revealed") == []
    await olga.open(f"/intents/{intent}")
    await olga.send(f"/intents/{intent}/reveal", reason="the provider asks for the payee")
    assert PAYEE in olga.page.text
    (entry,) = await journal(world, "revealed")
    assert (entry["actor"], entry["subject"]) == ("person:operator", f"intent:{intent}")
    assert "the provider asks" in entry["data"]
    assert PAYEE not in entry["data"]


async def test_a_review_is_decided_on_its_page_by_an_approver(console: ConsoleWorld) -> None:
    world = console.world
    wallet = await world.wallet(10_000)
    first, second = [await world.pay(wallet, requires_monitoring=True) for _ in range(2)]
    petra = await looking(console, Role.APPROVER)
    await petra.open("/reviews")
    await petra.send(f"/reviews/{first}", decision="APPROVE")
    await petra.send(f"/reviews/{second}", decision="REJECT", reason="unknown payee")
    assert "Nothing waits for a decision." in petra.text
    states = await world.admin.fetch("SELECT id, state FROM fleet.intents WHERE id = ANY ($1)", [first, second])
    assert {row["id"]: row["state"] for row in states} == {first: "AUTHORIZED", second: "FAILED"}
    actors = await world.admin.fetch("SELECT actor FROM fleet.intent_events WHERE type LIKE 'review%'")
    assert {row["actor"] for row in actors} == {"person:approver"}


async def test_a_rail_is_paused_with_a_reason_and_resumed_and_shows_what_it_can_do(console: ConsoleWorld) -> None:
    olga = await console.person(Role.OPERATOR)
    await olga.open(f"/rails/{RAIL}")
    assert "not found horizon s" in olga.text
    assert (await olga.send(f"/rails/{RAIL}/pause", operation="")).status_code == 422
    await olga.open(f"/rails/{RAIL}")
    await olga.send(f"/rails/{RAIL}/pause", operation="", reason="the provider announced maintenance")
    assert "Paused: *" in olga.text
    assert "announced maintenance" in olga.text
    await olga.open("/")
    assert "Paused testrail *" in olga.text
    await olga.open(f"/rails/{RAIL}")
    await olga.send(f"/rails/{RAIL}/resume", operation="")
    assert "permits are given" in olga.text
    changes = [*await journal(console.world, "insert"), *await journal(console.world, "delete")]
    assert [each["actor"] for each in changes if each["subject"] == "rail_pauses"] == ["person:operator"] * 2


async def test_a_break_gets_an_owner_and_an_orphan_hold_is_given_back_by_two_people(console: ConsoleWorld) -> None:
    world = console.world
    intent = await world.pay(await world.wallet(10_000))
    await world.admin.execute("UPDATE fleet.jobs SET closed_at = now(), state = 'CLOSED' WHERE intent_id = $1", intent)
    await world.admin.execute("UPDATE fleet.intents SET state = 'FAILED' WHERE id = $1", intent)
    anna, boris = await console.person(Role.APPROVER, "anna"), await console.person(Role.APPROVER, "boris")
    await anna.open("/breaks")
    await anna.send("/breaks", what="intents")
    assert "orphan hold" in anna.text
    await anna.open("/")
    assert "No: breaks orphan_hold" in anna.text
    break_id = await world.admin.fetchval("SELECT id FROM fleet.breaks WHERE kind = 'orphan_hold'")
    where = f"/breaks/{break_id}"
    await anna.open(where)
    await anna.send(f"{where}/assign")
    assert "Owner anna" in anna.text
    await anna.send(f"{where}/resolve", reason="the job is gone")
    assert "another person with the role approver agrees" in anna.text
    await boris.open(where)
    await boris.send(f"{where}/approve")
    assert "Resolved by boris" in boris.text
    held = "SELECT sum(debits_pending) FROM fleet.accounts"
    assert await world.admin.fetchval(held) == 0


async def test_a_payment_is_settled_by_hand_on_evidence_by_two_people(console: ConsoleWorld) -> None:
    world = console.world
    intent = await world.pay(await world.wallet(10_000))
    olga, petra = await looking(console, Role.OPERATOR), await looking(console, Role.APPROVER)
    await olga.open(f"/intents/{intent}")
    told = {"outcome": "PAID", "provider_tx_id": "TX-1", "evidence": "line 17 of the register: paid", "reason": "seen"}
    await olga.send(f"/intents/{intent}/settle", **told, incident="INC-1")
    where = olga.page.url.path
    await petra.open(where)
    await petra.send(f"{where}/approve", reason="seen as well")
    state = await world.admin.fetchval("SELECT state FROM fleet.intents WHERE id = $1", intent)
    assert state == "SETTLED"
    (entry,) = await journal(world, "hand_settlement_approved")
    assert entry["actor"] == "person:approver"
    assert "person:operator" in entry["data"]


async def test_a_tenants_people_see_their_own_tenant_alone(console: ConsoleWorld) -> None:
    world = console.world
    intent = await world.pay(await world.wallet(10_000))
    (letter,) = await bury(world, intent)
    other = UUID("00000000-0000-7000-8000-0000000000aa")
    await world.admin.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'other')", other)
    for name, tenant, found in (("mine", world.caller.tenant_id, True), ("theirs", other, False)):
        await world.core.people.add("test", name=name, role=Role.ADMIN, tenant_id=tenant, password="long enough words")
        browser = await console.stranger()
        await browser.sign_in(name, "long enough words")
        for address in (f"/intents/{intent}", f"/dead-letters/{letter}"):
            assert (await browser.open(address)).status_code == (200 if found else 404), (name, address)
        await browser.open("/dead-letters")
        assert ("it is poison" in browser.text) is found
        await browser.open("/people")
        assert "theirs" in browser.text if not found else "theirs" not in browser.text
        for action, data in ((f"/rails/{RAIL}/pause", {"reason": "because"}), ("/breaks", {"what": "ledger"})):
            token = browser.form("/sign-out").fields["form_token"]
            answer = await browser.http.post(action, data=data | {"form_token": token})
            assert answer.status_code == 403, action


async def test_what_others_wrote_is_text_on_a_page_and_never_markup(console: ConsoleWorld) -> None:
    world = console.world
    intent = await world.pay(await world.wallet(10_000), reference="<script>alert(1)</script>")
    await bury(world, intent, message="<img src=x onerror=alert(2)>")
    olga = await looking(console, Role.OPERATOR)
    for address in ("/dead-letters", "/dead-letters/groups", f"/intents/{intent}", "/intents?find=<b>x</b>"):
        await olga.open(address)
        for markup in ("<script>alert", "<img src=x", "<b>x</b>"):
            assert markup not in olga.page.text, address


async def test_money_in_suspense_is_given_to_a_wallet_once_and_other_money_is_paid_back(console: ConsoleWorld) -> None:
    world = console.world
    wallet = await opened(world)
    first, second = await parked(world, 700), await parked(world, 900)
    olga = await looking(console, Role.OPERATOR)
    await olga.open("/suspense")
    assert "7.00 THB" in olga.text
    await olga.open(f"/suspense/{first}")
    form = olga.form(f"/suspense/{first}/assign").fields | {"wallet_id": str(wallet), "reason": "the payer called"}
    await world.admin.execute(
        "UPDATE fleet.tenants SET adjusts_alone_minor = 700 WHERE tenant_id = $1", world.caller.tenant_id
    )
    await olga.send(f"/suspense/{first}/assign", wallet_id=str(wallet), reason="the payer called")
    assert "The money was given to the wallet." in olga.text
    again = await olga.http.post(f"/suspense/{first}/assign", data=form)
    assert (again.status_code, "suspense_taken" in again.text) == (409, True)
    await olga.open(f"/suspense/{second}")
    await olga.send(f"/suspense/{second}/return", reason="nobody knows it")
    assert "State in review" in olga.text
    assert "who decides has the role approver" in olga.text
    vera = await looking(console, Role.APPROVER)
    await vera.open(f"/suspense/{second}")
    taker = await world.admin.fetchval("SELECT consumed_by FROM fleet.provider_payments WHERE id = $1", second)
    await vera.send(f"/reviews/{taker}", decision="APPROVE", reason="seen")
    await vera.open(f"/suspense/{second}")
    assert "State returning" in vera.text
    assert "approved by approver" in vera.text.lower()
    done = [each for action in ("suspense_assign", "suspense_return") for each in await journal(world, action)]
    assert [(each["actor"], each["subject"]) for each in done] == [
        ("person:operator", f"suspense:{first}"),
        ("person:operator", f"suspense:{second}"),
    ]
    await world.prove()


@pytest.mark.parametrize(
    ("page", "known", "named"),
    [
        ("/alerts", {"kind": "success_after_void"}, "success_after_void"),
        ("/breaks", {"kind": "orphan_hold"}, "orphan_hold"),
        ("/breaks", {"rail": RAIL}, "fleet rails list"),
        ("/alerts", {"state": "PROPOSED"}, "WAITING"),
        ("/breaks", {"state": "RESOLVED"}, "RESOLVED"),
        ("/suspense", {"state": "OPEN"}, "OPEN"),
        ("/redrives", {"state": "RUNNING"}, "RUNNING"),
        ("/intents", {"state": "SETTLED"}, "SETTLED"),
    ],
)
async def test_a_word_that_a_page_is_not_narrowed_by_is_refused_and_not_told_as_an_empty_list(
    console: ConsoleWorld, page: str, known: dict[str, str], named: str
) -> None:
    vera = await looking(console, Role.VIEWER)
    for each in (known, dict.fromkeys(known, "")):
        assert (await vera.open(page, **each)).status_code == 200
    refused = await vera.open(page, **dict.fromkeys(known, "nope"))
    assert (refused.status_code, named in vera.text) == (404 if "rail" in known else 422, True)


async def test_an_alert_is_a_row_that_says_what_stands_who_proposes_and_who_closed_it(console: ConsoleWorld) -> None:
    world = console.world
    intent = await world.pay(await world.wallet(10_000))
    await parked(world, 700)
    told = Alert(world.caller.tenant_id, "page", "success_after_void", intent, None, "T1 was paid after its void")
    doubted = Alert(world.caller.tenant_id, "page", "end_doubted", intent, None, "its provider calls it paid")
    async with world.uow() as uow:
        await raise_alerts(uow, [told, doubted])
    victor, anna = await looking(console, Role.VIEWER), await looking(console, Role.APPROVER, "anna")
    boris = await looking(console, Role.APPROVER, "boris")
    await victor.open("/alerts")
    shown = " ".join(victor.text.split())
    for text in ("success after void pages T1 was paid after its void", str(intent), "Nothing yet."):
        assert text in shown, text
    assert "suspense unknown reference testrail main T" in shown
    assert "Stays open: the money is still in suspense: nobody has decided whose it is." in shown
    await anna.open("/alerts", kind="success_after_void")
    await anna.send(f"/alerts/{told.id}/close", reason="the provider returned it")
    assert "Noted: the alert is closed once a second person agrees." in anna.text
    await boris.open("/alerts", state="PROPOSED")
    assert "anna proposed to close it: the provider returned it" in boris.text
    await boris.send(f"/alerts/{told.id}/approve", reason="I saw the return")
    async with world.uow() as uow:
        await close_alerts(uow, [intent], "end_doubted", "the books say what its provider says")
    await boris.open("/alerts", state="CLOSED")
    shown = " ".join(boris.text.split())
    assert "by boris, as anna proposed: the provider returned it" in shown
    assert "by the core itself: the books say what its provider says" in shown
    assert [each["actor"] for each in await journal(world, "alert_closed")] == ["person:boris"]


async def test_what_is_acted_on_is_what_the_list_was_narrowed_to_by_every_field(console: ConsoleWorld) -> None:
    narrowed = {name: str(uuid4()) for name in ("tenant_id", "intent_id", "job_id", "evidence_id")} | {
        "rail": RAIL, "error_class": "poison", "fingerprint": "poison-print", "operation": "PAYOUT", "provider": "psp",
        "trace_id": "a" * 32, "permits": "0", "text": "two words", "received_after": "2026-11-21 03:00",
        "received_before": "2026-11-22 03:00",
    }  # fmt: skip
    assert narrowed.keys() == LetterFields.model_fields.keys() == LetterSelection.model_fields.keys() - {"ids"}
    assert narrowed.keys() < LetterQuery.model_fields.keys()
    wallet = await console.world.wallet(10_000)
    await bury(console.world, await console.world.pay(wallet))
    olga = await console.person(Role.OPERATOR)
    await olga.open("/dead-letters", **narrowed)
    assert "No letter matches." in olga.text
    await olga.send("/redrives/new")
    assert narrowed.items() <= olga.form("/redrives/new").fields.items()
    await olga.open("/dead-letters/groups", rail=RAIL, text="poison", received_after="2020-01-01 03:00")
    kept = {"rail": RAIL, "text": "poison", "received_after": "2020-01-01 03:00"}
    links = [
        dict(parse_qsl(urlsplit(unescape(link)).query)) for link in re.findall(r'href="(/dead[^"]+)"', olga.page.text)
    ]
    assert [kept.items() <= link.items() for link in links if "fingerprint" in link] == [True]


async def test_a_redrive_by_tenant_counts_that_tenants_letters_and_no_others(console: ConsoleWorld) -> None:
    world = console.world
    await bury(world, await world.pay(await world.wallet(10_000)))
    olga = await console.person(Role.OPERATOR)
    terms = {"error_class": "poison", "reason": "rubbish", "incident": "INC-1"}
    for tenant, letters in ((world.caller.tenant_id, 1), (uuid4(), 0)):
        await olga.open("/redrives/new", tenant_id=str(tenant), **terms)
        assert f"{letters} letters" in olga.text
