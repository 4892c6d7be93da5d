"""A code that the command can print stands on its page, with its meaning."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_code_of_the_command_is_on_its_page() -> None:
    sources = "".join(path.read_text() for path in sorted((ROOT / "fleet" / "cli").glob("*.py")))
    raised = set(re.findall(r'CommandError\(\s*"([a-z0-9_]+)"', sources))
    pages = (ROOT / "docs" / "cli.md").read_text() + (ROOT / "docs" / "errors.md").read_text()
    assert len(raised) > 10
    assert raised - set(re.findall(r"`([a-z0-9_]+)`", pages)) == set()


def test_every_code_of_a_payees_or_a_payment_codes_fault_is_on_the_commands_page() -> None:
    sources = "".join(path.read_text() for path in sorted((ROOT / "schemas" / "codes").glob("*.py")))
    raised = set(re.findall(r'"([a-z_]+_(?:malformed|checksum_[a-z]+))"', sources))
    page = (ROOT / "docs" / "cli.md").read_text()
    listed = set(re.findall(r"`([a-z0-9_]+)`", page))
    assert {"mobile_malformed", "link_checksum_mismatch"} <= raised
    assert {code for code in raised - listed if not code.startswith("qr_")} == set()
