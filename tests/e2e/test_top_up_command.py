"""A top-up by the commands that people type, on a running stack: shown, paid, credited by the provider's webhook."""

import asyncio
from typing import Any

import httpx
import pytest

from fleet.stack.stack import Stack
from schemas.codes.emvco import decode
from tests.e2e.test_commands import funded_wallet
from tests.support.commands import Fleet
from tests.support.waiting import PATIENCE_S

ENDED = {"SETTLED", "FAILED", "CANCELLED", "EXPIRED"}


async def shown(fleet: Fleet, intent: str, field: str, wanted: Any = None) -> dict[str, Any]:
    """Wait until the intent shows a field, or that it has this value; what has ended is waited for no longer."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            document: dict[str, Any] = (await fleet("intents", "show", intent, "--json")).document
            if document[field] == wanted if wanted is not None else document[field]:
                return document
            assert document["state"] not in ENDED, document
            await asyncio.sleep(0.25)


def sign_as(monkeypatch: pytest.MonkeyPatch, key: dict[str, str]) -> None:
    """Let the commands that follow be another key's."""
    monkeypatch.setenv("FLEET_KEY_ID", key["key_id"])
    monkeypatch.setenv("FLEET_KEY_SECRET", key["secret"])


async def test_a_top_up_is_shown_paid_and_credited_and_a_wrong_one_is_decided_about(
    fleet: Fleet, stack: Stack, monkeypatch: Any
) -> None:
    wallet = await funded_wallet(fleet)
    asked = ("--operation", "TOPUP", "--wallet", wallet, "--amount", "20.00")
    right = (await fleet("intents", "create", *asked, "--json")).document["id"]
    wrong = (await fleet("intents", "create", *asked, "--json")).document["id"]
    action = (await shown(fleet, right, "next_action"))["next_action"]
    assert (action["kind"], decode(action["payload"]).amount_minor) == ("QR", 2_000)
    assert action["payload"] in (await fleet("intents", "show", right)).out
    assert action["payload"] in (await fleet("collections", "list")).out
    await shown(fleet, wrong, "next_action")
    provider = next(place for place in stack.places if place.rail == "promptpay")
    async with httpx.AsyncClient(base_url=provider.url) as control:
        codes = (await control.get("/_control/codes")).json()["codes"]
        by_payload = {code["payload"]: code["client_ref"] for code in codes}
        other = (await fleet("intents", "show", wrong, "--json")).document["next_action"]["payload"]
        await control.post("/_control/pay", json={"reference": by_payload[action["payload"]]})
        await control.post("/_control/pay", json={"reference": by_payload[other], "amount_minor": 1_900})
    assert (await shown(fleet, right, "state", "SETTLED"))["provider_reference"]
    assert (await shown(fleet, wrong, "state", "FAILED"))["failure"]["code"] == "amount_differs"
    assert (await fleet("wallets", "show", wallet, "--json")).document["available_minor"] == 12_000
    part = ("intents", "refund", right, "--amount", "5.00", "--key", f"part-{right}", "--yes", "--json")
    refund = (await fleet(*part)).document
    assert (refund["direction"], refund["original_intent_id"], (await fleet(*part)).document["id"]) == (
        "OUT", right, refund["id"],
    )  # fmt: skip
    (await fleet("intents", "refund", right, "--yes")).must_fail(3, "refund_exceeds_original")
    assert (await shown(fleet, refund["id"], "state", "SETTLED"))["provider_reference"]
    assert (await fleet("wallets", "show", wallet, "--json")).document["available_minor"] == 11_500
    (await fleet("suspense", "list")).must_fail(3, "operation_not_permitted")
    key = (await fleet("keys", "create", "--name", "desk", "--operations", "SUSPENSE", "--json")).document
    sign_as(monkeypatch, key)
    (item,) = (await fleet("suspense", "list", "--intent", wrong, "--json")).document["items"]
    assert item["id"] in (await fleet("suspense", "list")).out
    assert "amount_differs" in (await fleet("suspense", "show", item["id"])).out
    (await fleet("suspense", "return", item["id"], "--reason", " ")).must_fail(2, "invalid_field")
    give_back = ("suspense", "return", item["id"], "--reason", "the payer asked", "--json")
    would = (await fleet(*give_back)).document
    assert (would["dry_run"], would["state"]) == (True, "OPEN"), "without --yes nothing moves"
    back = (await fleet(*give_back, "--yes")).document
    assert back["state"] == "IN_REVIEW"
    assign = ("suspense", "assign", item["id"], "--wallet", wallet, "--reason", "x", "--yes")
    (await fleet(*assign)).must_fail(3, "suspense_taken")
    desk, second = key, (await fleet("keys", "create", "--name", "second", "--operations", "REVIEW", "--json")).document
    sign_as(monkeypatch, second)
    assert back["taken_by"] in (await fleet("reviews", "list")).out
    assert (await fleet("reviews", "approve", back["taken_by"], "--yes")).code == 0
    sign_as(monkeypatch, desk)
    async with asyncio.timeout(PATIENCE_S):
        while back["state"] != "RETURNED":
            await asyncio.sleep(0.1)
            back = (await fleet("suspense", "show", item["id"], "--json")).document
    tolerated = (await fleet("collections", "tolerate", "TOPUP", "THB", "--below", "1.00", "--json")).document
    assert (tolerated["below_minor"], tolerated["above_minor"]) == (100, 0)
    assert "TOPUP" in (await fleet("collections", "tolerances")).out
    assert (await fleet("collections", "tolerate", "TOPUP", "THB")).code == 0


async def test_a_code_that_is_shown_is_scanned_and_paid_as_a_bill_and_both_sides_settle_by_the_commands(
    fleet: Fleet,
) -> None:
    shop, payer = await funded_wallet(fleet), await funded_wallet(fleet)
    asked = ("--operation", "TOPUP", "--wallet", shop, "--amount", "20.00")
    top_up = (await fleet("intents", "create", *asked, "--json")).document["id"]
    code = (await shown(fleet, top_up, "next_action"))["next_action"]["payload"]
    bill = ("--operation", "BILL_PAYMENT", "--wallet", payer, "--qr", code)
    (await fleet("intents", "create", *bill, "--amount", "19.99")).must_fail(3, "qr_amount_differs")
    (await fleet("intents", "create", *bill, "--amount", "20.00", "--payee", "mobile:0812345678")).must_fail(
        2, "payee_ambiguous"
    )
    paid = (await fleet("intents", "create", *bill, "--amount", "20.00", "--json")).document["id"]
    parts = (await shown(fleet, paid, "state", "SETTLED"))["lookup"]["qr"]
    assert (parts["kind"], parts["amount_minor"], parts["one_time"]) == ("bill_payment", 2_000, True)
    await shown(fleet, top_up, "state", "SETTLED")
    again = (await fleet("intents", "create", *bill, "--amount", "20.00", "--json")).document["id"]
    assert (await shown(fleet, again, "state", "FAILED"))["failure"]["code"] == "bill_already_paid"
    assert [(await fleet("wallets", "show", each, "--json")).document["available_minor"] for each in (shop, payer)] == [
        12_000,
        8_000,
    ]
