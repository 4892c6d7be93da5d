"""`fleet simulate give-up`: dead letters to practise with, made as an adapter makes them that cannot carry its jobs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final, cast
from uuid import UUID

import typer

from adapters.runtime.messages import dead_letter_completion
from core.store.database import Database
from core.store.settling.dispatch import PostgresDispatch
from fleet.cli.connection import Connection, provider_url
from fleet.cli.operator import open_redis, with_database
from fleet.cli.output import CommandError, ExitCode, JsonFlag, print_json
from schemas.envelope import Envelope, decode_envelope
from schemas.jobs import JOB_TYPE
from schemas.streams import ADAPTERS_GROUP, jobs_stream, shard_of
from wire import functions
from wire.client import StreamServers
from wire.consumer import Delivery

_CONSUMER: Final = "practice"
_CLASS: Final = "practice"
_WITHIN_S: Final = 15.0
_PAUSED: Final = "SELECT count(*) FROM fleet.rail_pauses WHERE rail = $1 AND operation = '*'"
_AT_ONCE: Final = 1000
_QUEUED: Final = f"""
SELECT id, stream, entry_id FROM fleet.jobs
WHERE rail = $1 AND kind IN ('lookup', 'pay') AND state = 'QUEUED' AND fence = 0 AND entry_id IS NOT NULL
ORDER BY id LIMIT {_AT_ONCE}
"""  # noqa: S608 - a constant
_KEPT: Final = "SELECT count(*) FROM fleet.dead_letters WHERE job_id = ANY ($1::uuid[])"


def give_up(
    rail: Annotated[str, typer.Argument(help="The rail, such as promptpay. It must be paused.")],
    message: Annotated[str, typer.Option(help="What the letters say.")] = "the gateway rejects the envelope",
    as_json: JsonFlag = False,
) -> None:
    """Make dead letters of the payments that a paused rail has not sent, as an adapter does that gives its jobs up."""
    provider_url(rail)  # only where what plays the provider is a simulator of a running stack

    async def work(database: Database, connection: Connection) -> list[UUID]:
        async with database.acquire() as reader:
            if not await reader.fetchval(_PAUSED, rail):
                text = f"pause it first, so that nothing is sent meanwhile: fleet rails pause {rail} --reason practice"
                raise CommandError("rail_not_paused", text, ExitCode.REFUSED)
            async with open_redis(connection) as servers:

                async def queued() -> Sequence[Any]:
                    await _send_paused(database, servers, rail)
                    found: Sequence[Any] = await reader.fetch(_QUEUED, rail)
                    return found

                rows = await _in_time(queued, "no payment of this rail waits to be sent")
                for row in rows:
                    await _bury(servers, rail, row, message)
            jobs = [row["id"] for row in rows]

            async def kept() -> Sequence[Any]:
                return jobs if await reader.fetchval(_KEPT, jobs) >= len(jobs) else ()

            await _in_time(kept, "the core has not taken the letters yet: does core-worker run?")
        return jobs

    jobs = with_database(work, "redis_url")
    if as_json:
        print_json({"rail": rail, "class": _CLASS, "jobs": jobs})
    else:
        are = "payment of {} is a dead letter" if len(jobs) == 1 else "payments of {} are dead letters"
        typer.echo(f"{len(jobs)} {are.format(rail)} of the class {_CLASS}")


async def _send_paused(database: Database, servers: StreamServers, rail: str) -> None:
    """Relay what the pause holds back: a job dies in its stream. Whoever reads it meanwhile gets no permit."""
    stream = jobs_stream(rail)
    async with PostgresDispatch(database).take_due(rail, stream, _AT_ONCE, paused=True) as batch:
        if batch.rows:
            sent = [Envelope(str(row.job_id), JOB_TYPE, row.body, row.traceparent) for row in batch.rows]
            await batch.mark(await functions.dispatch(servers.of(rail), stream, sent))


async def _bury(servers: StreamServers, rail: str, row: Any, message: str) -> None:
    client, stream, entry_id = servers.of(shard_of(row["stream"])), row["stream"], row["entry_id"]
    # Whoever has it, or nobody yet: from now on it is ours, and one step publishes the letter and acks.
    await client.xclaim(stream, ADAPTERS_GROUP, _CONSUMER, 0, [entry_id], force=True, justid=True)
    entries: list[tuple[bytes, dict[bytes, bytes]]] = cast("Any", await client.xrange(stream, entry_id, entry_id))
    for found, fields in entries:
        delivery = Delivery(stream, found.decode(), decode_envelope(fields), None, deliveries=3)
        completion = dead_letter_completion(delivery, rail, row["id"], _CLASS, message)
        await functions.settle(client, shard_of(stream), stream, _CONSUMER, [completion])


async def _in_time(look: Callable[[], Awaitable[Sequence[Any]]], otherwise: str) -> Sequence[Any]:
    until_s = time.monotonic() + _WITHIN_S
    while not (found := await look()):
        if time.monotonic() > until_s:
            raise CommandError("nothing_to_give_up", otherwise, ExitCode.REFUSED)
        await asyncio.sleep(0.1)
    return found
