"""The consumer of one stream: reads, takes back, claims, keeps alive and gives back what it has not started.

It creates nothing on the server. Where the group or the functions are missing it backs off until the core has
healed them, and goes on without a restart.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from faststream.redis import RedisBroker
from prometheus_client import Counter
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from schemas.envelope import Envelope, EnvelopeError, UnknownVersionError, decode_envelope, raw_text
from wire import functions
from wire.client import BLOCK_MS
from wire.feed import BatchFeed, Entry

log = logging.getLogger(__name__)

REDELIVERIES: Final = Counter(
    "fleet_redeliveries_total", "Entries that came again: their consumer died or let go.", ["stream", "group"]
)
BACKOFF_CAP_S = 5.0
START_GRACE_S = 30.0
"""So long a consumer that has read nothing yet waits in silence for groups and functions: the core starts beside it."""
_FULL_S: Final = 0.01
"""How long who finds no room waits before it looks again."""
PARK_AFTER_IDLES = 10
"""Claim idle times after which an entry of an unknown schema version is kept in PostgreSQL instead."""


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """Who reads what, and how long a claim lives. `max_age_s` ends the heartbeat of hung work."""

    stream: str
    group: str
    consumer: str
    claim_idle_s: float = 60.0
    max_age_s: float = 600.0
    max_records: int = 100
    block_ms: int = BLOCK_MS


@dataclass(slots=True)
class Delivery:
    """One entry in our hands. Exactly one of `envelope` and `error` is set.

    The handler sets `started` before it acts; what was never started is released on drain.
    """

    stream: str
    entry_id: str
    envelope: Envelope | None
    error: EnvelopeError | None
    deliveries: int
    first_seen_monotonic: float = field(default_factory=time.monotonic)
    started: bool = False
    counted: bool = True
    """False while it is set aside: then the server does not count this delivery."""
    raw: str = ""
    """The fields as they came (`schemas.envelope.raw_text`), where they are no envelope that we can read."""

    @property
    def must_run_alone(self) -> bool:
        """A second delivery runs alone, so that a poison entry takes no neighbour along."""
        return self.deliveries > 1

    def waits_for_newer(self, claim_idle_s: float) -> bool:
        """Whether this is a version for a newer consumer that may still come; past the bound it is to be parked."""
        if not isinstance(self.error, UnknownVersionError):
            return False
        age_s = time.time() - int(self.entry_id.partition("-")[0]) / 1000
        return age_s <= PARK_AFTER_IDLES * claim_idle_s


def _report_deleted(entry_ids: list[str]) -> None:
    log.error("entries deleted while pending: %s", entry_ids)


def _unlimited() -> int:
    return 1_000_000


class StreamConsumer:
    """Delivers entries to `handle` and holds each until `forget` or `release` names it."""

    def __init__(
        self,
        client: Redis,
        settings: ConsumerSettings,
        handle: Callable[[list[Delivery]], Awaitable[None]],
        capacity: Callable[[], int] = _unlimited,
        on_deleted: Callable[[list[str]], None] = _report_deleted,
    ) -> None:
        self._client = client
        self._settings = settings
        self._handle = handle
        self._capacity = capacity
        self._on_deleted = on_deleted
        self.held: dict[str, Delivery] = {}
        self._reading = asyncio.Event()
        self._reading.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._handling = asyncio.Lock()
        self._claiming = asyncio.Lock()
        self._stopping = False
        self._claims_first = False
        self._took_back = False
        self._take_back_after = "0"
        own = settings
        self._feed = BatchFeed(client, own.stream, own.group, own.consumer, own.max_records, self._parse, self._hold)

    @property
    def broker(self) -> RedisBroker:
        """FastStream's broker that the batches pass through: for its AsyncAPI document."""
        return self._feed.broker

    def start(self) -> None:
        """Begin to read, claim and keep alive."""
        beat_s = min(self._settings.claim_idle_s / 3, 5.0)
        for step, pause_s in ((self._read, 0.0), (self._claim, beat_s), (self._beat, beat_s)):
            self._tasks.append(asyncio.create_task(self._forever(step, pause_s)))

    def pause(self) -> None:
        """Take no new entries; what is held stays alive."""
        self._reading.clear()

    def resume(self) -> None:
        """Take entries again."""
        self._reading.set()

    def forget(self, entry_ids: Sequence[str]) -> None:
        """These entries are settled: hold them no longer."""
        for entry_id in entry_ids:
            self.held.pop(entry_id, None)

    def hold_again(self, delivery: Delivery) -> None:
        """Hold what may have been lost before it began; another delivery of the same entry stays."""
        self.held.setdefault(delivery.entry_id, delivery)

    async def set_aside(self, deliveries: Sequence[Delivery]) -> None:
        """Keep these without counting them until they begin: what waits its turn did not fail when we die."""
        own, waiting = self._settings, [delivery for delivery in deliveries if delivery.counted]
        for delivery in waiting:
            delivery.counted = False
        if waiting:
            ids = [delivery.entry_id for delivery in waiting]
            await functions.release(self._client, own.stream, own.group, own.consumer, 0, ids)

    async def count_again(self, deliveries: Sequence[Delivery]) -> None:
        """Count deliveries that were set aside: they begin, or are given back as they came."""
        own, aside = self._settings, [delivery for delivery in deliveries if not delivery.counted]
        if aside:
            entries = [(delivery.entry_id, delivery.deliveries) for delivery in aside]
            await functions.count_again(self._client, own.stream, own.group, own.consumer, entries)
        for delivery in aside:
            delivery.counted = True

    async def release(self, entry_ids: Sequence[str]) -> None:
        """Give entries back, claimable at once; the delivery does not count."""
        if not entry_ids:
            return
        own = self._settings
        await self.count_again([self.held[entry] for entry in entry_ids if entry in self.held])
        idle_ms = int(own.claim_idle_s * 1000)
        await functions.release(self._client, own.stream, own.group, own.consumer, idle_ms, entry_ids)
        self.forget(entry_ids)

    async def drain(self, timeout_s: float) -> None:
        """Stop reading, wait for what was started, release the rest. Unfinished work stays pending."""
        deadline = time.monotonic() + timeout_s
        self._stopping = True
        self._reading.set()
        # A read that is cancelled in flight would leave entries that are ours and that nobody holds.
        if self._tasks:
            await asyncio.wait(self._tasks[:1], timeout=self._settings.block_ms / 1000 + timeout_s)
        async with self._claiming, self._handling:
            for task in self._tasks[:2]:
                task.cancel()
        await asyncio.gather(*self._tasks[:2], return_exceptions=True)
        try:
            await self.release([entry for entry, held in self.held.items() if not held.started])
        except (functions.ServerUnpreparedError, RedisError, OSError) as error:
            # They stay pending and are claimed after I: a drain must end although the server is down.
            log.warning("stream %s: unstarted entries not released: %s", self._settings.stream, type(error).__name__)
            self.forget([entry for entry, held in self.held.items() if not held.started])
        while self.held and time.monotonic() < deadline:  # noqa: ASYNC110 - bounded by the deadline
            await asyncio.sleep(0.01)
        for task in self._tasks[2:]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._feed.close()

    async def _forever(self, step: Callable[[], Awaitable[None]], pause_s: float) -> None:
        failures, told, grace_until = 0, False, time.monotonic() + START_GRACE_S
        while not self._stopping or step == self._beat:
            try:
                await step()
                failures, told, grace_until = 0, False, 0.0
                await asyncio.sleep(pause_s)
            except Exception as error:
                failures += 1
                known = isinstance(error, functions.ServerUnpreparedError | RedisError | OSError)
                expected = isinstance(error, functions.ServerUnpreparedError) and time.monotonic() < grace_until
                if not (told or expected):
                    told = True
                    # What nobody foresaw must not end a loop in silence: it is shown whole, and tried again.
                    log.warning("stream %s: %s", self._settings.stream, type(error).__name__, exc_info=not known)
                ceiling_s = min(BACKOFF_CAP_S, 0.05 * 2.0 ** min(failures, 8))
                await asyncio.sleep(random.uniform(ceiling_s / 2, ceiling_s))  # noqa: S311 - jitter

    async def _read(self) -> None:
        await self._reading.wait()
        if self._stopping:
            return
        room = min(self._settings.max_records, self._capacity())
        if room <= 0 or self._claims_first:
            await asyncio.sleep(_FULL_S)
            return
        own, since = self._settings, ">" if self._took_back else self._take_back_after
        try:
            answer: Any = await self._client.xreadgroup(
                own.group, own.consumer, {own.stream: since}, count=room, block=own.block_ms
            )
        except ResponseError as error:
            # A wiped server forgot what was ours, so the next read starts from our own pending again.
            self._took_back, self._take_back_after = False, "0"
            raise functions.typed_error(error) from error
        entries = answer[0][1] if answer else []
        # A group that was made anew delivers again what we still work on: once it is done, that one is acked.
        fresh = [(entry, fields) for entry, fields in entries if entry.decode() not in self.held]
        if since == ">":
            await self._deliver(fresh, counted=False)
            return
        await self._deliver(fresh, counted=True)
        # Page by page, so that more than one page of our own pending is taken back once each.
        self._took_back = not entries
        self._take_back_after = entries[-1][0].decode() if entries else "0"

    async def _claim(self) -> None:
        # Before our own pending is taken back, a claim could be handed to us a second time by that reading.
        if self._took_back:
            async with self._claiming:
                await self._claim_all()

    async def _claim_all(self) -> None:
        # The older go first: were new ones to take the room that this walk waits for, it would end with the stream.
        self._claims_first = True
        try:
            await self._walk_claimable()
        finally:
            self._claims_first = False

    async def _walk_claimable(self) -> None:
        own, cursor = self._settings, b"0-0"
        while not self._stopping and self._reading.is_set():
            room = min(own.max_records, self._capacity())
            if room <= 0:
                await asyncio.sleep(_FULL_S)
                continue
            try:
                cursor, entries, deleted = await self._client.xautoclaim(
                    own.stream, own.group, own.consumer, int(own.claim_idle_s * 1000), cursor, count=room
                )
            except ResponseError as error:
                raise functions.typed_error(error) from error
            if deleted:
                self._on_deleted([entry.decode() for entry in deleted])
            again = [entry.decode() for entry, _ in entries if entry.decode() in self.held]
            await self._deliver([each for each in entries if each[0].decode() not in self.held], counted=True)
            await self._undo_claim(again)
            if cursor == b"0-0":
                return

    async def _undo_claim(self, entry_ids: Sequence[str]) -> None:
        """Of what we hold already, nothing is handled twice at once; work that hangs is left to another consumer."""
        own, oldest = self._settings, time.monotonic() - self._settings.max_age_s
        held = {entry: self.held[entry] for entry in entry_ids if entry in self.held}
        hung = [entry for entry, each in held.items() if each.started and each.first_seen_monotonic <= oldest]
        for idle_s, chosen in ((own.claim_idle_s, hung), (0.0, [entry for entry in held if entry not in hung])):
            if chosen:
                idle_ms = int(idle_s * 1000)
                await functions.release(self._client, own.stream, own.group, own.consumer, idle_ms, chosen)

    async def _deliver(self, entries: Sequence[Entry], counted: bool) -> None:
        own = self._settings
        gone = [entry.decode() for entry, fields in entries if not fields]
        if gone:
            self._on_deleted(gone)
            await functions.ack(self._client, own.stream, own.group, own.consumer, gone)
        kept = [(entry, fields) for entry, fields in entries if fields]
        if not kept:
            return
        counts = [1] * len(kept)
        if counted:
            ids = [entry.decode() for entry, _ in kept]
            counts = await functions.delivery_counts(self._client, own.stream, own.group, ids)
        if again := sum(1 for count in counts if count > 1):
            REDELIVERIES.labels(own.stream, own.group).inc(again)
        await self._feed.open()
        await self._feed.consume(kept, counts)

    def _parse(self, entries: Sequence[Entry], counts: Sequence[int]) -> list[Delivery]:
        return [
            self._delivery(entry.decode(), fields, count)
            for (entry, fields), count in zip(entries, counts, strict=True)
        ]

    async def _hold(self, batch: list[Delivery]) -> None:
        self.held.update((delivery.entry_id, delivery) for delivery in batch)
        async with self._handling:
            try:
                await self._handle(batch)
            except Exception:
                # Not kept alive any longer, the entries become claimable after I, one delivery older.
                log.exception("handler of %s failed", self._settings.stream)
                self.forget([delivery.entry_id for delivery in batch])

    def _delivery(self, entry_id: str, fields: Mapping[bytes, bytes], count: int) -> Delivery:
        try:
            return Delivery(self._settings.stream, entry_id, decode_envelope(fields), None, count)
        except EnvelopeError as error:
            return Delivery(self._settings.stream, entry_id, None, error, count, raw=raw_text(fields))

    async def _beat(self) -> None:
        own, oldest = self._settings, time.monotonic() - self._settings.max_age_s
        # Work that hangs is left to another; what only waits for its turn is ours however long it waits.
        alive = [entry for entry, held in self.held.items() if not held.started or held.first_seen_monotonic > oldest]
        if not alive:
            return
        owned = await functions.heartbeat(self._client, own.stream, own.group, own.consumer, alive)
        lost = [entry for entry, mine in zip(alive, owned, strict=True) if not mine]
        unstarted = [entry for entry in lost if entry in self.held and not self.held[entry].started]
        self.forget(unstarted)
