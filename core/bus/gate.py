"""The backlog gate: work waits in PostgreSQL, not in a stream that would have to drop it."""

import logging
import time
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from core.telemetry.catalogue import GATE_CLOSED

log = logging.getLogger(__name__)

_PARTS = 8
"""The room that is worth filling, as a part of what may wait."""
_REMEMBERED_PARTS = 16
"""What may be added to an answer that is remembered, as a part of high-water: other relays add as much unseen."""


@dataclass(frozen=True, slots=True)
class GateBounds:
    """Counts of entries and bytes. Between low and high the gate keeps its last answer."""

    high: int = 8_000
    low: int = 6_000
    length_max: int = 200_000
    memory_max_bytes: int = 2_000_000_000
    remembered_s: float = 0.0
    """How long an answer counts at most, while the backlog is below half of high-water and little is added to it."""
    unread_high: int | None = None
    """How many entries may wait that no consumer has got; None: as many as the backlog may have."""


class BacklogGate:
    """Answers how many entries may be added to one stream now. What is unknown is closed.

    Relays that ask at the same moment get the same answer, so the backlog may pass the high-water by one batch for
    each further relay: high-water stays that much below what the stream may hold.
    """

    def __init__(self, client: Redis, stream: str, group: str, bounds: GateBounds) -> None:
        self._client, self.stream, self.group, self._bounds = client, stream, group, bounds
        self.open = True
        self.backlog: int | None = None
        self.lag_unknown = False
        self._unread = self._added = 0
        self._remembered_until_s = 0.0
        GATE_CLOSED.labels(stream).set(False)

    async def room(self) -> int:
        """Return how many entries may be added: a good part of what may wait, or 0.

        0 while closed, while the server does not tell, and near the high-water: there each entry that is read would
        else ask for a transaction of its own, though whoever reads has plenty.
        """
        room = await self._room()
        return room if room >= min(self._bounds.high, self._unread_high) // _PARTS else 0

    async def _room(self) -> int:
        backlog, high = self.backlog, self._bounds.high
        few = self._added * _REMEMBERED_PARTS < high
        if backlog is not None and few and 2 * backlog < high and time.monotonic() < self._remembered_until_s:
            room = self._free(backlog)
            if 2 * room > self._unread_high:
                return room
        try:
            backlog, length, memory_bytes = await self._measure()
        except (RedisError, OSError, KeyError) as error:
            self.backlog = None
            self._turn(False, type(error).__name__)
            return 0
        self.backlog, self._added, bounds = backlog, 0, self._bounds
        limit = bounds.high if self.open else bounds.low
        wide = backlog < limit and length < bounds.length_max and memory_bytes < bounds.memory_max_bytes
        self._turn(wide, f"backlog {backlog}, length {length}, memory {memory_bytes}")
        self._remembered_until_s = time.monotonic() + bounds.remembered_s if wide else 0.0
        return self._free(backlog) if wide else 0

    @property
    def _unread_high(self) -> int:
        return self._bounds.high if self._bounds.unread_high is None else self._bounds.unread_high

    def _free(self, backlog: int) -> int:
        """Return the room that is left of the backlog, and of what may wait unread."""
        return max(0, min(self._bounds.high - backlog, self._unread_high - self._unread))

    def added(self, entries: int) -> None:
        """Count what was added since the last look."""
        if self.backlog is not None:
            self.backlog += entries
            self._added += entries
            self._unread += entries

    def _turn(self, now_open: bool, why: str) -> None:
        if now_open != self.open:
            log.warning("gate of %s %s: %s", self.stream, "opens" if now_open else "closes", why)
            self.open = now_open
            GATE_CLOSED.labels(self.stream).set(not now_open)

    async def _measure(self) -> tuple[int, int, int]:
        groups: list[dict[str, Any]]
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.xinfo_groups(self.stream)
            pipe.xlen(self.stream)
            pipe.info("memory")
            groups, length, memory = await pipe.execute()
        own = next((each for each in groups if each["name"].decode() == self.group), None)
        if own is None:
            raise ResponseError("NOGROUP")
        lag = own.get("lag")
        self.lag_unknown = lag is None
        if lag is None:
            # Deleted entries made the server's own count unknown: count, but no further than the bound.
            after = "(" + own["last-delivered-id"].decode()
            lag = len(await self._client.xrange(self.stream, after, "+", count=self._bounds.high + 1) or ())
        self._unread = int(lag)
        return self._unread + int(own["pending"]), int(length), int(memory["used_memory"])
