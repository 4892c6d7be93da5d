"""`fleet streams pending | release | claim | lost | rebuild | janitor`: for when a stream stands still."""

from typing import Annotated, Any, cast
from uuid import UUID

import typer
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from core.bus.janitor import drop_idle_consumers, trim_stream
from core.bus.stream_diff import StreamDiff, compare_streams
from core.store.database import Database
from core.store.dispatch import PostgresDispatch
from fleet.cli.connection import Connection
from fleet.cli.operator import open_redis, with_database, with_redis
from fleet.cli.output import CommandError, ExitCode, JsonFlag, print_fields, print_json, print_table
from schemas.streams import RAIL_PATTERN, SHARDS_MAX, groups_of, parts_of
from wire import functions
from wire.client import StreamServers

Rail = Annotated[str, typer.Argument(help="The rail, such as promptpay.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this only what would happen is shown.")]
Age = Annotated[float, typer.Option(help="Only what has been so for longer than this, in seconds.", min=0)]

Shards = Annotated[
    int, typer.Option(help="Over how many streams the rail is spread (FLEET_RAIL_SHARDS).", min=1, max=SHARDS_MAX)
]

_PAGE = 1000
_CLAIMABLE_MS = 86_400_000
_IDLE_MS = 3_600_000
_BLOCKING_MS = 600_000


def pending(
    rail: Rail,
    consumer: Annotated[str | None, typer.Option(help="Only what this consumer holds.")] = None,
    stuck_s: Annotated[float, typer.Option(help="Held untouched for longer than this is stuck.")] = 60,
    as_json: JsonFlag = False,
) -> None:
    """List what is held, by whom, for how long, and which consumers are stuck. At most 1,000 entries a stream."""

    async def work(servers: StreamServers, _: Connection) -> list[dict[str, Any]]:
        client = servers.of(rail)
        return [each for key, group in groups_of(rail) for each in await _held(client, key, group, consumer)]

    _checked(rail)
    rows = [row | {"stuck": row["idle_s"] > stuck_s} for row in with_redis(work)]
    if as_json:
        print_json(rows)
        return
    columns = ("stream", "id", "consumer", "idle_s", "deliveries", "stuck")
    print_table("pending", columns, [[row[name] for name in columns] for row in rows])


