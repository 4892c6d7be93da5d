"""`fleet audit`: who did what; the proof that nobody edited it; the whole of it as lines of JSON."""

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO
from uuid import UUID

import orjson
import typer

from core.domain.audit import AuditEntry
from core.domain.context import Context
from core.services.audit import AuditFilter, Head, Proof, prove
from core.store.audit import AuditStore
from core.store.database import Database
from fleet.cli.connection import Connection
from fleet.cli.operator import with_database
from fleet.cli.output import CommandError, ExitCode, JsonFlag, print_fields, print_json, print_table

app = typer.Typer(help="The audit journal.", no_args_is_help=True)

_CONTEXT = Context(None, "fleet-cli")
_JOURNAL = AuditStore()

Tenant = Annotated[UUID | None, typer.Option(help="Only this tenant's chain.")]


@app.command("list")
def list_(
    tenant: Tenant = None,
    actor: Annotated[str | None, typer.Option(help="Only what this actor did, such as key:fk_…")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as redrive_approved.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only about this, such as redrive:ID or intent:ID.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many entries.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List entries, newest first."""
    wanted = AuditFilter(tenant, actor, action, subject)

    async def work(database: Database, _: Connection) -> list[AuditEntry]:
        async with database.unit_of_work(_CONTEXT) as uow:
            return await _JOURNAL.page(uow, wanted, None, limit)

    found = with_database(work)
    if as_json:
        print_json([_document(entry) for entry in found])
        return
    rows = [(x.at, x.actor, x.action, x.subject, x.data[:80], x.seq) for x in found]
    print_table("audit", ("at", "actor", "action", "subject", "data", "number"), rows)


@app.command()
def verify(
    tenant: Tenant = None,
    expect: Annotated[
        list[str] | None, typer.Option(help="TENANT:NUMBER:HASH that was noted before; repeatable.")
    ] = None,
    as_json: JsonFlag = False,
) -> int:
    """Walk the chains and name every entry that was changed, cut out or cut off; exit code 1 where there is one."""
    anchors = [_anchor(text) for text in expect or ()]

    async def work(database: Database, _: Connection) -> tuple[Proof, list[Head]]:
        async with database.unit_of_work(_CONTEXT) as uow:
            return await prove(uow, _JOURNAL, tenant, anchors), await _JOURNAL.heads(uow, tenant)

    proof, heads = with_database(work)
    ends = [f"{head.tenant_id}:{head.seq}:{head.hash.hex()}" for head in heads]
    document = {"holds": not proof.faults, "tenants": proof.tenants, "entries": proof.entries}
    if as_json:
        print_json({**document, "faults": list(proof.faults), "ends": ends})
    else:
        print_fields("audit", dict(document))
        print_table("faults" if proof.faults else "ends to note", ("what",), [[line] for line in proof.faults or ends])
    return ExitCode.CHECK_FAILED if proof.faults else ExitCode.DONE


@app.command()
def export(
    out: Annotated[str, typer.Option(help="The file to write; - writes stdout.")] = "-",
    tenant: Tenant = None,
) -> None:
    """Write every entry, oldest first, one JSON object a line, with its hash."""

    async def work(database: Database, _: Connection) -> None:
        with _opened(out) as file:
            async with database.unit_of_work(_CONTEXT) as uow:
                await _JOURNAL.freeze(uow)
                for each in await _JOURNAL.tenants_with_entries(uow, tenant):
                    async for entry in _JOURNAL.walk(uow, each):
                        file.write(orjson.dumps(_document(entry), default=str) + b"\n")

    with_database(work)


def _opened(out: str) -> AbstractContextManager[BinaryIO]:
    if out == "-":
        return nullcontext(sys.stdout.buffer)
    try:
        return Path(out).open("wb")
    except OSError as error:
        raise CommandError("file_unwritable", f"{out}: {error}") from error


def _document(entry: AuditEntry) -> dict[str, object]:
    return {
        "tenant_id": entry.tenant_id,
        "seq": entry.seq,
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "data": orjson.loads(entry.data),
        "hash": entry.hash.hex(),
    }


def _anchor(text: str) -> Head:
    tenant, _, rest = text.partition(":")
    number, _, digest = rest.partition(":")
    try:
        return Head(UUID(tenant), int(number), bytes.fromhex(digest))
    except ValueError as error:
        told = f"{text[:120]!r} is no TENANT:NUMBER:HASH as fleet audit verify shows it"
        raise CommandError("anchor_malformed", told) from error
