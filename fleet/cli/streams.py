"""`fleet streams status`: what waits, what is held by whom, and since when."""

from typing import Annotated, Any

import typer
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from core.domain.context import Context
from core.store.database import Database
from core.store.settling.rails import known_rails, known_shards
from fleet.cli import stream_repair
from fleet.cli.connection import Connection
from fleet.cli.operator import with_database, with_redis
from fleet.cli.output import CommandError, JsonFlag, print_json, print_table
from schemas.streams import RAIL_PATTERN, groups_of
from wire.client import StreamServers

app = typer.Typer(help="Redis Streams between the core and the adapters.", no_args_is_help=True)


@app.callback()
def streams() -> None:
    """Redis Streams between the core and the adapters."""


@app.command()
def status(
    rail: Annotated[
        list[str] | None, typer.Option(help="Only this rail, or shard such as promptpay.1; repeatable. Left out: all.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show length, lag, pending entries, consumers and the oldest pending entry's idle time of each stream."""
    for name in rail or ():
        if RAIL_PATTERN.fullmatch(name) is None:
            raise CommandError("rail_malformed", f"{name[:40]!r} is no rail's name, such as promptpay")
    # Given by name, the rails of a core whose database is away can be looked at too.
    chosen = list(dict.fromkeys(rail)) if rail else with_database(_registered)

    async def work(servers: StreamServers, _: Connection) -> list[dict[str, Any]]:
        return [
            await _stream_status(servers.of(name), name, key, group)
            for name in chosen
            for key, group in groups_of(name)
        ]

    rows = with_redis(work)
    if as_json:
        print_json(rows)
    elif rows:
        fields = ("stream", "group", "length", "lag", "pending", "oldest_idle_s")
        columns = (*fields[:-1], "oldest_s", "consumers")
        print_table("streams", columns, [[*(row[name] for name in fields), _who(row)] for row in rows])
    else:
        typer.echo("no rail has registered: start an adapter")


async def _registered(database: Database, _: Connection) -> list[str]:
    async with database.unit_of_work(Context(None, "fleet-cli")) as uow:
        return [*await known_rails(uow), *await known_shards(uow)]


async def _stream_status(client: Redis, rail: str, key: str, group: str) -> dict[str, Any]:
    row: dict[str, Any] = {"rail": rail, "stream": key, "group": group}
    try:
        found = next((entry for entry in await client.xinfo_groups(key) if _text(entry["name"]) == group), None)
        if found is None:
            return {**row, **_ABSENT, "length": await client.xlen(key)}
        consumers = await client.xinfo_consumers(key, group)
        oldest = await client.xpending_range(key, group, min="-", max="+", count=1)
    except ResponseError as error:
        # The stream does not exist, or stream and group went with a server that was wiped this moment.
        if not str(error).startswith(("no such key", "NOGROUP")):
            raise
        return {**row, **_ABSENT}
    return {
        **row,
        "group_exists": True,
        "length": await client.xlen(key),
        "lag": found["lag"],
        "pending": found["pending"],
        "oldest_idle_s": int(oldest[0]["time_since_delivered"]) // 1000 if oldest else None,
        "consumers": [
            {"name": _text(entry["name"]), "pending": entry["pending"], "idle_s": entry["idle"] // 1000}
            for entry in consumers
        ],
    }


for _verb in (
    stream_repair.pending,
    stream_repair.release,
    stream_repair.claim,
    stream_repair.lost,
    stream_repair.rebuild,
    stream_repair.janitor,
):
    app.command()(_verb)


_ABSENT: dict[str, Any] = {
    "group_exists": False,
    "length": 0,
    "lag": None,
    "pending": 0,
    "oldest_idle_s": None,
    "consumers": [],
}


def _who(row: dict[str, Any]) -> str:
    if not row["group_exists"]:
        return "group missing"
    return ", ".join(f"{each['name']}={each['pending']}" for each in row["consumers"])


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
