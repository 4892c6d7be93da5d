"""Parked entries on their way back: once somebody reads their schema version they are added again, as they were."""

import logging
from typing import Any

from redis.asyncio import Redis

from core.bus.gate import BacklogGate, GateBounds
from core.services.settling.bus_ports import ParkingStore
from schemas.envelope import raw_fields
from schemas.streams import WHOLE, Part, groups_of

log = logging.getLogger(__name__)


class Readder:
    """Adds one rail's parked entries again. Any number may run at once: entries are locked, never shared."""

    def __init__(
        self,
        client: Redis,
        store: ParkingStore,
        rail: str,
        bounds: GateBounds | None = None,
        batch: int = 500,
        part: Part = WHOLE,
    ) -> None:
        self._client, self._store, self._rail, self._batch = client, store, rail, batch
        bounds = bounds or GateBounds()
        self._gates = [BacklogGate(client, stream, group, bounds) for stream, group in groups_of(part.shard(rail))]

    async def readd_once(self) -> int:
        """Add one batch of each stream again, as far as its gate allows; return how many were added.

        A crash between XADD and commit adds them once more: of a job the permit makes that harmless, of a result
        the inbox.
        """
        return sum([await self._readd(gate) for gate in self._gates])

    async def _readd(self, gate: BacklogGate) -> int:
        if (room := await gate.room()) <= 0:
            return 0
        limit = min(room, self._batch)
        async with self._store.take_readable(self._rail, gate.stream, gate.group, limit) as batch:
            if not batch.entries:
                return 0
            async with self._client.pipeline(transaction=False) as pipeline:
                for entry in batch.entries:
                    fields: dict[Any, Any] = raw_fields(entry.fields)
                    pipeline.xadd(gate.stream, fields)
                added = await pipeline.execute()
            await batch.mark([entry_id.decode() for entry_id in added])
        log.warning("%d parked entries of %s can be read now and are added again", len(added), gate.stream)
        return len(added)
