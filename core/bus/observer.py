"""Reads what waits in the streams of a rail, and shows it: slowly, apart from every path that a payment takes."""

from collections.abc import Iterable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from core.telemetry import catalogue
from schemas.streams import groups_of, results_dlq_stream


async def observe_rail(client: Redis, rail: str) -> None:
    """Show lag, pending and the oldest unfinished entry of each group. Raises redis-py's errors."""
    seconds, microseconds = await client.time()
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    for stream, group in groups_of(rail):
        await _observe_group(client, stream, group, now_ms)
    for stream in (*(stream for stream, _ in groups_of(rail)), results_dlq_stream(rail)):
        catalogue.LENGTH.labels(stream).set(await client.xlen(stream))


async def observe_servers(clients: Iterable[Redis]) -> None:
    """Show the memory of the fullest server. Raises redis-py's errors."""
    catalogue.REDIS_BYTES.set(max([(await each.info("memory"))["used_memory"] for each in set(clients)], default=0))


async def _observe_group(client: Redis, stream: str, group: str, now_ms: int) -> None:
    try:
        groups: list[dict[str, Any]] = await client.xinfo_groups(stream)
        pending: dict[str, Any] = await client.xpending(stream, group)
    except ResponseError as error:
        if "NOGROUP" in str(error) or "no such key" in str(error):
            return  # the healer makes it; until then there is nothing to show
        raise
    own = next(each for each in groups if each["name"].decode() == group)
    waiting = await client.xrange(stream, "(" + own["last-delivered-id"].decode(), "+", count=1) or []
    lag = own.get("lag")
    catalogue.LAG_UNKNOWN.labels(stream, group).set(lag is None)
    if lag is None:
        catalogue.LAG.remove(stream, group)
    else:
        catalogue.LAG.labels(stream, group).set(lag)
    catalogue.PENDING.labels(stream, group).set(pending["pending"])
    oldest = [entry for entry in (pending["min"], *(entry for entry, _ in waiting)) if entry is not None]
    age_ms = now_ms - min((int(entry.split(b"-")[0]) for entry in oldest), default=now_ms)
    catalogue.UNFINISHED_AGE.labels(stream, group).set(max(0, age_ms) / 1000)
