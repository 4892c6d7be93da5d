"""The gate of the results streams: while verdicts pile up unread, no adapter gets leave to make more of them."""

import asyncio
from collections.abc import Sequence

from core.bus.gate import BacklogGate, GateBounds
from core.bus.loop import forever
from schemas.streams import CORE_GROUP, results_stream
from wire.client import StreamServers

LOOK_EVERY_S = 0.5


class ResultsThrottle:
    """Answers from the last look, so that a permit costs no round trip; `watch` keeps looking."""

    def __init__(self, servers: StreamServers, rails: Sequence[str], bounds: GateBounds) -> None:
        self._gates = {rail: BacklogGate(servers.of(rail), results_stream(rail), CORE_GROUP, bounds) for rail in rails}

    def throttled(self, rail: str) -> bool:
        """Return whether the rail's results are above high-water, or were not known at the last look."""
        gate = self._gates.get(rail)
        return gate is not None and not gate.open

    async def look(self) -> None:
        """Measure every rail's results stream once."""
        await asyncio.gather(*(gate.room() for gate in self._gates.values()))

    async def watch(self) -> None:
        """Look again and again, until cancelled."""

        async def step() -> float:
            await self.look()
            return LOOK_EVERY_S

        await forever("the results gate", step)
