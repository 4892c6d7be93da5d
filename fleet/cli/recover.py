"""`fleet recover`: after a restore or a fail-over of PostgreSQL that may have lost commits."""

from dataclasses import asdict
from typing import Annotated

import typer

from core.domain.context import Context
from core.store.database import Database
from core.store.epochs import EpochStatus, epoch_status, raise_ledger_epoch
from fleet.cli.connection import Connection
from fleet.cli.operator import with_database
from fleet.cli.output import CommandError, JsonFlag, print_fields, print_json


def recover(
    reason: Annotated[str, typer.Option(help="What happened, such as 'restored the backup of 03:00'.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this only what would happen is shown.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Raise the ledger epoch: every open job counts as possibly sent, and nothing is voided on old proof.

    Use it after PostgreSQL was restored or failed over and the last commits may be lost. First permits of older jobs
    stay shut until a reconciliation clears the epoch. It cannot be taken back.
    """
    if not reason.strip():
        raise CommandError("reason_missing", "say what happened, such as --reason 'restored the backup of 03:00'")

    async def work(database: Database, _: Connection) -> tuple[EpochStatus, int | None]:
        async with database.unit_of_work(Context(None, "fleet-cli")) as uow:
            before = await epoch_status(uow)
            return before, await raise_ledger_epoch(uow, reason.strip()) if yes else None

    before, raised = with_database(work)
    document = {**asdict(before), "raised_to": raised, "dry_run": raised is None}
    if as_json:
        print_json(document)
        return
    print_fields("recover", document)
    if raised is None:
        typer.echo("nothing was changed: add --yes to raise the ledger epoch")
