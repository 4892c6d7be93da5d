"""`fleet fees` against a running stack: a rule is set, tried, listed and disabled by commands alone."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

from fleet.client import FleetClient
from fleet.stack.stack import Stack
from schemas.api import AutoConfirm, IntentRequest, WalletRequest
from schemas.fees import FeeDryRunRequest
from schemas.operations import OperationType
from schemas.permits import Payee
from tests.support.commands import Fleet

PAGE = (Path(__file__).parents[2] / "docs/fees.md").read_text()


async def test_a_rule_lives_by_commands_alone(stack: Stack, fleet: Fleet, tmp_path: Path) -> None:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    # Of an operation that no other test of this stack pays by.
    rule: dict[str, Any] = json.loads(text) | {"operation": "DIRECT_DEBIT"}
    file = tmp_path / "rule.json"
    file.write_text(json.dumps(rule))
    made = (await fleet("fees", "set", str(file), "--json")).document
    assert (made["name"], made["version"], made["created_by"]) == ("payout-basic", 1, "fleet-cli")
    assert (await fleet("fees", "set", str(file), "--json")).document["version"] == 1
    tried = (await fleet("fees", "dry-run", "DIRECT_DEBIT", "100000", "thb", "--json")).document
    # Money in: the payer is asked for the fees on top, too.
    assert (tried["pre_minor"], tried["debited_minor"], tried["received_minor"]) == (1750, 101_750, 100_000)
    assert [leg["amount_minor"] for leg in tried["legs"]] == [1225, 525]
    asked = FeeDryRunRequest(operation=OperationType.DIRECT_DEBIT, amount_minor=100_000, currency="THB")
    async with FleetClient(stack.info.public_url, stack.info.key_id, stack.info.key_secret) as client:
        assert (await client.dry_run_fees(asked)).model_dump(mode="json") == tried
    shown = (await fleet("fees", "dry-run", "DIRECT_DEBIT", "100000", "--tier", "gold")).out
    assert "CONDITION_FALSE" in shown
    assert "payout-basic" in (await fleet("fees", "list")).out
    assert (await fleet("fees", "disable", "payout-basic", "--json")).document["enabled"] is False
    versions = (await fleet("fees", "list", "payout-basic", "--json")).document
    assert [each["version"] for each in versions] == [2, 1]


async def test_a_bad_rule_is_refused_in_one_line(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "rule.json"
    (await fleet("fees", "set", str(file))).must_fail(2, "file_unreadable")
    file.write_text('{"name": "x"}')
    (await fleet("fees", "set", str(file))).must_fail(2, "invalid_field")
    rule = {"name": "x", "operation": "PAYOUT", "currency": "THB", "fee": {"kind": "RATE"}, "when": "balance > 1"}
    file.write_text(json.dumps(rule))
    (await fleet("fees", "set", str(file))).must_fail(3, "fee_name_unknown")
    (await fleet("fees", "disable", "x")).must_fail(3, "not_found")
    (await fleet("fees", "dry-run", "PAYOUT", "0")).must_fail(2, "invalid_field")
    (await fleet("fees", "dry-run", "PAYOUT", "100", "--bought")).must_fail(2, "invalid_field")
    assert (await fleet("fees", "dry-run", "EXCHANGE", "100", "USD", "--bought", "--json")).document["post_minor"] == 0


async def test_a_payment_with_fees_settles_and_the_books_hold(stack: Stack, fleet: Fleet, tmp_path: Path) -> None:
    # Only payments of this channel are priced: other tests of this stack pay without fees.
    rules: list[dict[str, Any]] = [
        {"name": "e2e-on-top", "phase": "PRE", "fee": {"fixed_minor": 30}},
        {"name": "e2e-out-of", "phase": "POST", "fee": {"basis_points": 200}, "shares": [{}, {"qualifier": "cards"}]},
    ]
    for rule in rules:
        file = tmp_path / "rule.json"
        file.write_text(json.dumps(rule | {"operation": "PAYOUT", "currency": "THB", "when": "channel == 'e2e'"}))
        assert (await fleet("fees", "set", str(file), "--json")).document["enabled"]
    # A running core obeys within a second.
    await asyncio.sleep(1.2)
    async with FleetClient(stack.info.public_url, stack.info.key_id, stack.info.key_secret) as client:
        wallet = await client.create_wallet(WalletRequest(owner="fees", currency="THB", external_id=uuid4().hex))
        fund = IntentRequest(
            operation=OperationType.MANUAL_ADJUSTMENT, wallet_id=wallet.id, amount_minor=100_000, currency="THB"
        )
        await client.create_intent(fund, idempotency_key=uuid4().hex)
        pay = IntentRequest(
            operation=OperationType.PAYOUT,
            wallet_id=wallet.id,
            amount_minor=1_050,
            currency="THB",
            payee=Payee(type="mobile", value="0812345678"),
            auto_confirm=AutoConfirm(max_fee_minor=30),
            channel="e2e",
        )
        intent = await client.create_intent(pay, idempotency_key=uuid4().hex)
        assert (intent.fee_minor, intent.received_minor) == (30, 1_029)
        assert [leg.amount_minor for leg in intent.fees] == [30, 11, 10]
        while intent.state != "SETTLED":
            await asyncio.sleep(0.1)
            intent = await client.get_intent(intent.id)
            assert intent.failure is None, intent
        shown = await client.get_wallet(wallet.id)
    assert (shown.posted_minor, shown.held_minor) == (100_000 - 1_080, 0)
    assert "e2e-out-of" in (await fleet("intents", "show", str(intent.id))).out
    assert (await fleet("ledger", "verify")).code == 0