def release(
    rail: Rail,
    consumer: Annotated[str, typer.Option(help="Whose entries, as fleet streams pending shows it.")],
    idle_s: Annotated[float, typer.Option(help="Only what was untouched for longer than this, in seconds.")] = 60,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Give back what a stuck consumer holds, so that any other takes it at once; the delivery does not count."""

    async def work(servers: StreamServers, _: Connection) -> dict[str, Any]:
        client = servers.of(rail)
        held = released = 0
        for key, group in groups_of(rail):
            mine = [row for row in await _held(client, key, group, consumer) if row["idle_s"] >= idle_s]
            held += len(mine)
            if yes and mine:
                ids = [row["id"] for row in mine]
                released += sum(await functions.release(client, key, group, consumer, _CLAIMABLE_MS, ids))
        return {"rail": rail, "consumer": consumer, "held": held, "released": released, "dry_run": not yes}

    _checked(rail)
    _show(with_redis(work), as_json)


def claim(
    rail: Rail,
    consumer: Annotated[str, typer.Option("--from", help="Whose entries, as fleet streams pending shows it.")],
    to: Annotated[str, typer.Option(help="The consumer that takes them; it meets them when it starts.")],
    idle_s: Annotated[float, typer.Option(help="Only what was untouched for longer than this, in seconds.")] = 60,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Hand what one consumer holds to another by name, such as from a host that is gone to the one that replaces it."""

    async def work(servers: StreamServers, _: Connection) -> dict[str, Any]:
        client = servers.of(rail)
        held = claimed = 0
        for key, group in groups_of(rail):
            mine = [row["id"] for row in await _held(client, key, group, consumer) if row["idle_s"] >= idle_s]
            held += len(mine)
            if yes and mine:
                # The server asks once more how long each was untouched: what woke up meanwhile stays where it is.
                claimed += len(await client.xclaim(key, group, to, int(idle_s * 1000), mine, justid=True))
        return {"rail": rail, "from": consumer, "to": to, "held": held, "claimed": claimed, "dry_run": not yes}

    _checked(rail)
    _show(with_redis(work), as_json)


def lost(rail: Rail, age_s: Age = 30, shards: Shards = 1, as_json: JsonFlag = False) -> int:
    """Compare the rail's streams with PostgreSQL; exit code 1 where a job should have an entry and has none."""
    diff, _ = _compare(rail, age_s, shards, repair=False)
    _show_diff(diff, as_json, repaired=None)
    return ExitCode.CHECK_FAILED if diff.lost or diff.acked else ExitCode.DONE


def rebuild(rail: Rail, age_s: Age = 30, shards: Shards = 1, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Put lost jobs back into the outbox under their own ids, from PostgreSQL; the differences are shown first."""
    diff, repaired = _compare(rail, age_s, shards, repair=yes)
    _show_diff(diff, as_json, repaired=repaired if yes else None)
    if not yes and not as_json and (diff.lost or diff.acked):
        typer.echo("nothing was changed: add --yes to queue them again")


def janitor(rail: Rail, as_json: JsonFlag = False) -> None:
    """Trim what is finished from the rail's streams and drop consumers that hold nothing and are silent."""

    async def work(servers: StreamServers, _: Connection) -> list[dict[str, Any]]:
        client = servers.of(rail)
        return [
            {
                "stream": key,
                "trimmed": await trim_stream(client, key, group, _BLOCKING_MS),
                "consumers_dropped": await drop_idle_consumers(client, key, group, _IDLE_MS),
            }
            for key, group in groups_of(rail)
        ]

    _checked(rail)
    rows = with_redis(work)
    if as_json:
        print_json(rows)
    else:
        columns = ("stream", "trimmed", "consumers_dropped")
        print_table("janitor", columns, [[row[name] for name in columns] for row in rows])


def _compare(rail: str, age_s: float, shards: int, *, repair: bool) -> tuple[StreamDiff, int]:
    _checked(rail)

    async def work(database: Database, connection: Connection) -> tuple[StreamDiff, int]:
        store = PostgresDispatch(database)

        async def states_of(ids: Any) -> dict[UUID, str]:
            async with database.acquire() as own:
                rows = await own.fetch("SELECT id, state FROM fleet.jobs WHERE id = ANY ($1::uuid[])", list(ids))
            return {row["id"]: row["state"] for row in rows}

        async with open_redis(connection) as servers:
            try:
                diff = StreamDiff(rail)
                for part in parts_of(shards):
                    client = servers.of(part.shard(rail))
                    diff.add(await compare_streams(client, store, states_of, rail, age_s, part))
            except ResponseError as error:
                if not str(error).startswith(("no such key", "NOGROUP")):
                    raise
                text = f"the streams of {rail} are not there: start a relay, which makes them, and repeat"
                raise CommandError("stream_missing", text, ExitCode.UNREACHABLE) from error
        repaired = await store.requeue([*diff.lost, *diff.acked]) if repair and (diff.lost or diff.acked) else 0
        return diff, repaired

    return with_database(work, "redis_url")


async def _held(client: Redis, key: str, group: str, consumer: str | None) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = cast(
            "Any", await client.xpending_range(key, group, min="-", max="+", count=_PAGE, consumername=consumer)
        )
    except ResponseError as error:
        if str(error).startswith(("no such key", "NOGROUP")):
            return []
        raise
    return [
        {
            "stream": key,
            "id": each["message_id"].decode(),
            "consumer": each["consumer"].decode(),
            "idle_s": each["time_since_delivered"] / 1000,
            "deliveries": each["times_delivered"],
        }
        for each in found
    ]


def _checked(rail: str) -> None:
    if RAIL_PATTERN.fullmatch(rail) is None:
        raise CommandError("rail_malformed", f"{rail[:40]!r} is no rail's name, such as promptpay")


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    print_fields("streams", document)
    if document["dry_run"]:
        typer.echo("nothing was changed: add --yes to do it")


def _show_diff(diff: StreamDiff, as_json: bool, repaired: int | None) -> None:
    document = {
        "rail": diff.rail,
        "queued": diff.queued,
        "entries": diff.entries,
        "lost": [job.job_id for job in diff.lost],
        "acked": [job.job_id for job in diff.acked],
        "stale": [{"stream": stream, "id": entry, "job": told} for stream, entry, told in diff.stale],
        "requeued": repaired,
    }
    if as_json:
        print_json(document)
        return
    counted = {name: len(value) if isinstance(value, list) else value for name, value in document.items()}
    print_fields("streams against PostgreSQL", counted)
    rows = [(job.job_id, job.stream, job.entry_id, "lost") for job in diff.lost]
    rows += [(job.job_id, job.stream, job.entry_id, "acked") for job in diff.acked]
    if rows:
        print_table("jobs without an entry", ("id", "stream", "entry", "why"), rows)
