"""`fleet rails`: what has registered, what is paused or waits, and a new rail's folder."""

import json
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import typer

from core.services.settling.rails import pause as pause_rail
from core.services.settling.rails import resume as resume_rail
from core.store.database import UnitOfWork
from core.store.settling import rails as store
from fleet.cli.operator import in_tenant
from fleet.cli.output import CommandError, JsonFlag, print_fields, print_json, print_table
from fleet.scaffold.new_rail import FolderExistsError, write_rail
from schemas.operations import OperationType
from schemas.streams import RAIL_PATTERN

app = typer.Typer(help="Rails: what is registered, pause, resume, events.", no_args_is_help=True)

Rail = Annotated[str, typer.Argument(help="The rail's name, such as promptpay.")]
Operation = Annotated[
    OperationType | None, typer.Option(help="Only this operation; left out, the whole rail.", case_sensitive=False)
]


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """Show every rail that has registered, what of it is paused, and what waits for streams or for the provider."""
    found = [_document(row) for row in in_tenant(None, store.overview)]
    if as_json:
        print_json(found)
    elif found:
        columns = ("rail", "provider", "version", "paused", "waits")
        print_table("rails", columns, [[str(row[column]) for column in columns[:3]] + _states(row) for row in found])
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
    _checked(rail)
    if not reason.strip():
        raise CommandError("reason_missing", "say why, such as --reason 'the provider announced maintenance'")

    async def work(uow: UnitOfWork) -> bool:
        await _known(uow, rail)
        return await pause_rail(uow, store, rail, _name(operation), reason=reason.strip())

    changed = in_tenant(None, work)
    document = {"rail": rail, "operation": _name(operation), "paused": True, "changed": changed}
    _show(document, as_json)


@app.command()
def resume(rail: Rail, operation: Operation = None, as_json: JsonFlag = False) -> None:
    """Give first permits again; what waited unsent gets the pause added to its deadline."""
    _checked(rail)

    async def work(uow: UnitOfWork) -> int:
        await _known(uow, rail)
        return await resume_rail(uow, store, rail, _name(operation))

    moved = in_tenant(None, work)
    _show({"rail": rail, "operation": _name(operation), "paused": False, "deadlines_moved": moved}, as_json)


@app.command()
def events(
    rail: Rail,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Show who paused and resumed a rail and why, and when it had to wait."""
    _checked(rail)

    async def work(uow: UnitOfWork) -> list[asyncpg.Record]:
        await _known(uow, rail)
        return await store.events_of(uow, rail, limit)

    columns = ("at", "type", "operation", "actor", "reason", "moved")
    found = [{**row, "at": row["at"].isoformat(timespec="seconds")} for row in in_tenant(None, work)]
    if as_json:
        print_json(found)
    else:
        print_table("events", columns, [[str(row[column]) for column in columns] for row in found])


@app.command()
def new(
    rail: Rail,
    root: Annotated[Path, typer.Option(help="The work tree to write into.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Write a new rail: a running adapter for an example provider, its simulator, certificate and page."""
    _checked(rail)
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


def _checked(rail: str) -> None:
    if RAIL_PATTERN.fullmatch(rail) is None:
        raise CommandError("rail_malformed", f"{rail[:40]!r} is no rail's name, such as promptpay")


async def _known(uow: UnitOfWork, rail: str) -> None:
    if rail not in (known := await store.known_rails(uow)):
        raise CommandError("rail_unknown", f"{rail} has never registered; known: {', '.join(known) or 'none'}")


def _name(operation: OperationType | None) -> str:
    return "*" if operation is None else operation.value


def _document(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "rail": row["rail"],
        "provider": row["provider"],
        "provider_account": row["provider_account"],
        "version": row["version"],
        "registered_at": row["registered_at"].isoformat(timespec="seconds"),
        "pauses": json.loads(row["pauses"]),
        "waits": json.loads(row["waits"]),
    }


def _states(row: dict[str, Any]) -> list[str]:
    paused = ", ".join(f"{each['operation']} ({each['reason']})" for each in row["pauses"])
    waits = ", ".join(f"{each['operation']} ({each['cause']})" for each in row["waits"])
    return [paused, waits]


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print_fields("rail", document)
