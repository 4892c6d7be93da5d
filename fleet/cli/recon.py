"""`fleet recon`: the books against themselves and against the intents; what did not fit, and how it is put right."""

import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import UUID

import typer
from pydantic import ValidationError

from core.services.recon import register_desk as desk
from core.services.recon.recon import list_breaks
from core.services.recon.recon_report import WRITERS, week_days
from fleet.cli import recon_registers
from fleet.cli.connection import with_operator
from fleet.cli.dry_run import Yes, show_dry_run
from fleet.cli.moments import moment
from fleet.cli.output import (
    CommandError,
    ExitCode,
    JsonFlag,
    invalid_field,
    print_fields,
    print_json,
    print_next,
    print_table,
    why,
)
from fleet.cli.recon_registers import COMPARING_S, DESK, ReconCommandPorts, either
from fleet.client import FleetClient
from schemas.recon import (
    BooksAsked,
    BooksCompared,
    BreakList,
    BreakName,
    BreakOwner,
    BreakPreview,
    BreakResolution,
    BreakShown,
    BreakState,
    BreakView,
    ReconReport,
)
from schemas.recon_report import ReportFormat

app = typer.Typer(help="Reconciliation and its breaks.", no_args_is_help=True)
recon_registers.install(app)

Since = Annotated[
    datetime | None, typer.Option(parser=moment, help="Only what was made since this time, UTC; left out: everything.")
]


@app.command()
def ledger(as_json: JsonFlag = False) -> int:
    """Prove the ledger from its transfers and keep what does not hold as breaks; exit code 1 where something does."""
    return _compare(BooksAsked(what=BooksCompared.LEDGER), as_json)


@app.command()
def intents(since: Since = None, as_json: JsonFlag = False) -> int:
    """Compare intents with books and events and keep what does not fit as breaks; exit code 1 where something does."""
    return _compare(BooksAsked(what=BooksCompared.INTENTS, since=since), as_json)


