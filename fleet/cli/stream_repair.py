"""`fleet streams pending | release | claim | lost | rebuild | janitor`: for when a stream stands still."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from redis.exceptions import ResponseError

from core.bus.stream_diff import compare_streams
from core.bus.stream_repair import claim_in, held_in, release_in, tidy_in
from core.services.on_call.stream_repair import HeldEntry, StreamDiff, Tidied
from core.store.database import Database
from core.store.settling.dispatch import PostgresDispatch
from fleet.cli.connection import Connection
from fleet.cli.operator import open_redis, with_database, with_redis
from fleet.cli.output import CommandError, ExitCode, JsonFlag, print_fields, print_json, print_table
from schemas.streams import RAIL_PATTERN, SHARDS_MAX, parts_of
from wire.client import StreamServers

Rail = Annotated[str, typer.Argument(help="The rail, such as promptpay.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this only what would happen is shown.")]
Age = Annotated[float, typer.Option(help="Only what has been so for longer than this, in seconds.", min=0)]

Shards = Annotated[
    int, typer.Option(help="Over how many streams the rail is spread (FLEET_RAIL_SHARDS).", min=1, max=SHARDS_MAX)
]


def pending(
    rail: Rail,
    consumer: Annotated[str | None, typer.Option(help="Only what this consumer holds.")] = None,
    stuck_s: Annotated[float, typer.Option(help="Held untouched for longer than this is stuck.")] = 60,
    as_json: JsonFlag = False,
) -> None:
    """List what is held, by whom, for how long, and which consumers are stuck. At most 1,000 entries a stream."""

    async def work(servers: StreamServers, _: Connection) -> list[HeldEntry]:
        return await held_in(servers.of(rail), rail, consumer)

    _checked(rail)
    rows = [asdict(entry) | {"stuck": entry.idle_s > stuck_s} for entry in with_redis(work)]
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
        held = sum(1 for entry in await held_in(client, rail, consumer) if entry.idle_s >= idle_s)
        released = await release_in(client, rail, consumer, idle_s) if yes else 0
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
        held = sum(1 for entry in await held_in(client, rail, consumer) if entry.idle_s >= idle_s)
        claimed = await claim_in(client, rail, consumer, to, idle_s) if yes else 0
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

    async def work(servers: StreamServers, _: Connection) -> list[Tidied]:
        return await tidy_in(servers.of(rail), rail)

    _checked(rail)
    rows = [asdict(each) for each in with_redis(work)]
    if as_json:
        print_json(rows)
    else:
        columns = ("stream", "trimmed", "consumers_dropped")
        print_table("janitor", columns, [[row[name] for name in columns] for row in rows])


def _compare(rail: str, age_s: float, shards: int, *, repair: bool) -> tuple[StreamDiff, int]:
    _checked(rail)

    async def work(database: Database, connection: Connection) -> tuple[StreamDiff, int]:
        store = PostgresDispatch(database)

        async with open_redis(connection) as servers:
            try:
                diff = StreamDiff(rail)
                for part in parts_of(shards):
                    client = servers.of(part.shard(rail))
                    diff.add(await compare_streams(client, store, rail, age_s, part))
            except ResponseError as error:
                if not str(error).startswith(("no such key", "NOGROUP")):
                    raise
                text = f"the streams of {rail} are not there: start a relay, which makes them, and repeat"
                raise CommandError("stream_missing", text, ExitCode.UNREACHABLE) from error
        repaired = await store.requeue([*diff.lost, *diff.acked]) if repair and (diff.lost or diff.acked) else 0
        return diff, repaired

    return with_database(work, "redis_url")


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
