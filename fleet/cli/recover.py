"""`fleet recover`: after a restore or a fail-over of PostgreSQL that may have lost commits."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from core.store.database import UnitOfWork
from core.store.epochs import (
    EpochStatus,
    UnclearedEpoch,
    clear_ledger_epoch,
    epoch_status,
    raise_ledger_epoch,
    uncleared_epoch,
)
from fleet.cli.operator import in_tenant
from fleet.cli.output import CommandError, JsonFlag, print_fields, print_json


def recover(
    reason: Annotated[str, typer.Option(help="What happened, such as 'restored the backup of 03:00'.")],
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


def _clear(reason: str, *, yes: bool, as_json: bool) -> None:
    async def work(uow: UnitOfWork) -> UnclearedEpoch | None:
        found = await uncleared_epoch(uow)
        if found is not None and found.unanswered:
            text = f"{found.unanswered} payments had a permit and no answer since: let the resolver ask, and repeat"
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