@app.command()
def breaks(
    state: Annotated[BreakState | None, typer.Option(help="Only these; left out: all.")] = None,
    kind: Annotated[BreakName | None, typer.Option(help="Only this kind, such as orphan_hold.")] = None,
    rail: Annotated[str | None, typer.Option(help="Only of this rail's registers.")] = None,
    day: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only of this business day.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="As the page before told it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List breaks, the oldest first."""
    narrowed = {"kind": kind, "rail": rail, "day": day.date() if day else None, "limit": limit, "cursor": cursor}
    query = {name: str(value) for name, value in narrowed.items() if value is not None} | {"state": state or "ALL"}
    page = either(
        lambda ports: list_breaks(ports, DESK, state=state, **cast("dict[str, Any]", narrowed)),
        lambda client: client.call("GET", "/v1/breaks", BreakList, query=query),
    )
    found = page.items
    if as_json:
        print_json([each.model_dump(mode="json") for each in found])
        return
    rows = [
        (x.id, x.kind, x.subject_id, x.amount_minor, x.currency, timedelta(seconds=x.age_s), x.state, x.owner, x.detail)
        for x in found
    ]
    columns = ("id", "kind", "subject", "minor units", "currency", "age", "state", "owner", "detail")
    print_table("breaks", columns, rows)
    print_next(page)


@app.command()
def report(
    format_: Annotated[ReportFormat, typer.Option("--format", help="csv, json or html, which prints well.")],
    day: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The day's report.")] = None,
    week: Annotated[str, typer.Option(help="The report of an ISO week, such as 2026-W47.")] = "",
    out: Annotated[str, typer.Option(help="The file to write; - writes stdout.")] = "-",
) -> None:
    """Write what was compared and what did not fit, with owners, ages and ends; without a day, today's."""
    if day is not None and week:
        raise CommandError("invalid_field", "give --day or --week")
    try:
        _ = week and week_days(week)
    except ValueError as error:
        raise CommandError("invalid_field", str(error)) from error
    query = {"format": format_.value} | ({"week": week} if week else {}) | ({"day": str(day.date())} if day else {})

    async def beside(ports: ReconCommandPorts) -> str:
        return WRITERS[format_](await desk.report(ports, DESK, day.date() if day else None, week))

    async def over(client: FleetClient) -> str:
        return b"".join([part async for part in client.stream("/v1/recon/report", query)]).decode()

    text = either(beside, over)
    if out == "-":
        sys.stdout.write(text)
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError("file_unwritable", f"{out}: {why(error)}") from error


@app.command()
def assign(break_id: UUID, owner: str, as_json: JsonFlag = False) -> None:
    """Say who looks after a break."""
    _change(break_id, "assign", BreakOwner, {"owner": owner}, as_json)


@app.command()
def resolve(
    break_id: UUID,
    reason: Annotated[str, typer.Option(help="Why this puts it right.")],
    entry: Annotated[UUID | None, typer.Option(help="The settled payment that was made to put it right.")] = None,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Put a break right by a new entry; an orphan hold is voided once a second person approves."""
    if not yes:
        path, body = f"/v1/breaks/{break_id}/preview", BreakPreview(entry_intent_id=entry)
        found = with_operator(lambda client: client.call("POST", path, BreakShown, body=body))
        _show_first("put the break right", found, {"reason": reason, "entry": entry}, as_json)
        return
    _change(break_id, "resolve", BreakResolution, {"reason": reason, "entry_intent_id": entry}, as_json)


@app.command()
def approve(break_id: UUID, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Agree with how another person puts a break right."""
    if not yes:
        found = with_operator(lambda client: client.call("GET", f"/v1/breaks/{break_id}", BreakShown))
        _show_first("agree with how another person puts the break right", found, {}, as_json)
        return
    view = with_operator(lambda client: client.call("POST", f"/v1/breaks/{break_id}/approve", BreakView))
    _show(view, as_json)


def _compare(asked: BooksAsked, as_json: bool) -> int:
    found = either(
        lambda ports: desk.compare_books(ports, DESK, asked.what, asked.since),
        lambda client: client.call("POST", "/v1/recon/books", ReconReport, body=asked),
        timeout_s=COMPARING_S,
    )
    if as_json:
        print_json({**found.model_dump(mode="json"), "clean": found.clean})
    else:
        print_fields("reconciliation", found.model_dump(exclude={"found"}) | {"clean": found.clean} | found.found)
    return ExitCode.DONE if found.clean else ExitCode.CHECK_FAILED


def _change(break_id: UUID, change: str, model: Any, asked: dict[str, Any], as_json: bool) -> None:
    try:
        body = model(**asked)
    except ValidationError as error:
        raise invalid_field(error) from error
    path = f"/v1/breaks/{break_id}/{change}"
    _show(with_operator(lambda client: client.call("POST", path, BreakView, body=body)), as_json)


def _show_first(would: str, found: BreakShown, asked: dict[str, Any], as_json: bool) -> None:
    """Tell what the break is, and which entries put it right: amounts and accounts."""
    if as_json:
        given = {name: None if value is None else str(value) for name, value in asked.items()}
        show_dry_run(would, {"break": found.model_dump(mode="json"), **given}, as_json)
        return
    two = "yes" if found.needs_approval else "no"
    rows = [
        (x.what, x.amount_minor, x.currency, x.debit_account_id, x.credit_account_id, x.transfer_id)
        for x in found.entries
    ]
    if rows:
        columns = ("what", "minor units", "currency", "debit", "credit", "transfer")
        print_table("entries that put it right", columns, rows)
    else:
        typer.echo("no entry puts it right: the explanation alone does")
    about = found.model_dump(exclude={"entries", "needs_approval"}) | {"needs a second person": two}
    show_dry_run(would, about | {name: value for name, value in asked.items() if value is not None}, as_json)


def _show(view: BreakView, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    print_fields("break", view.model_dump())
    if view.state is BreakState.PROPOSED:
        typer.echo(f"it waits for another person: fleet recon approve {view.id} --yes")
