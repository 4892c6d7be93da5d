"""`fleet events`: what happened to payments, as a list or as it happens."""

from contextlib import aclosing
from typing import Annotated
from uuid import UUID

import orjson
import typer

from fleet.cli.connection import with_client
from fleet.cli.output import JsonFlag, print_page
from fleet.client import FleetClient
from schemas.events import EventType, EventView

app = typer.Typer(help="What happened to payments.", no_args_is_help=True)

Intent = Annotated[UUID | None, typer.Option("--intent", help="Of this payment alone.")]
Types = Annotated[
    list[EventType] | None, typer.Option("--type", help="Of this type alone, such as settled; may repeat.")
]


@app.command("list")
def list_(intent: Intent = None, type_: Types = None, cursor: str | None = None, as_json: JsonFlag = False) -> None:
    """List events, oldest first, a page at a time; --cursor is the id of the last event that was seen."""
    page = with_client(lambda client: client.page_of_events(intent, types=type_ or (), cursor=cursor))
    columns = ("id", "at", "intent", "seq", "type", "state", "actor")
    print_page(
        page, as_json, "events", columns,
        lambda x: (x.id, x.at, x.intent_id, x.seq, x.type, x.state, x.actor),
    )  # fmt: skip


@app.command()
def follow(
    intent: Intent = None,
    type_: Types = None,
    after: Annotated[str | None, typer.Option(help="The id of the last event that was seen.")] = None,
    count: Annotated[int, typer.Option(help="End after so many; 0: go on.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document a line.")] = False,
) -> None:
    """Show events as they happen: of one payment until it has ended, else of all until Ctrl-C."""

    async def work(client: FleetClient) -> None:
        shown = 0
        async with aclosing(client.events(intent, types=type_ or (), after=after)) as events:
            async for event in events:
                typer.echo(orjson.dumps(event.model_dump(mode="json")).decode() if as_json else _line(event))
                shown += 1
                if shown == count:
                    return

    with_client(work)


def _line(event: EventView) -> str:
    return f"{event.at:%Y-%m-%d %H:%M:%S} {event.intent_id} {event.seq:>2} {event.type} {event.state} id={event.id}"
