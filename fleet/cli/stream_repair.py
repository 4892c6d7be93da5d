"""`fleet streams pending | release | claim | lost | rebuild | janitor`: for when a stream stands still."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import typer
from pydantic import BaseModel, ValidationError
from redis.exceptions import ResponseError

from core.bus.stream_diff import compare_streams
from core.bus.stream_repair import claim_in, held_in, release_in, tidy_in
from core.services.on_call.stream_repair import StreamDiff, told_of
from core.store.database import Database
from core.store.settling.dispatch import PostgresDispatch
from fleet.cli.connection import Connection, core_is_known, with_operator
from fleet.cli.operator import open_redis, with_database, with_redis
from fleet.cli.output import (
    CommandError,
    ExitCode,
    JsonFlag,
    invalid_field,
    print_fields,
    print_json,
    print_table,
    require_rail,
)
from fleet.client import FleetClient
from schemas.rail_desk import (
    HeldEntryList,
    HeldEntryView,
    StreamClaim,
    StreamDifference,
    StreamMoved,
    StreamRelease,
    StreamRepairAsked,
    TidiedList,
)
from schemas.streams import SHARDS_MAX, parts_of
from wire.client import StreamServers

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

Rail = Annotated[str, typer.Argument(help="The rail, such as promptpay.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without this only what would happen is shown.")]
Why = Annotated[str, typer.Option("--reason", help="Why; the audit journal keeps it. What changes something needs it.")]
Age = Annotated[float, typer.Option(help="Only what has been so for longer than this, in seconds.", min=0)]

Shards = Annotated[
    int,
    typer.Option(
        help="Beside a core: over how many streams the rail is spread (FLEET_RAIL_SHARDS).", min=1, max=SHARDS_MAX
    ),
]


def pending(
    rail: Rail,
    consumer: Annotated[str | None, typer.Option(help="Only what this consumer holds.")] = None,
    stuck_s: Annotated[float, typer.Option(help="Held untouched for longer than this is stuck.")] = 60,
    as_json: JsonFlag = False,
) -> None:
    """List what is held, by whom, for how long, and which consumers are stuck. At most 1,000 entries a stream."""
    require_rail(rail)
    rows = [entry.model_dump() | {"stuck": entry.idle_s > stuck_s} for entry in _held(rail, consumer)]
    if as_json:
        print_json(rows)
        return
    print_table("by consumer", ("stream", "consumer", "holds", "oldest_s", "stuck"), _by_consumer(rows))
    columns = ("stream", "id", "consumer", "idle_s", "deliveries", "stuck")
    print_table("pending", columns, [[row[name] for name in columns] for row in rows])


def release(
    rail: Rail,
    consumer: Annotated[str, typer.Option(help="Whose entries, as fleet streams pending shows it.")],
    idle_s: Annotated[float, typer.Option(help="Only what was untouched for longer than this, in seconds.")] = 60,
    reason: Why = "",
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Give back what a stuck consumer holds, so that any other takes it at once; the delivery does not count."""
    require_rail(rail)
    held, released = _count(rail, consumer, idle_s), 0
    if yes:
        asked = _asked(StreamRelease, reason=reason, consumer=consumer, idle_s=idle_s)
        released = _move(
            lambda client: client.call("POST", f"/v1/streams/{rail}/release", StreamMoved, body=asked),
            lambda servers: release_in(servers.of(rail), rail, consumer, idle_s),
        )
    _show({"rail": rail, "consumer": consumer, "held": held, "released": released, "dry_run": not yes}, as_json)


