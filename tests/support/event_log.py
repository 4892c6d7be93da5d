"""What the log of events must say of every intent, whatever happened to it."""

from itertools import pairwise

import asyncpg

from core.domain.intents import may_move
from schemas.events import IntentState

_LOGS = """
SELECT i.id, i.state, i.version, i.accept_state, array_agg(e.seq ORDER BY e.seq) AS seqs,
    array_agg(e.state ORDER BY e.seq) AS states, array_agg(e.type ORDER BY e.seq) AS types,
    array_agg(e.position ORDER BY e.seq) AS positions
FROM fleet.intents i LEFT JOIN fleet.intent_events e ON e.intent_id = i.id
GROUP BY i.id, i.state, i.version, i.accept_state
"""
_IN_PLACE = frozenset({"paid_after_void", "awaiting_payment", "cancel_requested"})


async def prove_events(connection: asyncpg.Connection) -> int:
    """Assert one event per change of every intent, in an order that its life allows; return how many intents."""
    logs = await connection.fetch(_LOGS)
    for log in logs:
        assert log["seqs"] == list(range(1, log["version"] + 1)), log
        assert log["positions"] == sorted(log["positions"]), log
        assert (log["types"][0], log["states"][0]) == ("accepted", log["accept_state"]), log
        assert log["states"][-1] == log["state"], log
        for (before, after), kind in zip(pairwise(log["states"]), log["types"][1:], strict=True):
            # Told where the intent is: the state stays.
            stays = kind in _IN_PLACE and before == after
            assert stays or may_move(IntentState(before), IntentState(after)), log
    return len(logs)
