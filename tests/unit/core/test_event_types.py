"""The types by which events are narrowed are those that the core writes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core.services.payments.cancel import _EVENT as CANCELLED
from core.services.payments.reviews import _APPROVED, _REJECTED
from core.services.settling.completer import _OUTCOME as ABANDONED
from schemas.events import EventType, IntentState

CORE: Final = Path(__file__).parents[3] / "core"
NAMED: Final = {"_EVENT": CANCELLED, "_APPROVED": _APPROVED, "_REJECTED": _REJECTED, "_OUTCOME": ABANDONED}
MOVES: Final = {"Move", "close_if_unsent", "unsent_endings"}
BY_STATE: Final = {
    "self.state.lower()": {IntentState.AUTHORIZED, IntentState.SETTLED, IntentState.REVIEW, IntentState.FAILED},
    "to.lower()": {IntentState.CANCELLED, IntentState.EXPIRED},
}
"""What is called as the state that it brings, and which states those are."""


def told_types() -> set[str]:
    """Return every type that a move or a statement of the core names."""
    found = set[str]()
    for path in CORE.rglob("*.py"):
        text = path.read_text()
        found |= {each for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) for each in types_of(node)}
    for path in (*CORE.rglob("*.py"), *CORE.rglob("*.sql")):
        statements = re.findall(r"INSERT INTO fleet\.intent_events.*?FROM", path.read_text(), re.DOTALL)
        found |= {name for each in statements for name in re.findall(r"tenant_id, '(\w+)', ", each)}
    return found


def types_of(call: ast.Call) -> Iterator[str]:
    """Yield what a call that moves an intent says of the event's type."""
    if ast.unparse(call.func) not in MOVES:
        return
    third = call.args[2:3] if ast.unparse(call.func) == "Move" else []
    for node in [*third, *(each.value for each in call.keywords if each.arg == "type")]:
        text = ast.unparse(node)
        if isinstance(node, ast.Constant):
            yield str(node.value)
        elif text in BY_STATE:
            yield from (state.lower() for state in BY_STATE[text])
        elif text != "type":  # handed through
            yield NAMED[text]


def test_events_are_narrowed_by_the_types_that_the_core_writes() -> None:
    assert set(EventType) == told_types()
