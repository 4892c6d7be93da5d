"""Gives back and hands over what consumers hold, trims, and rebuilds the streams of a rail from PostgreSQL."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from core.bus.janitor import drop_idle_consumers, trim_stream
from core.bus.stream_diff import compare_streams
from core.bus.stream_overview import StreamOverview
from core.services.on_call.stream_repair import SETTLED_S, HeldEntry, StreamDiff, Tidied
from core.services.settling.bus_ports import DispatchStore
from schemas.rail_desk import StreamConsumerView, StreamStatusView
from schemas.streams import Part, groups_of
from wire import functions
from wire.client import StreamServers

_PAGE: Final = 1000
_CLAIMABLE_MS: Final = 86_400_000
_IDLE_MS: Final = 3_600_000
_BLOCKING_MS: Final = 600_000


class StreamRepair(StreamOverview):
    """See `core.services.on_call.stream_repair.RepairedStreams`."""

    def __init__(self, servers: StreamServers, parts: Sequence[tuple[str, Part]], store: DispatchStore) -> None:
        super().__init__(servers, [part.shard(rail) for rail, part in parts])
        self._parts, self._store = parts, store

    @property
    def rails(self) -> list[str]:
        """The rails whose streams these are."""
        return list(dict.fromkeys(rail for rail, _ in self._parts))

    async def status(self) -> list[StreamStatusView]:
        """Return what waits in each stream, what is held, and by whom."""
        async with _in_words():
            shards = [part.shard(rail) for rail, part in self._parts]
            return [each for shard in shards for each in await status_in(self._of(shard), shard)]

    async def held(self, rail: str, consumer: str | None = None) -> list[HeldEntry]:
        """Return what is held, the oldest entries first; at most 1,000 of a stream."""
        async with _in_words():
            return [
                entry for shard in self._shards_of(rail) for entry in await held_in(self._of(shard), shard, consumer)
            ]

    async def release(self, rail: str, consumer: str, idle_s: float) -> int:
        """Give back what a consumer held untouched for that long; return how many entries."""
        async with _in_words():
            return sum([await release_in(self._of(shard), shard, consumer, idle_s) for shard in self._shards_of(rail)])

    async def claim(self, rail: str, consumer: str, to: str, idle_s: float) -> int:
        """Hand what a consumer held untouched for that long to another; return how many entries."""
        async with _in_words():
            return sum([await claim_in(self._of(each), each, consumer, to, idle_s) for each in self._shards_of(rail)])

    async def compare(self, rail: str, age_s: float = SETTLED_S) -> StreamDiff:
        """Return what the streams and PostgreSQL disagree about."""
        async with _in_words():
            diff = StreamDiff(rail)
            for part in (part for name, part in self._parts if name == rail):
                client = self._of(part.shard(rail))
                diff.add(await compare_streams(client, self._store, rail, age_s, part))
            return diff

    async def queue_again(self, diff: StreamDiff) -> int:
        """Put every job that lacks an entry back into the outbox, under its own id; return how many."""
        return await self._store.requeue([*diff.lost, *diff.acked]) if diff.lost or diff.acked else 0

    async def tidy(self, rail: str) -> list[Tidied]:
        """Trim what is finished, and drop consumers that hold nothing and are silent."""
        async with _in_words():
            return [each for shard in self._shards_of(rail) for each in await tidy_in(self._of(shard), shard)]

    def _shards_of(self, rail: str) -> list[str]:
        return [part.shard(rail) for name, part in self._parts if name == rail]

    def _of(self, shard: str) -> Redis:
        return self._servers.of(shard)


async def status_in(client: Redis, shard: str) -> list[StreamStatusView]:
    """Return what waits in each stream of one shard, what is held, and by whom."""
    return [await _status(client, shard, stream, group) for stream, group in groups_of(shard)]


async def _status(client: Redis, shard: str, stream: str, group: str) -> StreamStatusView:
    absent = StreamStatusView(
        rail=shard, stream=stream, group=group, group_exists=False, length=0, lag=None, pending=0,
        oldest_idle_s=None, consumers=(),
    )  # fmt: skip
    try:
        groups: list[dict[str, Any]] = await client.xinfo_groups(stream)
        found = next((entry for entry in groups if _text(entry["name"]) == group), None)
        if found is None:
            return absent.model_copy(update={"length": await client.xlen(stream)})
        consumers = await client.xinfo_consumers(stream, group)
        oldest = await client.xpending_range(stream, group, min="-", max="+", count=1)
    except ResponseError as error:
        # The stream does not exist, or stream and group went with a server that was wiped this moment.
        if not str(error).startswith(("no such key", "NOGROUP")):
            raise
        return absent
    return StreamStatusView(
        rail=shard,
        stream=stream,
        group=group,
        group_exists=True,
        length=await client.xlen(stream),
        lag=found["lag"],
        pending=found["pending"],
        oldest_idle_s=int(oldest[0]["time_since_delivered"]) // 1000 if oldest else None,
        consumers=tuple(
            StreamConsumerView(name=_text(each["name"]), pending=each["pending"], idle_s=each["idle"] // 1000)
            for each in consumers
        ),
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


async def held_in(client: Redis, shard: str, consumer: str | None) -> list[HeldEntry]:
    """Return what is held in the streams of one shard; at most 1,000 entries of a stream."""
    return [entry for stream, group in groups_of(shard) for entry in await _held(client, stream, group, consumer)]


async def release_in(client: Redis, shard: str, consumer: str, idle_s: float) -> int:
    """Give back what a consumer held untouched for that long, so that any other takes it; no delivery is counted."""
    released = 0
    for stream, group in groups_of(shard):
        if ids := await _idle(client, stream, group, consumer, idle_s):
            released += sum(await functions.release(client, stream, group, consumer, _CLAIMABLE_MS, ids))
    return released


async def claim_in(client: Redis, shard: str, consumer: str, to: str, idle_s: float) -> int:
    """Hand what a consumer held untouched for that long to another, which meets it when it starts."""
    claimed = 0
    for stream, group in groups_of(shard):
        if ids := await _idle(client, stream, group, consumer, idle_s):
            # The server asks once more how long each was untouched: what woke up meanwhile stays where it is.
            claimed += len(await client.xclaim(stream, group, to, int(idle_s * 1000), cast("Any", ids), justid=True))
    return claimed


async def tidy_in(client: Redis, shard: str) -> list[Tidied]:
    """Trim what is finished in one shard, and drop consumers that hold nothing and are silent."""
    return [
        Tidied(
            stream,
            await trim_stream(client, stream, group, _BLOCKING_MS),
            await drop_idle_consumers(client, stream, group, _IDLE_MS),
        )
        for stream, group in groups_of(shard)
    ]


async def _idle(client: Redis, stream: str, group: str, consumer: str, idle_s: float) -> list[str]:
    return [entry.id for entry in await _held(client, stream, group, consumer) if entry.idle_s >= idle_s]


async def _held(client: Redis, stream: str, group: str, consumer: str | None) -> list[HeldEntry]:
    try:
        found: list[dict[str, Any]] = cast(
            "Any", await client.xpending_range(stream, group, min="-", max="+", count=_PAGE, consumername=consumer)
        )
    except ResponseError as error:
        if str(error).startswith(("no such key", "NOGROUP")):
            return []
        raise
    return [
        HeldEntry(
            stream,
            each["message_id"].decode(),
            each["consumer"].decode(),
            each["time_since_delivered"] / 1000,
            each["times_delivered"],
        )
        for each in found
    ]


@asynccontextmanager
async def _in_words() -> AsyncIterator[None]:
    try:
        yield
    except RedisError as error:
        raise OSError(f"the streams' server does not answer: {type(error).__name__} {error}") from error
