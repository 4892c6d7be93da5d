"""The server-side function library `fleet`: loaded by the core alone, called by both sides."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from schemas.envelope import Envelope
from schemas.streams import ADAPTERS_GROUP, groups_of, jobs_dlq_stream, rate_bucket, results_stream

LIBRARY_VERSION = 6


class ServerUnpreparedError(Exception):
    """The server lacks what the core puts there (it was wiped or is new): back off, the core heals it."""


class GroupMissingError(ServerUnpreparedError):
    """NOGROUP: the stream or its consumer group does not exist."""


class FunctionMissingError(ServerUnpreparedError):
    """The function library is not loaded."""


class Completion(NamedTuple):
    """What becomes of one held entry: a result, or a dead letter."""

    entry_id: str
    envelope: Envelope
    target: Literal["result", "dead"] = "result"


class Settled(NamedTuple):
    """What happened: published always; acked only where the caller still owned the entry."""

    entry_id: str
    acked: bool
    published_id: str


def typed_error(error: ResponseError) -> Exception:
    """The same error, as its own class where it means that the server must be prepared again."""
    text = str(error)
    if "NOGROUP" in text or "no such key" in text.lower():
        return GroupMissingError(text)
    if "Function not found" in text:
        return FunctionMissingError(text)
    return error


async def call_function(client: Redis, name: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
    """FCALL once. Raises GroupMissingError, FunctionMissingError or redis-py's own errors."""
    try:
        return await client.fcall(name, len(keys), *keys, *arguments)
    except ResponseError as error:
        raise typed_error(error) from error


def _flat(envelope: Envelope) -> tuple[str, ...]:
    return (str(envelope.v), envelope.id, envelope.type, envelope.body, envelope.traceparent)


async def dispatch(client: Redis, stream: str, envelopes: Sequence[Envelope]) -> list[str]:
    """Add many entries in one step; their ids. A lost reply may have added them: never repeat."""
    arguments = [field for envelope in envelopes for field in _flat(envelope)]
    return [entry.decode() for entry in await call_function(client, "fleet_dispatch", [stream], arguments)]


async def settle(
    client: Redis, rail: str, stream: str, consumer: str, completions: Sequence[Completion]
) -> list[Settled]:
    """Publish and ack in one step. Safe to repeat: what was acked is published again only."""
    arguments = [ADAPTERS_GROUP, consumer]
    for entry_id, envelope, target in completions:
        arguments += (entry_id, target, *_flat(envelope))
    keys = [stream, results_stream(rail), jobs_dlq_stream(rail)]
    answers = await call_function(client, "fleet_settle", keys, arguments)
    return [
        Settled(completion.entry_id, bool(acked), published.decode())
        for completion, (acked, published) in zip(completions, answers, strict=True)
    ]


async def ack(client: Redis, stream: str, group: str, consumer: str, entry_ids: Sequence[str]) -> list[bool]:
    """Ack those entries that the consumer still owns; which ones they were."""
    arguments = [group, consumer, *entry_ids]
    return [bool(n) for n in await call_function(client, "fleet_ack", [stream], arguments)]


async def release(
    client: Redis, stream: str, group: str, consumer: str, idle_ms: int, entry_ids: Sequence[str]
) -> list[bool]:
    """Give owned entries back, claimable at once; the delivery that ends here does not count."""
    arguments: list[str | int] = [group, consumer, idle_ms, *entry_ids]
    return [bool(n) for n in await call_function(client, "fleet_release", [stream], arguments)]


async def count_again(
    client: Redis, stream: str, group: str, consumer: str, entries: Sequence[tuple[str, int]]
) -> list[bool]:
    """Set how often owned entries were delivered; False for each that another consumer has claimed meanwhile."""
    arguments: list[str | int] = [group, consumer]
    for entry_id, deliveries in entries:
        arguments += (entry_id, deliveries)
    return [bool(n) for n in await call_function(client, "fleet_count", [stream], arguments)]


async def heartbeat(client: Redis, stream: str, group: str, consumer: str, entry_ids: Sequence[str]) -> list[bool]:
    """Reset the idle time of owned entries; False for each that another consumer has claimed meanwhile."""
    arguments = [group, consumer, *entry_ids]
    return [bool(n) for n in await call_function(client, "fleet_heartbeat", [stream], arguments)]


async def take_tokens(
    client: Redis, rail: str, *, per_s: float, burst: int, leave: int, wanted: int
) -> tuple[int, float]:
    """Take tokens out of the rail's bucket, all but `leave`; how many, and after how many seconds one more is there.

    The bucket fills by `per_s` tokens a second up to `burst`, by the server's clock, whoever takes. Never repeat it.
    """
    arguments: list[str | int] = [str(per_s), burst, leave, wanted]
    taken, wait_ms = await call_function(client, "fleet_take", [rate_bucket(rail)], arguments)
    return int(taken), int(wait_ms) / 1000


async def delivery_counts(client: Redis, stream: str, group: str, entry_ids: Sequence[str]) -> list[int]:
    """How often each entry was delivered; 0 where it is not pending."""
    return [int(n) for n in await call_function(client, "fleet_deliveries", [stream], [group, *entry_ids])]


async def readd(client: Redis, stream: str, group: str, entry_id: str) -> str | None:
    """Move an entry to the tail in one step; its new id, None where it is gone."""
    added = await call_function(client, "fleet_readd", [stream], [group, entry_id])
    return None if added is None else str(added.decode())


async def drop_consumer(client: Redis, stream: str, group: str, consumer: str, idle_ms: int) -> bool:
    """Delete a consumer, only if it was idle that long and has nothing pending."""
    arguments: list[str | int] = [group, consumer, idle_ms]
    return bool(await call_function(client, "fleet_drop_consumer", [stream], arguments))


async def load_functions(admin_client: Redis) -> bool:
    """Load the library where it is missing or older than ours; True if it was loaded now."""
    try:
        if int(await call_function(admin_client, "fleet_version", [], [])) >= LIBRARY_VERSION:
            return False
    except FunctionMissingError:
        pass
    source = files("wire").joinpath("functions.lua").read_text()
    await admin_client.function_load(source, replace=True)
    return True


async def ensure_groups(admin_client: Redis, rail: str) -> list[str]:
    """Create the groups of a rail at 0, with their streams; the streams whose group was missing."""
    wanted, created = groups_of(rail), []
    async with admin_client.pipeline(transaction=False) as pipeline:
        for stream, group in wanted:
            pipeline.xgroup_create(stream, group, id="0", mkstream=True)
        answers = await pipeline.execute(raise_on_error=False)
    for (stream, _), answer in zip(wanted, answers, strict=True):
        if not isinstance(answer, Exception):
            created.append(stream)
        elif "BUSYGROUP" not in str(answer):
            raise answer
    return created
