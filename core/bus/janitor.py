"""The janitor of streams: trims what is finished, never what is unread or pending, and drops idle consumers."""

import contextlib
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from wire import functions


async def trim_stream(client: Redis, stream: str, group: str, blocking_after_ms: int) -> int:
    """Trim below the oldest unfinished entry; return how many entries went.

    A pending entry that old is moved to the tail first, in one step, so that it does not keep everything.
    """
    last_delivered = await _last_delivered(client, stream, group)
    if last_delivered is None:
        return 0
    oldest = await _oldest_pending(client, stream, group)
    if oldest is not None:
        now_s, microseconds = await client.time()
        if now_s * 1000 + microseconds // 1000 - int(oldest.partition("-")[0]) > blocking_after_ms:
            # A full server cannot take a copy, and trimming what is finished is what makes room there.
            with contextlib.suppress(OutOfMemoryError):
                await functions.readd(client, stream, group, oldest)
            oldest = await _oldest_pending(client, stream, group)
    # What is pending was delivered, so the smallest pending id is never above the last delivered one.
    return int(await client.xtrim(stream, minid=oldest or last_delivered, approximate=False))


async def drop_idle_consumers(client: Redis, stream: str, group: str, idle_ms: int) -> int:
    """Delete consumers with nothing pending that were silent that long; return how many."""
    consumers: list[dict[str, Any]] = await client.xinfo_consumers(stream, group)
    idle = [each["name"].decode() for each in consumers if each["pending"] == 0 and each["idle"] >= idle_ms]
    return sum([await functions.drop_consumer(client, stream, group, name, idle_ms) for name in idle])


async def _last_delivered(client: Redis, stream: str, group: str) -> str | None:
    for each in await client.xinfo_groups(stream):
        if each["name"].decode() == group:
            return str(each["last-delivered-id"].decode())
    return None


async def _oldest_pending(client: Redis, stream: str, group: str) -> str | None:
    summary = await client.xpending(stream, group)
    return summary["min"].decode() if summary["pending"] else None
