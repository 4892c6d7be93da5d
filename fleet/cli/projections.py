"""`fleet projections`: what is stored beside the history, compared with it and made from it again."""

from typing import Annotated

import typer

from core.domain.context import Context
from core.services.wallets.projections import Projection, Rebuilt, rebuild
from core.store.database import Database
from core.store.wallets.projections import ProjectionStore
from fleet.cli.connection import Connection
from fleet.cli.operator import ACTOR, with_database
from fleet.cli.output import ExitCode, JsonFlag, print_json, print_table

app = typer.Typer(help="What is stored beside the history: compared with it, and made from it.", no_args_is_help=True)

Only = Annotated[Projection | None, typer.Option(help="This projection alone.")]


@app.command()
def verify(only: Only = None, as_json: JsonFlag = False) -> int:
    """Compare every row with the history; exit 1 where one differs. Payments may arrive meanwhile."""
    done = _run(only, write=False)
    _show(done, as_json, dry_run=True)
    return int(ExitCode.CHECK_FAILED if done.differences else ExitCode.DONE)


@app.command("rebuild")
def rebuild_(
    only: Only = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this only what differs is shown.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make every row anew that differs from the history, under the locks that payments take."""
    done = _run(only, write=yes)
    _show(done, as_json, dry_run=not yes)
    if done.differences and not yes and not as_json:
        typer.echo("nothing was changed: add --yes to make these rows anew")


def _run(only: Projection | None, *, write: bool) -> Rebuilt:
    async def work(database: Database, _: Connection) -> Rebuilt:
        chosen = list(Projection) if only is None else [only]
        return await rebuild(
            ProjectionStore(), lambda: database.unit_of_work(Context(None, ACTOR)), chosen, write=write
        )

    return with_database(work)


def _show(done: Rebuilt, as_json: bool, *, dry_run: bool) -> None:
    if as_json:
        found = [
            {
                "projection": each.projection,
                "id": each.subject,
                "tenant_id": each.tenant_id,
                "stored": each.stored,
                "history": each.history,
            }
            for each in done.differences
        ]
        print_json({"checked": done.checked, "differences": found, "remade": list(done.remade), "dry_run": dry_run})
        return
    if done.differences:
        rows = [(each.projection, each.subject, each.stored, each.history) for each in done.differences]
        print_table("differences", ("projection", "id", "stored", "history"), rows)
    typer.echo(f"{done.checked} rows compared, {len(done.differences)} differ, {len(done.remade)} made anew")
