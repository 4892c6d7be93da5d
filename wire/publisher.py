"""Publishes completions as they come, several per call: what arrives while a call is in flight shares the next."""

import asyncio
import logging
from collections import deque
from itertools import islice

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from wire.consumer import StreamConsumer
from wire.failpoints import failpoint
from wire.functions import Completion, ServerUnpreparedError, settle

log = logging.getLogger(__name__)


class Publisher:
    """Settles held entries of one stream. Repeating a settle is safe: a result published twice is one fact."""

    def __init__(
        self,
        client: Redis,
        rail: str,
        stream: str,
        consumer_name: str,
        consumer: StreamConsumer,
        max_waiting: int = 10_000,
    ) -> None:
        self._client, self._rail, self._stream = client, rail, stream
        self._consumer_name, self._consumer = consumer_name, consumer
        self._waiting: deque[Completion] = deque()
        self._max_waiting = max_waiting
        self._room = asyncio.Event()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to publish; the task ends by `stop` alone."""
        self._task = asyncio.create_task(self._run(), name=f"publish {self._stream}")
        return self._task

    async def publish(self, *completions: Completion) -> None:
        """Queue completions; waits where the memory bound is reached."""
        while len(self._waiting) >= self._max_waiting:
            self._room.clear()
            await self._room.wait()
        if completions:
            self._waiting.extend(completions)
            self._arrived.set()

    async def stop(self, timeout_s: float) -> None:
        """Publish what waits, then end. What could not be published stays owned and is claimed later."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._waiting:  # noqa: ASYNC110 - bounded by the time-out
                    await asyncio.sleep(0.005)
        except TimeoutError:
            log.warning("%s completions of %s not published in time", len(self._waiting), self._rail)
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff_s = 0.05
        while True:
            await self._arrived.wait()
            batch = list(islice(self._waiting, 500))
            try:
                settled = await settle(self._client, self._rail, self._stream, self._consumer_name, batch)
            except NoPermissionError:
                # No repeat helps. Let go of, the entries are claimed after I by one that may publish them.
                log.exception("not allowed to publish to %s", self._rail)
                self._done(batch, [each.entry_id for each in batch])
                continue
            except (ServerUnpreparedError, RedisError, OSError) as error:
                log.warning("publishing to %s failed: %s", self._rail, type(error).__name__)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, 5.0)
                continue
            failpoint("adapter.after_publish")
            backoff_s = 0.05
            self._done(batch, [each.entry_id for each in settled])

    def _done(self, batch: list[Completion], entry_ids: list[str]) -> None:
        for _ in batch:
            self._waiting.popleft()
        self._room.set()
        self._consumer.forget(entry_ids)
        if not self._waiting:
            self._arrived.clear()
