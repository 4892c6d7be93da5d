"""Results and dead letters into PostgreSQL: a whole read is one transaction, and the ack comes after its commit."""

import asyncio
import logging
import random
from typing import Final

from redis.asyncio import Redis

from core.services.settling.bus_ports import Receive
from schemas.streams import CORE_GROUP
from wire import functions
from wire.consumer import ConsumerSettings, Delivery, StreamConsumer
from wire.failpoints import failpoint

log = logging.getLogger(__name__)

_FEW: Final = 4
"""Of so few results, the next ones gain more by not waiting than they would save by being settled together."""


class Inbox:
    """Consumes one stream of one rail into `receive`. Started by `start`, ended by `stop`.

    Its `relief`, another consumer of the same stream, reads along while whole batches wait: one parses what it read
    while the database is busy with what the other did. It does while few come, too, which then wait for none before
    them. In between, one alone makes the larger batches.
    """

    def __init__(
        self,
        client: Redis,
        rail: str,
        stream: str,
        consumer: str,
        receive: Receive,
        *,
        batch: int = 500,
        claim_idle_s: float = 60.0,
        relief: "Inbox | None" = None,
    ) -> None:
        self._batch, self._relief = batch, relief
        self._client, self._rail, self._stream, self._name = client, rail, stream, consumer
        self._receive, self._claim_idle_s = receive, claim_idle_s
        settings = ConsumerSettings(stream, CORE_GROUP, consumer, claim_idle_s=claim_idle_s, max_records=batch)
        self._consumer = StreamConsumer(client, settings, self._handle)

    def start(self) -> None:
        """Begin to consume."""
        self._consumer.start()

    async def stop(self, timeout_s: float) -> None:
        """Finish the batch in hand and give the rest back."""
        await self._consumer.drain(timeout_s)

    def read_along(self, *, wanted: bool) -> None:
        """Read, or read no more. What is in hand is finished."""
        (self._consumer.resume if wanted else self._consumer.pause)()

    async def _handle(self, batch: list[Delivery]) -> None:
        if self._relief is not None:
            self._relief.read_along(wanted=not _FEW < len(batch) < self._batch)
        newer = [each.entry_id for each in batch if each.waits_for_newer(self._claim_idle_s)]
        known = [each for each in batch if not each.waits_for_newer(self._claim_idle_s)]
        if newer:
            # Not ours to judge: they stay pending for a newer consumer. Past the bound they are parked, raw.
            log.error("%d entries of %s have an unknown schema version", len(newer), self._stream)
            await self._consumer.release(newer)
        if not known:
            return
        for each in known:
            each.started = True
        done = await self._until_committed(known)
        failpoint("settler.after_commit")
        self._consumer.forget([each.entry_id for each in known])
        await functions.ack(self._client, self._stream, CORE_GROUP, self._name, list(done))

    async def _until_committed(self, batch: list[Delivery]) -> list[str]:
        failures = 0
        while True:
            try:
                return list(await self._receive(self._rail, batch))
            except Exception as error:  # noqa: BLE001 - the entries are kept, whatever failed
                # The entries stay ours and alive: a database that is away costs time, never a verdict.
                failures += 1
                if failures == 1:
                    log.warning("%s cannot be received: %s: %s", self._stream, type(error).__name__, error)
                ceiling_s = min(5.0, 0.1 * 2 ** min(failures, 6))
                await asyncio.sleep(random.uniform(ceiling_s / 2, ceiling_s))  # noqa: S311 - jitter
