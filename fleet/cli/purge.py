"""`fleet purge`: lose what need not be kept any longer. Never what is about money: the database refuses that."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import asyncpg
import typer

from core.domain.context import Context
from core.services.on_call.purge import DEFAULT_KEEP, EVENTS, Purged, Purger, ages_of
from core.store.database import Database
from core.store.on_call.audit import AuditStore
from core.store.on_call.purge import PurgeStore
from fleet.cli.connection import Connection
from fleet.cli.operator import ACTOR, with_database
from fleet.cli.output import CommandError, ExitCode, JsonFlag, print_json, print_table

Only = Annotated[list[str] | None, typer.Option(help="This kind alone; may be repeated. Default: all.")]
Keep = Annotated[
    list[str] | None,
    typer.Option(envvar="FLEET_KEEP", help="KIND=DAYS: another age than the usual; may be repeated."),
]


def purge(
    only: Only = None,
    keep: Keep = None,
    batch: Annotated[int, typer.Option(min=1, max=50_000, help="Rows lost in one transaction.")] = 5000,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this only what would go is counted.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Lose rows that are older than they must be kept, in batches: it may be stopped and run again at any time.

    Money, its holds, payments, permits, facts and idempotency keys of payments are never lost. See docs/retention.md.
    """
    kinds = _kept(only or list(DEFAULT_KEEP), keep or [])

    async def work(database: Database, _: Connection) -> list[Purged]:
        store = PurgeStore()
        purger = Purger(store, AuditStore(), lambda: database.unit_of_work(Context(None, ACTOR)), ACTOR, batch)
        try:
            return await purger.run(kinds, lose=yes)
        except asyncpg.RestrictViolationError as error:
            raise CommandError("keep_too_short", str(error), ExitCode.REFUSED) from error

    found = with_database(work)
    if as_json:
        print_json({"dry_run": not yes, "purged": [asdict(each) for each in found]})
        return
    print_table(
        "purged" if yes else "would be purged",
        ("kind", "older than", "rows", "months", "stays"),
        [
            (each.kind, each.before, "-" if each.kind == EVENTS else each.rows, " ".join(each.months), _stays(each))
            for each in found
        ],
    )
    if not yes:
        typer.echo("nothing was lost: add --yes to lose it")


def _kept(only: list[str], keep: list[str]) -> dict[str, timedelta]:
    try:
        ages = ages_of(keep)
    except ValueError as error:
        raise CommandError("keep_malformed", str(error)) from error
    if unknown := [kind for kind in only if kind not in ages]:
        raise CommandError("kind_unknown", f"{', '.join(unknown)}: there is {', '.join(ages)}")
    return {kind: ages[kind] for kind in ages if kind in only}


def _stays(found: Purged) -> str:
    return "; ".join(f"{month.month}: {month.kept_because}" for month in found.kept)
