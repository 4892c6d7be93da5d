"""What people on call do to money is a dry run until it is said with --yes: held against the table of commands."""

from collections.abc import Iterator
from typing import Any, Final

from fleet.cli.app import COMMANDS
from fleet.cli.later import Later

SHOWN_FIRST: Final = {
    "intents refund", "reviews approve", "suspense assign", "suspense return", "liquidity put", "liquidity take",
    "recon resolve", "recon approve", "dlq redrive", "dlq discard", "dlq settle", "redrives approve",
}  # fmt: skip
"""What moves money, or lets it move, in somebody else's name."""
AT_ONCE: Final = {
    "intents create": "the client's own payment, under a key of its own",
    "intents confirm": "the client's own answer, which names the amount and the fee",
    "intents cancel": "nothing moves: what was provably not sent is not sent",
    "intents ask": "a question",
    "quotes use": "the client's own exchange, at the price that the quote named",
    "reviews reject": "releases what is held to whose it is",
    "redrives reject": "nothing is sent",
    "redrives cancel": "nothing more is sent",
    "rails pause": "nothing is sent meanwhile",
    "rails resume": "what waits was asked for before",
}
"""What acts at once in the groups that touch money, and why it may."""
READS: Final = {"list", "show", "groups", "explain", "watch", "letters", "events", "breaks", "report", "registers",
                "register", "original", "ledger", "intents", "run", "fetch", "import", "assign", "new", "reveal",
                "overdraft", "create"}  # fmt: skip
"""What reads, compares, names an owner, or sets a rule; `suspense assign` is named above."""
GROUPS: Final = ("intents", "reviews", "suspense", "liquidity", "recon", "dlq", "redrives", "quotes", "rails")


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command of the groups that touch money."""
    for name, place, says in COMMANDS:
        if name in GROUPS:
            group: Any = Later(name, says, place).load()
            yield from ((f"{name} {verb}", command) for verb, command in group.commands.items())


def test_what_moves_money_is_shown_first_and_needs_yes() -> None:
    told = [(name, option) for name, command in commands() for option in command.params if "--yes" in option.opts]
    assert {name for name, option in told if not option.default} == SHOWN_FIRST


def test_every_other_command_of_these_groups_only_reads_or_says_why_it_acts_at_once() -> None:
    others = {name for name, _ in commands()} - SHOWN_FIRST
    assert AT_ONCE.keys() <= others
    assert {name for name in others - AT_ONCE.keys() if name.split()[1] not in READS} == set()
