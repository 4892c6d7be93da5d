"""The relay: due outbox rows become stream entries, through the gate, under one job id however often it dies."""

import asyncio
import contextlib

from redis.asyncio import Redis

from core.bus.gate import BacklogGate
from core.services.bus_ports import DispatchStore
from core.telemetry.catalogue import DISPATCHED
from schemas.envelope import Envelope
from schemas.jobs import JOB_TYPE
from wire import functions
from wire.failpoints import failpoint


class StreamRelay:
    """Relays one stream of one rail. Any number may run at once: rows are locked, never shared."""

    def __init__(
        self, store: DispatchStore, client: Redis, gate: BacklogGate, rail: str, stream: str, batch: int = 1000
    ) -> None:
        self._store, self._client, self.gate = store, client, gate
        self._rail, self._stream, self._batch = rail, stream, batch

    async def relay_once(self) -> int:
        """Relay one batch and return its size; 0 where nothing is due or the gate is closed.

        A crash between XADD and commit leaves the rows: they are added again under the same job ids, and the
        permit makes that harmless.
        """
        room = await self.gate.room()
        if room <= 0:
            return 0
        async with self._store.take_due(self._rail, self._stream, min(room, self._batch)) as batch:
            if not batch.rows:
                return 0
            envelopes = [Envelope(str(row.job_id), JOB_TYPE, row.body, row.traceparent) for row in batch.rows]
            failpoint("relay.before_xadd")
            entry_ids = await functions.dispatch(self._client, self._stream, envelopes)
            failpoint("relay.after_xadd")
            await batch.mark(entry_ids)
        DISPATCHED.labels(self._rail, self._stream).inc(len(entry_ids))
        return len(entry_ids)


async def relay_step(relay: StreamRelay, wake: asyncio.Event, poll_s: float) -> float:
    """Relay until nothing is due, then wait for a wake-up or the poll; for `forever`."""
    wake.clear()
    while await relay.relay_once():
        pass
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(wake.wait(), poll_s)
    return 0.0
