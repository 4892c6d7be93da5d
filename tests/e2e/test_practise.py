"""The page to practise with is run as it stands: a dead letter is made, found, explained, redriven, and paid."""

import re
import shlex
from pathlib import Path
from typing import Any

from tests.e2e.test_commands import until
from tests.support.commands import Fleet

PAGE = Path(__file__).parents[2] / "docs/practise.md"


async def test_the_commands_of_the_page_lead_from_a_dead_letter_to_a_payment(fleet: Fleet) -> None:
    lines = re.findall(r"^\$ fleet (.*)$", PAGE.read_text(), re.MULTILINE)
    names: dict[str, str] = {}
    told: dict[str, str] = {}
    try:
        for line in lines:
            words = [names.get(word, word) for word in shlex.split(line)]
            makes = {"wallets create": "WALLET", "intents create": "INTENT"}.get(" ".join(words[:2]))
            done = await fleet(*words, *(["--json"] if makes else []))
            assert done.code == 0, (line, done)
            if makes:
                names[makes] = done.document["id"]
            told[" ".join(words[:2])] = done.out
    finally:
        await fleet("rails", "resume", "promptpay")
    assert " of the class practice" in told["simulate give-up"]
    assert "the gateway rejects the envelope" in told["dlq explain"]
    assert "practice" in told["dlq groups"]
    assert "SAFE" in told["dlq list"]
    assert "DONE" in told["dlq redrive"]
    assert "PRACTICE-1" in told["audit list"]

    async def settled() -> Any:
        return (await fleet("intents", "show", names["INTENT"], "--json")).document["state"] == "SETTLED"

    await until(settled, "the payment is paid after all")
    (await fleet("simulate", "give-up", "promptpay")).must_fail(3, "rail_not_paused")