def claim(
    rail: Rail,
    consumer: Annotated[str, typer.Option("--from", help="Whose entries, as fleet streams pending shows it.")],
    to: Annotated[str, typer.Option(help="The consumer that takes them; it meets them when it starts.")],
    idle_s: Annotated[float, typer.Option(help="Only what was untouched for longer than this, in seconds.")] = 60,
    reason: Why = "",
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Hand what one consumer holds to another by name, such as from a host that is gone to the one that replaces it."""
    require_rail(rail)
    held, claimed = _count(rail, consumer, idle_s), 0
    if yes:
        asked = _asked(StreamClaim, reason=reason, consumer=consumer, to=to, idle_s=idle_s)
        claimed = _move(
            lambda client: client.call("POST", f"/v1/streams/{rail}/claim", StreamMoved, body=asked),
            lambda servers: claim_in(servers.of(rail), rail, consumer, to, idle_s),
        )
    _show({"rail": rail, "from": consumer, "to": to, "held": held, "claimed": claimed, "dry_run": not yes}, as_json)


def lost(rail: Rail, age_s: Age = 30, shards: Shards = 1, as_json: JsonFlag = False) -> int:
    """Compare the rail's streams with PostgreSQL; exit code 1 where a job should have an entry and has none."""
    diff = _compare(rail, age_s, shards, None)
    _show_diff(diff, as_json)
    return ExitCode.CHECK_FAILED if diff.lost or diff.acked else ExitCode.DONE


def rebuild(
    rail: Rail, age_s: Age = 30, shards: Shards = 1, reason: Why = "", yes: Yes = False, as_json: JsonFlag = False
) -> None:
    """Put lost jobs back into the outbox under their own ids, from PostgreSQL; the differences are shown first."""
    asked = _asked(StreamRepairAsked, reason=reason, age_s=age_s) if yes else None
    diff = _compare(rail, age_s, shards, asked)
    _show_diff(diff, as_json)
    if not yes and not as_json and (diff.lost or diff.acked):
        typer.echo("nothing was changed: add --reason and --yes to queue them again")


def janitor(rail: Rail, reason: Why = "", as_json: JsonFlag = False) -> None:
    """Trim what is finished from the rail's streams and drop consumers that hold nothing and are silent."""
    require_rail(rail)
    asked = _asked(StreamRepairAsked, reason=reason)

    async def over(client: FleetClient) -> list[dict[str, Any]]:
        answer = await client.call("POST", f"/v1/streams/{rail}/janitor", TidiedList, body=asked)
        return [each.model_dump() for each in answer.items]

    async def beside(servers: StreamServers) -> list[dict[str, Any]]:
        return [asdict(each) for each in await tidy_in(servers.of(rail), rail)]

    rows = _either(over, beside)
    if as_json:
        print_json(rows)
    else:
        columns = ("stream", "trimmed", "consumers_dropped")
        print_table("janitor", columns, [[row[name] for name in columns] for row in rows])


def _either(over: Callable[[FleetClient], Awaitable[T]], beside: Callable[[StreamServers], Awaitable[T]]) -> T:
    """Do it `over` the API; `beside` the core, with the streams' servers, where nothing says how it is reached."""
    if core_is_known():
        return with_operator(over)

    async def work(servers: StreamServers, _: Connection) -> T:
        return await beside(servers)

    return with_redis(work)


def _held(rail: str, consumer: str | None) -> list[HeldEntryView]:
    query = {} if consumer is None else {"consumer": consumer}

    async def over(client: FleetClient) -> list[HeldEntryView]:
        return list((await client.call("GET", f"/v1/streams/{quote(rail)}/held", HeldEntryList, query=query)).items)

    async def beside(servers: StreamServers) -> list[HeldEntryView]:
        return [HeldEntryView(**asdict(entry)) for entry in await held_in(servers.of(rail), rail, consumer)]

    return _either(over, beside)


def _count(rail: str, consumer: str, idle_s: float) -> int:
    return sum(1 for entry in _held(rail, consumer) if entry.idle_s >= idle_s)


def _by_consumer(rows: list[dict[str, Any]]) -> list[list[Any]]:
    """Return what each consumer holds of each stream; who holds nothing is in no line, however long it was silent."""
    held: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        held.setdefault((row["stream"], row["consumer"]), []).append(row)
    return [
        [*key, len(theirs), max(row["idle_s"] for row in theirs), any(row["stuck"] for row in theirs)]
        for key, theirs in sorted(held.items())
    ]


def _move(
    over: Callable[[FleetClient], Awaitable[StreamMoved]], beside: Callable[[StreamServers], Awaitable[int]]
) -> int:
    async def entries(client: FleetClient) -> int:
        return (await over(client)).entries

    return _either(entries, beside)


def _compare(rail: str, age_s: float, shards: int, repair: StreamRepairAsked | None) -> StreamDifference:
    require_rail(rail)
    if core_is_known():
        path, query = f"/v1/streams/{rail}", {"age_s": str(age_s)}
        if repair is None:
            return with_operator(lambda client: client.call("GET", f"{path}/difference", StreamDifference, query=query))
        return with_operator(lambda client: client.call("POST", f"{path}/rebuild", StreamDifference, body=repair))

    async def work(database: Database, connection: Connection) -> StreamDifference:
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
        jobs = [*diff.lost, *diff.acked]
        return told_of(diff, None if repair is None else await store.requeue(jobs) if jobs else 0)

    return with_database(work, "redis_url")


def _asked(model: type[Model], *, reason: str, **fields: Any) -> Model:
    if not reason.strip():
        raise CommandError("reason_missing", "say why, such as --reason 'host-1 is gone'")
    try:
        return model(reason=reason, **fields)
    except ValidationError as error:
        raise invalid_field(error) from error


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    print_fields("streams", document)
    if document["dry_run"]:
        typer.echo("nothing was changed: add --reason and --yes to do it")


def _show_diff(diff: StreamDifference, as_json: bool) -> None:
    document = diff.model_dump(mode="json")
    document |= {name: [each["job_id"] for each in document[name]] for name in ("lost", "acked")}
    if as_json:
        print_json(document)
        return
    counted = {name: len(value) if isinstance(value, list) else value for name, value in document.items()}
    print_fields("streams against PostgreSQL", counted)
    rows = [(job.job_id, job.stream, job.entry_id, "lost") for job in diff.lost]
    rows += [(job.job_id, job.stream, job.entry_id, "acked") for job in diff.acked]
    if rows:
        print_table("jobs without an entry", ("id", "stream", "entry", "why"), rows)
