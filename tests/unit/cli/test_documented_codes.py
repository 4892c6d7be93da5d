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
