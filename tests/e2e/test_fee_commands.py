"""`fleet fees` against a running stack: a rule is set, tried, listed and disabled by commands alone."""

import json
import re
from pathlib import Path
from typing import Any

from fleet.client import FleetClient
from fleet.stack.stack import Stack
from schemas.fees import FeeDryRunRequest
from schemas.operations import OperationType
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
    assert (tried["pre_minor"], tried["debited_minor"]) == (1750, 101_750)
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
