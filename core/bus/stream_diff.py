"""The streams of a rail against PostgreSQL: which jobs lack an entry, and which entries serve no job.

PostgreSQL is the truth: what is lost is put back from it, and an entry too many is harmless, since a permit refuses it.
"""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from redis.asyncio import Redis

from core.services.on_call.stream_repair import StreamDiff
from core.services.settling.bus_ports import DispatchStore, QueuedJob
from schemas.streams import ADAPTERS_GROUP, WHOLE, Part, control_stream, jobs_stream

_PAGE = 1000
_Place = tuple[int, int]


async def compare_streams(
    client: Redis, store: DispatchStore, rail: str, older_than_s: float, part: Part = WHOLE
) -> StreamDiff:
    """Return the differences of a rail; only jobs that were queued for longer than `older_than_s` count.

    Raises redis-py's errors, NOGROUP among them where the server lost the groups: the healer makes them anew.
    """
    diff = StreamDiff(part.shard(rail))
    after: UUID | None = None
    while jobs := await store.queued_jobs(rail, older_than_s, after, _PAGE, part):
        after = jobs[-1].job_id
        diff.queued += len(jobs)
        diff.lost += [job for job in jobs if job.of_older_epoch]
        await _look_up(client, diff, [job for job in jobs if not job.of_older_epoch])
    for stream in (jobs_stream(part.shard(rail)), control_stream(part.shard(rail))):
        await _walk(client, diff, store, stream)
    return diff


async def _look_up(client: Redis, diff: StreamDiff, jobs: Sequence[QueuedJob]) -> None:
    if not jobs:
        return
    delivered = {stream: await _delivered(client, stream) for stream in {job.stream for job in jobs}}
    async with client.pipeline(transaction=False) as pipeline:
        for job in jobs:
            pipeline.xpending_range(job.stream, ADAPTERS_GROUP, job.entry_id, job.entry_id, 1)
            pipeline.xrange(job.stream, job.entry_id, job.entry_id, count=1)
        answers = await pipeline.execute()
    for job, pending, entries in zip(jobs, answers[0::2], answers[1::2], strict=True):
        if not entries:
            diff.lost.append(job)
        elif not pending and _place(job.entry_id) <= delivered[job.stream]:
            diff.acked.append(job)


async def _walk(client: Redis, diff: StreamDiff, store: DispatchStore, stream: str) -> None:
    delivered, start = await _delivered(client, stream), "-"
    entries: list[tuple[bytes, dict[Any, Any]]]
    while entries := cast("Any", await client.xrange(stream, start, "+", count=_PAGE)):
        last = entries[-1][0].decode()
        start = f"({last}"
        read = [entry_id for entry_id, _ in entries if _place(entry_id.decode()) <= delivered]
        pending = await _pending(client, stream, read)
        unfinished = [each for each in entries if _place(each[0].decode()) > delivered or each[0] in pending]
        diff.entries += len(unfinished)
        named = {entry_id.decode(): _job_of(fields) for entry_id, fields in unfinished}
        states = await store.states_of([job for job in named.values() if job is not None])
        for entry_id, job_id in named.items():
            state = "unknown" if job_id is None else states.get(job_id, "unknown")
            if state != "QUEUED":
                diff.stale.append((stream, entry_id, f"{job_id or 'no job'} {state}"))


async def _pending(client: Redis, stream: str, read: Sequence[bytes]) -> set[bytes]:
    if not read:
        return set()
    found: list[dict[str, Any]] = cast(
        "Any", await client.xpending_range(stream, ADAPTERS_GROUP, read[0], read[-1], len(read))
    )
    return {each["message_id"] for each in found}


async def _delivered(client: Redis, stream: str) -> _Place:
    for each in await client.xinfo_groups(stream):
        if each["name"].decode() == ADAPTERS_GROUP:
            return _place(each["last-delivered-id"].decode())
    return (0, 0)


def _job_of(fields: dict[Any, Any]) -> UUID | None:
    try:
        return UUID(fields.get(b"id", b"").decode())
    except ValueError:
        return None


def _place(entry_id: str) -> _Place:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
