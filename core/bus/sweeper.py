"""The sweeper: jobs whose entry is lost go back to the outbox, under the same id."""

import logging
from dataclasses import dataclass
from uuid import UUID

from redis.asyncio import Redis

from core.services.settling.bus_ports import DispatchStore, QueuedJob
from core.telemetry.catalogue import SWEPT
from schemas.streams import ADAPTERS_GROUP, CORE_GROUP, WHOLE, Part, jobs_dlq_stream, results_stream

log = logging.getLogger(__name__)

_Place = tuple[int, int]
_START: _Place = (0, 0)


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far the core has committed an outcome stream: to `delivered`, except from `unfinished` on."""

    delivered: _Place
    unfinished: _Place | None

    def covers(self, place: _Place) -> bool:
        return place <= self.delivered and (self.unfinished is None or place < self.unfinished)


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A job whose entry was delivered and is finished with, and the ends of the outcome streams afterwards."""

    entry_id: str
    ends: tuple[_Place, ...]


class Sweeper:
    """Looks for lost entries of one rail.

    An entry is lost when it is gone though nobody finished it, when its stream epoch is over, or when it was acked and
    the verdict that was published with that ack is not among those that the core has committed since. One sweep only
    suspects the last kind; a later one knows. An acked entry may be trimmed long before its verdict is settled.
    """

    def __init__(
        self, client: Redis, store: DispatchStore, rail: str, age_s: float, batch: int = 500, part: Part = WHOLE
    ) -> None:
        self._client, self._store, self._rail, self._age_s, self._batch = client, store, rail, age_s, batch
        self._part, shard = part, part.shard(rail)
        self._outcomes = (results_stream(shard), jobs_dlq_stream(shard))
        self._suspects: dict[UUID, _Suspect] = {}

    async def sweep_once(self) -> int:
        """Look at every job queued longer than `age_s` or in an older epoch; return how many were put back.

        The relay's gate bounds what they become. Raises redis-py's errors: a server that does not answer has lost
        nothing yet.
        """
        # Read before the jobs are: what is committed up to here shows in their states.
        progress = [await self._progress(stream, CORE_GROUP) for stream in self._outcomes]
        put_back, after, suspects = 0, None, {}
        while jobs := await self._store.queued_jobs(self._rail, self._age_s, after, self._batch, self._part):
            after = jobs[-1].job_id
            gone, acked = await self._missing([job for job in jobs if not job.of_older_epoch])
            ends = tuple([await self._end(stream) for stream in self._outcomes]) if acked else ()
            lost = [job for job in jobs if job.of_older_epoch] + gone
            for job in acked:
                known = self._suspects.get(job.job_id)
                if known is None or known.entry_id != job.entry_id:
                    suspects[job.job_id] = _Suspect(job.entry_id, ends)
                elif all(each.covers(end) for each, end in zip(progress, known.ends, strict=True)):
                    lost.append(job)
                else:
                    suspects[job.job_id] = known
            if lost:
                put_back += await self._store.requeue(lost)
        self._suspects = suspects
        if put_back:
            SWEPT.labels(self._rail).inc(put_back)
            log.warning("%d jobs of %s had lost their entry and are queued again", put_back, self._rail)
        return put_back

    async def _missing(self, jobs: list[QueuedJob]) -> tuple[list[QueuedJob], list[QueuedJob]]:
        """Return the jobs whose entry is gone unfinished, and those whose entry was acked."""
        if not jobs:
            return [], []
        # Read first: what was delivered by now and is not pending afterwards was acked in between.
        delivered = {stream: (await self._progress(stream, ADAPTERS_GROUP)).delivered for stream in _streams(jobs)}
        async with self._client.pipeline(transaction=False) as pipeline:
            for job in jobs:
                pipeline.xpending_range(job.stream, ADAPTERS_GROUP, job.entry_id, job.entry_id, 1)
                pipeline.xrange(job.stream, job.entry_id, job.entry_id, count=1)
            answers = await pipeline.execute()
        found = zip(jobs, answers[0::2], answers[1::2], strict=True)
        gone, acked = [], []
        for job, pending, entries in found:
            if not pending and _place(job.entry_id) <= delivered[job.stream]:
                acked.append(job)
            elif not entries:
                gone.append(job)
        return gone, acked

    async def _progress(self, stream: str, group: str) -> _Progress:
        delivered = _START
        for each in await self._client.xinfo_groups(stream):
            if each["name"].decode() == group:
                delivered = _place(each["last-delivered-id"].decode())
        pending = await self._client.xpending(stream, group)
        return _Progress(delivered, _place(pending["min"].decode()) if pending["pending"] else None)

    async def _end(self, stream: str) -> _Place:
        about = await self._client.xinfo_stream(stream)
        return _place(about["last-generated-id"].decode())


def _streams(jobs: list[QueuedJob]) -> set[str]:
    return {job.stream for job in jobs}


def _place(entry_id: str) -> _Place:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
