"""`fleet recon`: the books against themselves and against the intents; what did not fit, and how it is put right."""

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast
from uuid import UUID

import typer
from pydantic import ValidationError

from core.domain.context import Context
from core.services.ledger_port import Ledger
from core.services.recon import reconcile_intents, reconcile_ledger
from core.services.recon_report import as_csv, as_html, report_of, week_days
from core.services.recon_report import as_json as as_report_json
from core.store.audit import AuditStore
from core.store.database import Database
from core.store.intents import IntentStore
from core.store.ledger import PostgresLedger
from core.store.recon import ReconStore
from core.store.registers import RegisterStore
from fleet.cli import recon_registers
from fleet.cli.connection import Connection, with_client
from fleet.cli.operator import with_database
from fleet.cli.output import CommandError, ExitCode, JsonFlag, invalid_field, print_fields, print_json, print_table
from fleet.cli.redrives import utc
from schemas.recon import BreakOwner, BreakResolution, BreakState, BreakView, ReconReport
from schemas.recon_report import ReconPeriod

app = typer.Typer(help="Reconciliation and its breaks.", no_args_is_help=True)
recon_registers.install(app)

_CONTEXT = Context(None, "fleet-cli")

Since = Annotated[datetime | None, typer.Option(help="Only what was made since this time, UTC; left out: everything.")]


class ReportFormat(StrEnum):
    """How a report is written."""

    CSV = "csv"
    JSON = "json"
    HTML = "html"


class _Ports:
    def __init__(self, database: Database) -> None:
        self.unit_of_work = database.unit_of_work
        self.ledger = cast("Ledger", PostgresLedger(database, _CONTEXT))
        self.recon, self.journal, self.intents = ReconStore(), AuditStore(), IntentStore()
        self.break_approval_above_minor = 0


@app.command()
def ledger(as_json: JsonFlag = False) -> int:
    """Prove the ledger from its transfers and keep what does not hold as breaks; exit code 1 where something does."""
    return _run(lambda ports: reconcile_ledger(ports, _CONTEXT), as_json)


@app.command()
def intents(since: Since = None, as_json: JsonFlag = False) -> int:
    """Compare intents with books and events and keep what does not fit as breaks; exit code 1 where something does."""
    return _run(lambda ports: reconcile_intents(ports, _CONTEXT, utc(since)), as_json)


@app.command()
def breaks(
    state: Annotated[BreakState | None, typer.Option(help="Only these; left out: all.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as orphan_hold.")] = None,
    rail: Annotated[str | None, typer.Option(help="Only of this rail's registers.")] = None,
    day: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only of this business day.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 100,
    as_json: JsonFlag = False,
) -> None:
    """List breaks, the oldest first."""
    found = _breaks(state, kind, limit, rail, day.date() if day else None)
    if as_json:
        print_json([each.model_dump(mode="json") for each in found])
        return
    rows = [
        (x.id, x.kind, x.subject_id, x.amount_minor, x.currency, timedelta(seconds=x.age_s), x.state, x.owner, x.detail)
        for x in found
    ]
    columns = ("id", "kind", "subject", "minor units", "currency", "age", "state", "owner", "detail")
    print_table("breaks", columns, rows)


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
    today = datetime.now(UTC).date() if day is None else day.date()
    try:
        first, last = week_days(week) if week else (today, today)
    except ValueError as error:
        raise CommandError("invalid_field", str(error)) from error

    async def work(database: Database, _: Connection) -> ReconPeriod:
        async with database.unit_of_work(_CONTEXT) as uow:
            return await report_of(uow, RegisterStore(), ReconStore(), first, last, datetime.now(UTC))

    text = {ReportFormat.CSV: as_csv, ReportFormat.HTML: as_html, ReportFormat.JSON: as_report_json}[format_](
        with_database(work)
    )
    if out == "-":
        sys.stdout.write(text)
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError("file_unwritable", f"{out}: {error}") from error


@app.command()
def assign(break_id: UUID, owner: str, as_json: JsonFlag = False) -> None:
    """Say who looks after a break."""
    _change(break_id, "assign", BreakOwner, {"owner": owner}, as_json)


@app.command()
def resolve(
    break_id: UUID,
    reason: Annotated[str, typer.Option(help="Why this puts it right.")],
    entry: Annotated[UUID | None, typer.Option(help="The settled payment that was made to put it right.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Put a break right by a new entry; an orphan hold is voided once a second person approves."""
    _change(break_id, "resolve", BreakResolution, {"reason": reason, "entry_intent_id": entry}, as_json)


@app.command()
def approve(break_id: UUID, as_json: JsonFlag = False) -> None:
    """Agree with how another person puts a break right."""
    view = with_client(lambda client: client.call("POST", f"/v1/breaks/{break_id}/approve", BreakView))
    _show(view, as_json)


def _run(work: Callable[[Any], Awaitable[ReconReport]], as_json: bool) -> int:
    async def run(database: Database, _: Connection) -> ReconReport:
        return await work(_Ports(database))

    found = with_database(run)
    if as_json:
        print_json({**found.model_dump(mode="json"), "clean": found.clean})
    else:
        print_fields("reconciliation", found.model_dump(exclude={"found"}) | {"clean": found.clean} | found.found)
    return ExitCode.DONE if found.clean else ExitCode.CHECK_FAILED


def _breaks(
    state: BreakState | None, kind: str | None, limit: int, rail: str | None, day: date | None
) -> list[BreakView]:
    async def work(database: Database, _: Connection) -> list[BreakView]:
        async with database.unit_of_work(_CONTEXT) as uow:
            return await ReconStore().page(uow, None, state, kind, limit, rail, day)

    return with_database(work)


def _change(break_id: UUID, change: str, model: Any, asked: dict[str, Any], as_json: bool) -> None:
    try:
        body = model(**asked)
    except ValidationError as error:
        raise invalid_field(error) from error
    path = f"/v1/breaks/{break_id}/{change}"
    _show(with_client(lambda client: client.call("POST", path, BreakView, body=body)), as_json)


def _show(view: BreakView, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    print_fields("break", view.model_dump())
    if view.state is BreakState.PROPOSED:
        typer.echo(f"it waits for another person: fleet recon approve {view.id}")
