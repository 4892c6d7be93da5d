"""The relay: due outbox rows become stream entries, through the gate, under one job id however often it dies."""

import asyncio
import contextlib
import time
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from core.bus.gate import BacklogGate
from core.services.settling.bus_ports import DispatchStore
from core.telemetry.catalogue import DISPATCHED
from schemas.envelope import Envelope
from schemas.jobs import JOB_TYPE
from schemas.streams import WHOLE, Part, whole_stream
from wire import functions
from wire.failpoints import failpoint
from wire.tracing import begin_each, end_each, is_on

STALL_HOLDS_S = 8.0
"""How long it counts that the streams were away: longer than it takes to notice that they are still."""
_ROOM_POLL_S = 0.05
"""How soon to look again where the gate left less room than a batch: nobody wakes us when an adapter has read."""
_SEVERAL: Final = 8
"""Fewer than so many at once are payments that come alone: whoever comes after them waits for nothing."""
_REST_EACH_S: Final = 0.002
_REST_LONGEST_S: Final = 0.1
_ENOUGH: Final = 200
"""So many share what a batch costs: with more of them each would save next to nothing."""


class StreamRelay:
    """Relays one stream of one rail, or of a part of it. Any number may run at once: rows are locked, never shared."""

    def __init__(
        self,
        store: DispatchStore,
        client: Redis,
        gate: BacklogGate,
        rail: str,
        stream: str,
        batch: int = 1000,
        part: Part = WHOLE,
    ) -> None:
        self._store, self._client, self.gate = store, client, gate
        self._rail, self.stream, self.batch, self._part = rail, stream, batch, part
        self.short_of_room = False
        self._stall_noted_at_s = -STALL_HOLDS_S

    async def relay_once(self) -> int:
        """Relay one batch and return its size; 0 where nothing is due or the gate is closed.

        A crash between XADD and commit leaves the rows: they are added again under the same job ids, and the
        permit makes that harmless.
        """
        room = await self.gate.room()
        self.short_of_room = room <= 0
        if room <= 0:
            if self.gate.backlog is None:
                await self._note_stall()
            return 0
        try:
            return await self._relay(room)
        except (RedisError, OSError, functions.ServerUnpreparedError):
            await self._note_stall()
            raise

    async def _relay(self, room: int) -> int:
        async with self._store.take_due(
            self._rail, whole_stream(self.stream), min(room, self.batch), self._part
        ) as batch:
            if not batch.rows:
                return 0
            self.short_of_room = room <= len(batch.rows) < self.batch
            envelopes = [Envelope(str(row.job_id), JOB_TYPE, row.body, row.traceparent) for row in batch.rows]
            told = [{"job_id": each.id, "stream": self.stream} for each in envelopes] if is_on() else []
            traced = begin_each("publish job", "PRODUCER", [each.traceparent for each in envelopes], told)
            if traced:
                pairs = zip(envelopes, traced, strict=True)
                envelopes = [each._replace(traceparent=span.traceparent) for each, span in pairs]
            failpoint("relay.before_xadd")
            entry_ids = await functions.dispatch(self._client, self.stream, envelopes)
            failpoint("relay.after_xadd")
            self.gate.added(len(entry_ids))
            await batch.mark(entry_ids)
            end_each(traced)
        DISPATCHED.labels(self._rail, self.stream).inc(len(entry_ids))
        return len(entry_ids)

    async def _note_stall(self) -> None:
        """Say, now and then, that the streams are away: what is not sent for that reason alone must not expire."""
        now_s = time.monotonic()
        if now_s - self._stall_noted_at_s >= STALL_HOLDS_S / 4:
            self._stall_noted_at_s = now_s
            await self._store.note_stall(self._rail, STALL_HOLDS_S)


async def relay_step(relay: StreamRelay, wake: asyncio.Event, poll_s: float) -> float:
    """Relay until nothing is due, then wait for a wake-up or the poll; return how long to gather, for `forever`."""
    wake.clear()
    # What becomes due while a batch is relayed wakes this stream again: only a full batch asks for another look.
    while (relayed := await relay.relay_once()) >= relay.batch:
        pass
    rested_at_s = time.monotonic() + _rest_s(relayed)
    with contextlib.suppress(TimeoutError):
        # Not `wait_for`: before Python 3.12 it loses a cancellation that comes together with the wake-up.
        async with asyncio.timeout(_ROOM_POLL_S if relay.short_of_room else poll_s):
            await wake.wait()
    return max(0.0, rested_at_s - time.monotonic())


def _rest_s(relayed: int) -> float:
    """Return how long after a batch of so many the next one may begin.

    Relay, permits, verdicts and settlement take this batch as it is, and each batch costs them as much as some forty
    payments do. What comes faster than one in `_REST_EACH_S` so grows into larger ones; what comes slower is soon
    relayed as it comes again.
    """
    return min(relayed * _REST_EACH_S, _REST_LONGEST_S) if _SEVERAL <= relayed < _ENOUGH else 0.0
