"""`fleet streams status`: what waits, what is held by whom, and since when."""

from typing import Annotated, Any

import typer

from core.bus.stream_repair import status_in
from core.domain.context import Context
from core.store.database import Database
from core.store.settling.rails import known_rails, known_shards
from fleet.cli import stream_repair
from fleet.cli.connection import Connection, core_is_known, with_operator
from fleet.cli.operator import with_database, with_redis
from fleet.cli.output import CommandError, ExitCode, JsonFlag, print_json, print_table, require_rail
from schemas.rail_desk import StreamStatusList, StreamStatusView
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
        require_rail(name)
    if core_is_known():
        rows = _over_the_api(rail)
    else:
        # Given by name, the rails of a core whose database is away can be looked at too.
        chosen = list(dict.fromkeys(rail)) if rail else with_database(_registered)

        async def work(servers: StreamServers, _: Connection) -> list[StreamStatusView]:
            return [each for name in chosen for each in await status_in(servers.of(name), name)]

        rows = [each.model_dump() for each in with_redis(work)]
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


def _over_the_api(rails: list[str] | None) -> list[dict[str, Any]]:
    found = with_operator(lambda client: client.call("GET", "/v1/streams", StreamStatusList)).items
    # Named is a rail with all its shards, or one shard.
    wanted = set(rails or ())
    served = {name for each in found for name in (each.rail, each.rail.partition(".")[0])}
    if unknown := sorted(wanted - served):
        text = f"the core serves no rail {', '.join(unknown)}: fleet rails list shows those that have registered"
        raise CommandError("not_found", text, ExitCode.REFUSED)
    return [each.model_dump() for each in found if not wanted or {each.rail, each.rail.partition(".")[0]} & wanted]


for _verb in (
    stream_repair.pending,
    stream_repair.release,
    stream_repair.claim,
    stream_repair.lost,
    stream_repair.rebuild,
    stream_repair.janitor,
):
    app.command()(_verb)


def _who(row: dict[str, Any]) -> str:
    if not row["group_exists"]:
        return "group missing"
    return ", ".join(f"{each['name']}={each['pending']}" for each in row["consumers"])
