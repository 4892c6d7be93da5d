"""`fleet rails`: what has registered, what is paused or waits, and a new rail's folder."""

import keyword
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from core.services.access.keys import DEAD_LETTERS_SCOPE, RAILS_SCOPE, Caller
from core.services.access.people import SYSTEM_TENANT
from core.services.on_call import rail_desk
from core.store.database import Database
from core.store.on_call.audit import AuditStore
from core.store.payments.intents import IntentStore
from core.store.settling import jobs, rails
from fleet.cli.connection import Connection, core_is_known, with_operator
from fleet.cli.operator import ACTOR, with_database
from fleet.cli.output import CommandError, JsonFlag, invalid_field, print_fields, print_json, print_table, require_rail
from fleet.client import FleetClient
from fleet.scaffold.new_rail import FolderExistsError, write_rail
from schemas.operations import OperationType
from schemas.rail_desk import RailChanged, RailEventList, RailList, RailPause, RailResume, RailView

T = TypeVar("T")

app = typer.Typer(help="Rails: what is registered, pause, resume, events.", no_args_is_help=True)

Rail = Annotated[str, typer.Argument(help="The rail's name, such as promptpay.")]
Operation = Annotated[
    OperationType | None, typer.Option(help="Only this operation; left out, the whole rail.", case_sensitive=False)
]
DESK = Caller(ACTOR, SYSTEM_TENANT, "person", None, frozenset({RAILS_SCOPE, DEAD_LETTERS_SCOPE}), None)
"""Who holds the database's password works as one of the system's people."""


class DeskPorts:
    """What these use cases work with beside the core, under the worker role."""

    def __init__(self, database: Database) -> None:
        self.unit_of_work = database.unit_of_work
        self.rails: Any = rails
        self.jobs: Any = jobs
        self.intents = IntentStore()
        self.journal = AuditStore()


def at_desk(over: Callable[[FleetClient], Awaitable[T]], beside: Callable[[DeskPorts], Awaitable[T]]) -> T:
    """Do it `over` the API; `beside` the core, under the worker role, where nothing says how it is reached."""
    if core_is_known():
        return with_operator(over)

    async def work(database: Database, _: Connection) -> T:
        return await beside(DeskPorts(database))

    return with_database(work)


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """Show every rail that has registered, what of it is paused, and what waits for streams or for the provider."""

    async def beside(ports: DeskPorts) -> RailList:
        return RailList(items=await rail_desk.list_rails(ports, DESK))

    found = at_desk(lambda client: client.call("GET", "/v1/rails", RailList), beside).items
    if as_json:
        print_json([each.model_dump(mode="json") for each in found])
    elif found:
        columns = ("rail", "provider", "version", "paused", "waits")
        print_table("rails", columns, [[each.rail, each.provider, each.version, *_states(each)] for each in found])
    else:
        typer.echo("no rail has registered: start an adapter")


@app.command()
def pause(
    rail: Rail,
    reason: Annotated[str, typer.Option(help="Why, for who looks at it later.")],
    operation: Operation = None,
    as_json: JsonFlag = False,
) -> None:
    """Give no first permits any more. What was sent is still asked about, cancelled and settled; nothing expires."""
    require_rail(rail)
    if not reason.strip():
        raise CommandError("reason_missing", "say why, such as --reason 'the provider announced maintenance'")
    try:
        asked = RailPause(reason=reason.strip(), operation=operation)
    except ValidationError as error:
        raise invalid_field(error) from error
    changed = at_desk(
        lambda client: client.call("POST", f"/v1/rails/{rail}/pause", RailChanged, body=asked),
        lambda ports: rail_desk.pause_rail(ports, DESK, rail, operation or "*", asked.reason),
    )
    _show(changed, as_json)


@app.command()
def resume(rail: Rail, operation: Operation = None, as_json: JsonFlag = False) -> None:
    """Give first permits again; what waited unsent gets the pause added to its deadline.

    What was paused by an operation's name is resumed by that name.
    """
    require_rail(rail)
    asked = RailResume(operation=operation)
    changed = at_desk(
        lambda client: client.call("POST", f"/v1/rails/{rail}/resume", RailChanged, body=asked),
        lambda ports: rail_desk.resume_rail(ports, DESK, rail, operation or "*"),
    )
    _show(changed, as_json)


@app.command()
def events(
    rail: Rail,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Show who paused and resumed a rail and why, and when it had to wait."""
    require_rail(rail)

    async def beside(ports: DeskPorts) -> RailEventList:
        return RailEventList(items=await rail_desk.rail_events(ports, DESK, rail, limit))

    path, query = f"/v1/rails/{rail}/events", {"limit": str(limit)}
    found = at_desk(lambda client: client.call("GET", path, RailEventList, query=query), beside).items
    if as_json:
        print_json([each.model_dump(mode="json") for each in found])
        return
    columns = ("at", "type", "operation", "actor", "reason", "moved")
    print_table("events", columns, [[getattr(each, column) for column in columns] for each in found])


@app.command()
def new(
    rail: Rail,
    root: Annotated[Path, typer.Option(help="The work tree to write into.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Write a new rail: a running adapter for an example provider, its simulator, certificate and page."""
    require_rail(rail)
    if keyword.iskeyword(rail):
        raise CommandError("rail_malformed", f"{rail!r} is a word of Python, and no folder of it can be imported")
    if not (root / "adapters" / "runtime").is_dir():
        raise CommandError("not_a_work_tree", f"{root} has no adapters/runtime: give --root, or go there")
    try:
        written = write_rail(root, rail)
    except FolderExistsError as error:
        raise CommandError("rail_exists", f"there is {error} already: choose another name") from error
    if as_json:
        print_json({"rail": rail, "files": [str(path) for path in written]})
        return
    for path in written:
        typer.echo(str(path))
    typer.echo(f"next: pytest tests/conformance/test_{rail}.py, then docs/adding-a-rail.md")


def _states(rail: RailView) -> list[str]:
    paused = ", ".join(f"{each.operation} ({each.reason})" for each in rail.pauses)
    waits = ", ".join(f"{each.operation} ({each.cause})" for each in rail.waits)
    return [paused, waits]


def _show(changed: RailChanged, as_json: bool) -> None:
    if as_json:
        print_json(changed.model_dump(mode="json"))
        return
    print_fields("rail", changed.model_dump(exclude={"still_paused"}))
    for each in changed.still_paused:
        how = "" if each == "*" else f" --operation {each}"
        what = "the whole rail is" if each == "*" else f"{each} is"
        typer.echo(f"{what} still paused: fleet rails resume {changed.rail}{how}")
