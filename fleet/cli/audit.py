"""`fleet audit`: who did what; the proof that nobody edited it; the whole of it as lines of JSON."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO
from uuid import UUID

import orjson
import typer

from fleet.cli.connection import with_operator
from fleet.cli.output import CommandError, ExitCode, JsonFlag, print_fields, print_json, print_page, print_table, why
from fleet.client import FleetClient
from schemas.on_call import AuditPage, AuditProof

app = typer.Typer(help="The audit journal.", no_args_is_help=True)

Tenant = Annotated[UUID | None, typer.Option(help="Only this tenant's chain; for keys of the system's tenant.")]


@app.command("list")
def list_(
    tenant: Tenant = None,
    actor: Annotated[str | None, typer.Option(help="Only what this actor did, such as key:fk_…")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as redrive_approved.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only about this, such as redrive:ID or intent:ID.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many entries a page.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List entries, newest first."""
    query = _query(tenant_id=tenant, actor=actor, action=action, subject=subject, limit=limit, cursor=cursor)
    page = with_operator(lambda client: client.call("GET", "/v1/audit", AuditPage, query=query))
    columns = ("at", "actor", "action", "subject", "data", "number")
    print_page(
        page, as_json, "audit", columns,
        lambda x: (x.at, x.actor, x.action, x.subject, orjson.dumps(x.data).decode()[:80], x.seq),
    )  # fmt: skip


@app.command()
def verify(
    tenant: Tenant = None,
    expect: Annotated[
        list[str] | None, typer.Option(help="TENANT:NUMBER:HASH that was noted before; repeatable.")
    ] = None,
    as_json: JsonFlag = False,
) -> int:
    """Walk the chains and name every entry that was changed, cut out or cut off; exit code 1 where there is one."""
    query = _query(tenant_id=tenant, expect=",".join(expect or ()) or None)
    proof = with_operator(lambda client: client.call("GET", "/v1/audit/proof", AuditProof, query=query))
    if as_json:
        print_json(proof.model_dump(mode="json"))
    else:
        print_fields("audit", {"holds": proof.holds, "tenants": proof.tenants, "entries": proof.entries})
        title = "faults" if proof.faults else "ends to note"
        print_table(title, ("what",), [[line] for line in proof.faults or proof.ends])
    return ExitCode.DONE if proof.holds else ExitCode.CHECK_FAILED


@app.command()
def export(
    out: Annotated[str, typer.Option(help="The file to write; - writes stdout.")] = "-",
    tenant: Tenant = None,
) -> None:
    """Write every entry, oldest first, one JSON object a line, with its hash. A file appears only when it is whole."""
    query = _query(tenant_id=tenant)

    async def write(client: FleetClient, target: BinaryIO) -> None:
        async for part in client.stream("/v1/audit/export", query):
            target.write(part)

    with _target(out) as target:
        with_operator(lambda client: write(client, target))


@contextmanager
def _target(out: str) -> Iterator[BinaryIO]:
    if out == "-":
        yield sys.stdout.buffer
        return
    path = Path(out)
    # What is no file, such as a pipe, cannot be put in the place of another.
    partial = path.with_name(f"{path.name}.partial") if path.is_file() or not path.exists() else path
    try:
        with partial.open("wb") as target:
            yield target
        if partial != path:
            partial.replace(path)
    except OSError as error:
        raise CommandError("file_unwritable", f"{out}: {why(error)}") from error
    finally:
        if partial != path:
            partial.unlink(missing_ok=True)


def _query(**given: object) -> dict[str, str]:
    return {name: str(value) for name, value in given.items() if value is not None}
