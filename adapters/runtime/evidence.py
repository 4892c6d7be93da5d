"""Brings raw answers to the core before the verdict is published, in batches, without ever blocking money."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from adapters.runtime import metrics
from adapters.runtime.core_client import CoreUnavailableError, EvidencePort
from adapters.runtime.telling import in_halves
from schemas.rails import EvidenceItem

log = logging.getLogger(__name__)

BATCH: Final = 200
BATCH_BYTES: Final = 1024 * 1024
"""How much raw text one request carries, but for a piece that has more alone: the core reads four times that."""

Waiting = tuple[EvidenceItem, asyncio.Future[bool]]


class EvidenceKeeper:
    """Posts evidence as it comes. What the core does not take in time is repeated behind the verdict's back."""

    def __init__(self, port: EvidencePort, rail: str, *, within_s: float = 2.0, bound: int = 5_000) -> None:
        self._port, self._rail = port, rail
        self._within_s, self._bound = within_s, bound
        self._waiting: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin to post; the task ends by `stop` alone."""
        self._task = asyncio.create_task(self._run(), name="evidence")
        return self._task

    async def keep(self, item: EvidenceItem) -> bool:
        """Return True once the core has the item, False if it has not within the bound (it is repeated)."""
        if len(self._waiting) >= self._bound:
            metrics.EVIDENCE_DROPPED.labels(self._rail).inc()
            return False
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, taken))
        self._arrived.set()
        done, _ = await asyncio.wait([taken], timeout=self._within_s)
        if not done:
            metrics.EVIDENCE_LATE.labels(self._rail).inc()
        return bool(done) and taken.result()

    async def stop(self, timeout_s: float) -> None:
        """Post what waits, for at most `timeout_s`; the rest is counted as dropped."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._waiting and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._waiting:
            metrics.EVIDENCE_DROPPED.labels(self._rail).inc(len(self._waiting))
            log.error("%d pieces of evidence were not taken by the core", len(self._waiting))

    async def _run(self) -> None:
        backoff_s = 0.1
        while True:
            await self._arrived.wait()
            batch = self._next()
            try:
                taken = await self._posted([item for item, _ in batch])
            except CoreUnavailableError:
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, 5.0)
                continue
            backoff_s = 0.1
            metrics.EVIDENCE_DROPPED.labels(self._rail).inc(taken.count(False))
            for (_, future), was_taken in zip(batch, taken, strict=True):
                self._waiting.popleft()
                if not future.done():
                    future.set_result(was_taken)
            if not self._waiting:
                self._arrived.clear()

    def _next(self) -> list[Waiting]:
        """Return the oldest that fit into one request, the first however long it is."""
        batch: list[Waiting] = []
        size = 0
        for each in islice(self._waiting, BATCH):
            size += len(each[0].raw.encode())
            if batch and size > BATCH_BYTES:
                break
            batch.append(each)
        return batch

    async def _posted(self, items: Sequence[EvidenceItem]) -> list[bool]:
        """Return which of these the core took. Raises CoreUnavailableError; all of them may be posted again."""
        refused = await in_halves(self._port.post_evidence, items)
        for _, error in refused:
            log.error("the core refused evidence: %s", error.status)  # the text may hold payees
        gone = {item.id for item, _ in refused}
        return [item.id not in gone for item in items]
