"""`fleet ledger verify`: prove every balance from the transfers alone."""

import typer

from core.domain.context import Context
from core.services.ledger_port import LedgerReport
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from fleet.cli.connection import Connection
from fleet.cli.operator import ACTOR, with_database
from fleet.cli.output import ExitCode, JsonFlag, print_fields, print_json, print_table

app = typer.Typer(help="The books.", no_args_is_help=True)


@app.callback()
def ledger() -> None:
    """The books."""


@app.command()
def verify(as_json: JsonFlag = False) -> int:
    """Prove stored balances, zero sums, flags and whole chains; exit code 1 names every discrepancy."""

    async def work(database: Database, _: Connection) -> LedgerReport:
        context = Context(None, ACTOR)
        async with database.unit_of_work(context) as uow:
            return await PostgresLedger(database, context).verify(uow)

    report = with_database(work)
    summary = {
        "holds": report.holds,
        "accounts": report.accounts,
        "transfers": report.transfers,
        "pending_minor": report.pending_minor,
    }
    wrong = [{"kind": d.kind, "subject_id": d.subject_id, "detail": d.detail} for d in report.discrepancies]
    if as_json:
        print_json({**summary, "discrepancies": wrong})
    else:
        print_fields("ledger", {"balanced": summary.pop("holds"), **summary})
        if wrong:
            print_table("discrepancies", ("kind", "subject", "detail"), [tuple(item.values()) for item in wrong])
    return ExitCode.DONE if report.holds else ExitCode.CHECK_FAILED
