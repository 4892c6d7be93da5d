"""What waits in the streams of every rail, for the overview."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from core.services.on_call.overview import StreamLine
from schemas.streams import groups_of
from wire.client import StreamServers


class StreamOverview:
    """See `core.services.on_call.overview.Streams`."""

    def __init__(self, servers: StreamServers, shards: Sequence[str]) -> None:
        self._servers, self._shards = servers, shards

    async def look(self) -> list[StreamLine]:
        """Return a line for each group that is there. Raises OSError where the server is away."""
        try:
            found = [
                await self._line(self._servers.of(shard), stream, group)
                for shard in self._shards
                for stream, group in groups_of(shard)
            ]
        except RedisError as error:
            raise OSError(f"the streams' server does not answer: {type(error).__name__}") from error
        return [line for line in found if line is not None]

    async def _line(self, client: Redis, stream: str, group: str) -> StreamLine | None:
        try:
            groups: list[dict[str, Any]] = await client.xinfo_groups(stream)
            own = next((each for each in groups if each["name"].decode() == group), None)
            if own is None:
                return None
            oldest = await client.xpending_range(stream, group, min="-", max="+", count=1)
            length = await client.xlen(stream)
        except ResponseError as error:
            if str(error).startswith(("no such key", "NOGROUP")):
                return None  # the healer makes it; until then there is nothing to show
            raise
        oldest_s = int(oldest[0]["time_since_delivered"]) // 1000 if oldest else 0
        return StreamLine(stream, group, length, own["lag"], own["pending"], oldest_s)
