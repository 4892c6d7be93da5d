"""The sweeper: jobs whose entry is lost go back to the outbox, under the same id."""

import logging

from redis.asyncio import Redis

from core.services.bus_ports import DispatchStore, QueuedJob

log = logging.getLogger(__name__)


async def sweep_rail(client: Redis, store: DispatchStore, rail: str, age_s: float, batch: int = 500) -> int:
    """Look once at every job queued longer than `age_s` or in an older epoch; return how many were put back.

    The relay's gate bounds what they become. Raises redis-py's errors: a server that does not answer has lost
    nothing yet.
    """
    put_back, after = 0, None
    while jobs := await store.queued_jobs(rail, age_s, after, batch):
        after = jobs[-1].job_id
        lost = await _lost(client, jobs)
        if lost:
            put_back += await store.requeue(lost)
    if put_back:
        log.warning("%d jobs of %s had lost their entry and are queued again", put_back, rail)
    return put_back


async def _lost(client: Redis, jobs: list[QueuedJob]) -> list[QueuedJob]:
    asked = [job for job in jobs if not job.of_older_epoch]
    lost = [job for job in jobs if job.of_older_epoch]
    if asked:
        async with client.pipeline(transaction=False) as pipeline:
            for job in asked:
                pipeline.xrange(job.stream, job.entry_id, job.entry_id, count=1)
            found = await pipeline.execute()
        lost += [job for job, entries in zip(asked, found, strict=True) if not entries]
    return lost
