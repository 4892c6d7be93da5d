"""The gate of the results streams: while verdicts pile up unread, no adapter gets leave to make more of them."""

import asyncio
from collections.abc import Sequence

from core.bus.gate import BacklogGate, GateBounds
from core.bus.loop import forever
from schemas.streams import CORE_GROUP, Part, results_stream
from wire.client import StreamServers

LOOK_EVERY_S = 0.5


class ResultsThrottle:
    """Answers from the last look, so that a permit costs no round trip; `watch` keeps looking."""

    def __init__(self, servers: StreamServers, rails: Sequence[tuple[str, Part]], bounds: GateBounds) -> None:
        self._gates: dict[str, list[BacklogGate]] = {}
        for rail, part in rails:
            shard = part.shard(rail)
            gate = BacklogGate(servers.of(shard), results_stream(shard), CORE_GROUP, bounds)
            self._gates.setdefault(rail, []).append(gate)

    def throttled(self, rail: str) -> bool:
        """Return whether results of the rail are above high-water, or were not known at the last look."""
        return not all(gate.open for gate in self._gates.get(rail, ()))

    async def look(self) -> None:
        """Measure every rail's results stream once."""
        await asyncio.gather(*(gate.room() for gates in self._gates.values() for gate in gates))

    async def watch(self) -> None:
        """Look again and again, until cancelled."""

        async def step() -> float:
            await self.look()
            return LOOK_EVERY_S

        await forever("the results gate", step)
