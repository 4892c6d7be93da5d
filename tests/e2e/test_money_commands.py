"""Refunds, adjustments, reviews and tenants by the commands that people type, against a running stack."""

import pytest

from tests.e2e.test_commands import funded_wallet
from tests.support.commands import Fleet


async def test_a_transfer_is_refunded_in_part_and_then_whole_by_command(fleet: Fleet) -> None:
    payer, payee = await funded_wallet(fleet), await funded_wallet(fleet)
    move = ("--operation", "INTERNAL_P2P", "--wallet", payer, "--to", payee, "--amount", "10.00", "--json")
    paid = (await fleet("intents", "create", *move)).document["id"]
    part = ("intents", "refund", paid, "--amount", "4.00", "--key", f"part-{paid}", "--yes", "--json")
    first = (await fleet(*part)).document
    assert (first["state"], first["original_intent_id"], first["amount_minor"]) == ("SETTLED", paid, 400)
    assert (await fleet(*part)).document["id"] == first["id"]
    (await fleet("intents", "refund", paid, "--yes")).must_fail(3, "refund_exceeds_original")
    assert (await fleet("intents", "refund", paid, "--amount", "6.00", "--yes")).code == 0
    (await fleet("intents", "refund", paid, "--amount", "0.01", "--yes")).must_fail(3, "refund_exceeds_original")
    (await fleet("intents", "refund", paid, "--amount", "0.001")).must_fail(2, "amount_over_precise")
    assert (await fleet("wallets", "show", payer, "--json")).document["available_minor"] == 10_000
    debit = ("--operation", "MANUAL_ADJUSTMENT", "--debit", "--wallet", payer, "--amount", "1.00")
    (await fleet("intents", "create", *debit)).must_fail(3, "operation_not_permitted")


async def test_a_payment_waits_until_another_key_decides_by_command(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer, payee = await funded_wallet(fleet), await funded_wallet(fleet)
    move = ("--operation", "INTERNAL_P2P", "--wallet", payer, "--to", payee, "--amount", "10.00", "--review")
    acting = ("--user", "alice", "--agent", "staff-17", "--json")
    first = (await fleet("intents", "create", *move, *acting)).document
    second = (await fleet("intents", "create", *move, "--json")).document
    assert (first["state"], first["on_behalf_of"]) == ("REVIEW", {"user": "alice", "agent": "staff-17"})
    (await fleet("reviews", "list")).must_fail(3, "operation_not_permitted")
    key = (await fleet("keys", "create", "--name", "reviewer", "--operations", "REVIEW", "--json")).document
    monkeypatch.setenv("FLEET_KEY_ID", key["key_id"])
    monkeypatch.setenv("FLEET_KEY_SECRET", key["secret"])
    waiting = (await fleet("reviews", "list", "--json")).document["items"]
    assert {first["id"], second["id"]} <= {each["id"] for each in waiting}
    assert first["id"] in (await fleet("reviews", "list")).out
    for _ in range(2):
        assert (await fleet("reviews", "approve", first["id"], "--yes", "--json")).document["state"] == "SETTLED"
    (await fleet("reviews", "reject", second["id"])).must_fail(2, "usage")
    (await fleet("reviews", "reject", second["id"], "--reason", " ")).must_fail(2, "invalid_field")
    rejected = (await fleet("reviews", "reject", second["id"], "--reason", "stolen phone", "--json")).document
    assert (rejected["state"], rejected["failure"]["message"]) == ("FAILED", "stolen phone")
    (await fleet("reviews", "approve", second["id"], "--yes")).must_fail(3, "wrong_state")
    monkeypatch.delenv("FLEET_KEY_ID")
    monkeypatch.delenv("FLEET_KEY_SECRET")
    assert (await fleet("wallets", "show", payer, "--json")).document["available_minor"] == 9_000


async def test_a_tenant_of_a_command_is_at_work_in_the_running_core_at_once(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = await funded_wallet(fleet)
    made = (await fleet("tenants", "create", "rival", "--json")).document
    monkeypatch.setenv("FLEET_KEY_ID", made["key_id"])
    monkeypatch.setenv("FLEET_KEY_SECRET", made["secret"])
    assert (await fleet("wallets", "create", "ben", "--external-id", "ben-1", "--json")).document["owner"] == "ben"
    (await fleet("wallets", "show", theirs)).must_fail(3, "not_found")
    assert (await fleet("intents", "list", "--json")).document["items"] == []


async def test_a_key_of_users_does_by_command_what_its_user_may(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    hers = await funded_wallet(fleet)
    made = ("keys", "create", "--name", "front", "--acts-for-users", "--json")
    key = (await fleet(*made)).document
    (await fleet(*made, "--rail", "noop")).must_fail(2, "rail_acts_for_nobody")
    monkeypatch.setenv("FLEET_KEY_ID", key["key_id"])
    monkeypatch.setenv("FLEET_KEY_SECRET", key["secret"])
    (await fleet("wallets", "show", hers)).must_fail(3, "on_behalf_of_missing")
    monkeypatch.setenv("FLEET_ON_BEHALF_OF", "ben")
    (await fleet("wallets", "show", hers)).must_fail(3, "account_not_permitted")
    monkeypatch.setenv("FLEET_ON_BEHALF_OF", "alice staff-17")
    assert (await fleet("wallets", "show", hers, "--json")).document["owner"] == "alice"
    assert (await fleet("wallets", "create", "ben")).code == 3
    for name in ("FLEET_ON_BEHALF_OF", "FLEET_KEY_ID", "FLEET_KEY_SECRET"):
        monkeypatch.delenv(name)
    told = (await fleet("audit", "list", "--subject", "user:alice", "--json")).document
    assert f"key:{key['key_id']} for alice by staff-17" in str(told)
