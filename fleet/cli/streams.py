"""`fleet streams status`: what waits, what is held by whom, and since when."""

from typing import Annotated, Any

import typer
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from fleet.cli.connection import Connection
from fleet.cli.operator import with_redis
from fleet.cli.output import JsonFlag, print_json, print_table
from schemas.streams import groups_of

app = typer.Typer(help="Redis Streams between the core and the adapters.", no_args_is_help=True)


@app.callback()
def streams() -> None:
    """Redis Streams between the core and the adapters."""


@app.command()
def status(
    rail: Annotated[list[str] | None, typer.Option(help="A rail; may be given several times.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show length, lag, pending entries, consumers and the oldest pending entry's idle time of each stream."""
    chosen = rail or ["promptpay"]

    async def work(client: "Redis", _: Connection) -> list[dict[str, Any]]:
        return [await _stream_status(client, key, group) for name in chosen for key, group in groups_of(name)]

    rows = with_redis(work)
    if as_json:
        print_json(rows)
        return
    columns = ("stream", "group", "length", "lag", "pending", "oldest_idle_s", "consumers")
    print_table("streams", columns, [tuple(row[column] for column in columns) for row in rows])


async def _stream_status(client: "Redis", key: str, group: str) -> dict[str, Any]:
    row: dict[str, Any] = {"stream": key, "group": group}
    try:
        found = next((entry for entry in await client.xinfo_groups(key) if _text(entry["name"]) == group), None)
    except ResponseError:
        found = None  # the stream does not exist
    if found is None:
        return {**row, "length": 0, "lag": None, "pending": 0, "oldest_idle_s": None, "consumers": "group missing"}
    consumers = await client.xinfo_consumers(key, group)
    oldest = await client.xpending_range(key, group, min="-", max="+", count=1)
    return {
        **row,
        "length": await client.xlen(key),
        "lag": found["lag"],
        "pending": found["pending"],
        "oldest_idle_s": int(oldest[0]["time_since_delivered"]) // 1000 if oldest else None,
        "consumers": ", ".join(f"{_text(entry['name'])}={entry['pending']}" for entry in consumers),
    }


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
