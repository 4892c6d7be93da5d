"""`fleet recover`: after a restore or a fail-over of PostgreSQL that may have lost commits."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from core.domain.context import Context
from core.domain.stranded import Stranded
from core.services.settling.completer import look
from core.store.database import Database, UnitOfWork
from core.store.settling.epochs import (
    EpochStatus,
    UnclearedEpoch,
    clear_ledger_epoch,
    epoch_status,
    raise_ledger_epoch,
    uncleared_epoch,
)
from core.store.settling.stranded import StrandedStore
from fleet.cli.connection import Connection
from fleet.cli.operator import ACTOR, in_tenant, with_database
from fleet.cli.output import CommandError, JsonFlag, print_fields, print_json, print_table

app = typer.Typer(invoke_without_command=True)

_LOOKBACK_DAYS, _PAGE, _GRACE_S = 45, 2000, 60


@app.callback()
def recover(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="What happened, such as 'restored the backup of 03:00'.")] = "",
    clear: Annotated[bool, typer.Option("--clear", help="Clear the raised epoch: the window was reconciled.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this only what would happen is shown.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Raise the ledger epoch: every open job counts as possibly sent, and nothing is voided on old proof.

    Use it after PostgreSQL was restored or failed over and the last commits may be lost. First permits of older jobs
    stay shut until a reconciliation clears the epoch. It cannot be taken back.

    --clear ends that, once the provider's register was compared with ours for the lost time: what was never permitted
    is sent then. It is refused while a payment that had a permit got no answer since.
    """
    if context.invoked_subcommand is not None:
        return
    if not reason.strip():
        raise CommandError("reason_missing", "say what happened, such as --reason 'restored the backup of 03:00'")

    if clear:
        _clear(reason.strip(), yes=yes, as_json=as_json)
        return

    async def work(uow: UnitOfWork) -> tuple[EpochStatus, int | None]:
        before = await epoch_status(uow)
        return before, await raise_ledger_epoch(uow, reason.strip()) if yes else None

    before, raised = in_tenant(None, work)
    document = {**asdict(before), "raised_to": raised, "dry_run": raised is None}
    _show(document, "" if raised is not None else "nothing was changed: add --yes to raise the ledger epoch", as_json)


@app.command()
def scan(as_json: JsonFlag = False) -> None:
    """List what stands though nothing would move it. It changes nothing: the resolver finishes or parks each."""

    async def work(database: Database, _: Connection) -> tuple[list[Stranded], int]:
        found: list[Stranded] = []
        scanned, after = 0, None
        while True:
            seen = await look(
                StrandedStore(),
                lambda: database.unit_of_work(Context(None, ACTOR)),
                after,
                lookback_days=_LOOKBACK_DAYS,
                limit=_PAGE,
                grace_s=_GRACE_S,
            )
            found += seen.found
            scanned += seen.scanned
            after = seen.after
            if after is None:
                return found, scanned

    found, scanned = with_database(work)
    if as_json:
        print_json({"scanned": scanned, "found": [asdict(each) for each in found]})
        return
    print_table(
        "stranded", ("kind", "intent", "tenant"), [(each.kind, each.intent_id, each.tenant_id) for each in found]
    )
    typer.echo(f"looked at {_payments(scanned)} of the last {_LOOKBACK_DAYS} days")


def _payments(count: int) -> str:
    return f"{count} payment" if count == 1 else f"{count} payments"


def _clear(reason: str, *, yes: bool, as_json: bool) -> None:
    async def work(uow: UnitOfWork) -> UnclearedEpoch | None:
        found = await uncleared_epoch(uow)
        if found is not None and found.unanswered:
            text = f"{_payments(found.unanswered)} had a permit and no answer since: let the resolver ask, and repeat"
            raise CommandError("epoch_not_reconciled", text)
        if found is not None and yes:
            await clear_ledger_epoch(uow, found.epoch, reason)
        return found

    found = in_tenant(None, work)
    if found is None:
        raise CommandError("epoch_not_raised", "no raised ledger epoch waits to be cleared: nothing is shut")
    document = {**asdict(found), "cleared": yes, "dry_run": not yes}
    _show(document, "" if yes else "nothing was changed: add --yes to clear the ledger epoch", as_json)


def _show(document: dict[str, Any], hint: str, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    print_fields("recover", document)
    if hint:
        typer.echo(hint)
