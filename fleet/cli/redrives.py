"""`fleet dlq redrive | discard | settle` and `fleet redrives`: act on dead letters, with a second person's consent."""

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic import BaseModel, ValidationError

from fleet.cli.connection import with_operator
from fleet.cli.dry_run import Yes, show_dry_run
from fleet.cli.letter_options import (
    After,
    Before,
    Class,
    Evidence,
    Fingerprint,
    Intent,
    Job,
    Operation,
    Permits,
    Provider,
    Rail,
    Tenant,
    Text,
    Trace,
)
from fleet.cli.operator import Model, text_of
from fleet.cli.output import ExitCode, JsonFlag, invalid_field, print_fields, print_json, print_page, print_table
from fleet.client import FleetClient
from schemas.on_call import (
    HandOutcome,
    HandSettlementRequest,
    RedriveAction,
    RedriveDecision,
    RedriveItemPage,
    RedrivePage,
    RedriveRequest,
    RedriveState,
    RedriveView,
    Story,
)

app = typer.Typer(help="Redrives, discards and settlements by hand.", no_args_is_help=True)

_ENDED = (RedriveState.DONE, RedriveState.STOPPED, RedriveState.CANCELLED, RedriveState.REJECTED)

Ids = Annotated[list[UUID] | None, typer.Argument(help="Letters; or narrow by the options: all that match are meant.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit journal.")]
Incident = Annotated[str, typer.Option(help="The incident's name, such as INC-1742.")]


def redrive(
    ids: Ids = None,
    *,
    reason: Reason,
    incident: Incident,
    rail: Rail = None,
    error_class: Class = None,
    fingerprint: Fingerprint = None,
    operation: Operation = None,
    provider: Provider = None,
    tenant: Tenant = None,
    intent: Intent = None,
    job: Job = None,
    trace: Trace = None,
    evidence: Evidence = None,
    permits: Permits = None,
    text: Text = None,
    after: After = None,
    before: Before = None,
    canary: Annotated[int, typer.Option(help="So many go first, and the rest waits for their outcomes.")] = 5,
    rate: Annotated[int, typer.Option(help="Letters a second.")] = 20,
    ramp: Annotated[int, typer.Option(help="Seconds until the rate is reached.")] = 30,
    stop_at: Annotated[int, typer.Option(help="Stop by itself when this per cent of the outcomes failed.")] = 20,
    watch: Annotated[bool, typer.Option("--watch", help="Show the progress until it ends.")] = False,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> int:
    """Send all matching dead letters again. A dry run without --yes; a doubt or a large number waits for approval."""
    selection = _selection(
        ids, after, before, rail=rail, error_class=error_class, fingerprint=fingerprint, operation=operation,
        provider=provider, tenant_id=tenant, intent_id=intent, job_id=job, trace_id=trace, evidence_id=evidence,
        permits=permits, text=text,
    )  # fmt: skip
    pace = {"canary": canary, "rate_per_s": rate, "ramp_s": ramp, "stop_at_percent": stop_at}
    asked = {"selection": selection, "reason": reason, "incident": incident, "dry_run": not yes} | pace
    view = _ask("/v1/redrives", _checked(RedriveRequest, asked))
    if watch and view.state == RedriveState.RUNNING:
        return watch_redrive(view.id, as_json)
    _show(view, as_json)
    return ExitCode.DONE


def discard(
    ids: Ids = None,
    *,
    reason: Reason,
    incident: Incident,
    rail: Rail = None,
    error_class: Class = None,
    fingerprint: Fingerprint = None,
    operation: Operation = None,
    provider: Provider = None,
    tenant: Tenant = None,
    intent: Intent = None,
    job: Job = None,
    trace: Trace = None,
    evidence: Evidence = None,
    permits: Permits = None,
    text: Text = None,
    after: After = None,
    before: Before = None,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Close all matching dead letters without sending them; their payments go on by themselves. Needs approval."""
    selection = _selection(
        ids, after, before, rail=rail, error_class=error_class, fingerprint=fingerprint, operation=operation,
        provider=provider, tenant_id=tenant, intent_id=intent, job_id=job, trace_id=trace, evidence_id=evidence,
        permits=permits, text=text,
    )  # fmt: skip
    asked: dict[str, Any] = {"action": RedriveAction.DISCARD, "selection": selection, "reason": reason}
    pace = {"canary": 0, "rate_per_s": 5000, "ramp_s": 0}
    _show(
        _ask("/v1/redrives", _checked(RedriveRequest, asked | {"incident": incident, "dry_run": not yes} | pace)),
        as_json,
    )


def settle(
    intent_id: Annotated[UUID, typer.Argument(help="The payment.")],
    outcome: Annotated[HandOutcome, typer.Argument(help="What was seen at the provider.")],
    evidence: Annotated[str, typer.Option(help="A file that shows it; - reads stdin. Kept encrypted.")],
    reason: Reason,
    incident: Incident,
    transaction: Annotated[str | None, typer.Option(help="The provider's transaction; demanded for PAID.")] = None,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Settle one payment by what a person has seen at the provider. Takes effect when a second person approves."""
    asked = {"intent_id": intent_id, "outcome": outcome, "provider_tx_id": transaction, "reason": reason}
    body = _checked(HandSettlementRequest, asked | {"evidence": text_of(evidence), "incident": incident})
    if yes:
        _show(_ask("/v1/hand-settlements", body), as_json)
        return
    story = with_operator(lambda client: client.call("GET", f"/v1/stories/{intent_id}", Story))
    told = {"intent": intent_id, "state": story.state, "known so far": story.summary, "transaction": transaction}
    show_dry_run(f"settle the payment as {outcome.value}", told | {"reason": reason}, as_json)


@app.command("list")
def list_(
    state: Annotated[RedriveState | None, typer.Option(help="Only these.")] = None,
    cursor: str | None = None,
    as_json: JsonFlag = False,
) -> None:
    """List redrives, newest first."""
    query = {name: str(value) for name, value in (("state", state), ("cursor", cursor)) if value is not None}
    page = with_operator(lambda client: client.call("GET", "/v1/redrives", RedrivePage, query=query))
    columns = ("id", "action", "state", "incident", "letters", "succeeded", "failed", "asked by", "decided by")
    print_page(
        page, as_json, "redrives", columns,
        lambda x: (x.id, x.action, x.state, x.incident, x.total, *_ended(x), x.asked_by, x.decided_by),
    )  # fmt: skip


@app.command()
def show(redrive_id: UUID, as_json: JsonFlag = False) -> None:
    """Show a redrive, its progress and why it ended."""
    _show(_get(redrive_id), as_json)


@app.command("watch")
def watch_redrive(redrive_id: UUID, as_json: JsonFlag = False) -> int:
    """Show the progress until the redrive ends; exit code 1 where it did not end as DONE."""

    async def follow(client: FleetClient) -> RedriveView:
        while True:
            view = await client.call("GET", f"/v1/redrives/{redrive_id}", RedriveView)
            if not as_json:
                typer.echo(_bar(view), err=True)
            if view.state in _ENDED:
                return view
            await asyncio.sleep(1)

    view = with_operator(follow)
    _show(view, as_json)
    return ExitCode.DONE if view.state == RedriveState.DONE else ExitCode.CHECK_FAILED


@app.command()
def letters(redrive_id: UUID, cursor: str | None = None, as_json: JsonFlag = False) -> None:
    """List what became of each letter of a redrive."""
    query = {} if cursor is None else {"cursor": cursor}
    path = f"/v1/redrives/{redrive_id}/letters"
    page = with_operator(lambda client: client.call("GET", path, RedriveItemPage, query=query))
    columns = ("id", "state", "verdict", "detail", "acted at")
    print_page(
        page, as_json, "letters", columns, lambda x: (x.letter_id, x.state, x.verdict, x.detail, x.acted_at)
    )  # fmt: skip


@app.command()
def approve(redrive_id: UUID, reason: Reason = "", yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Let it happen. The key must be another one than that which asked."""
    if not yes:
        view = _get(redrive_id)
        told = {"id": view.id, "state": view.state, "letters": view.total, "asked by": view.asked_by}
        show_dry_run(f"let the {view.action.value.lower()} happen", told | {"incident": view.incident}, as_json)
        return
    _decide(redrive_id, "approve", reason, as_json)


@app.command()
def reject(redrive_id: UUID, reason: Reason, as_json: JsonFlag = False) -> None:
    """Refuse it; its letters are free again. The key must be another one than that which asked."""
    _decide(redrive_id, "reject", reason, as_json)


@app.command()
def cancel(redrive_id: UUID, reason: Reason = "", as_json: JsonFlag = False) -> None:
    """Act on no further letter; what was sent stays sent."""
    _decide(redrive_id, "cancel", reason, as_json)


def _selection(ids: list[UUID] | None, after: datetime | None, before: datetime | None, **given: Any) -> dict[str, Any]:
    named = given | {"ids": ids or None, "received_after": after, "received_before": before}
    return {name: value for name, value in named.items() if value is not None}


def _checked(model: type[Model], asked: dict[str, Any]) -> Model:
    try:
        return model(**asked)
    except ValidationError as error:
        raise invalid_field(error) from error


def _ask(path: str, body: BaseModel) -> RedriveView:
    return with_operator(lambda client: client.call("POST", path, RedriveView, body=body))


def _get(redrive_id: UUID) -> RedriveView:
    return with_operator(lambda client: client.call("GET", f"/v1/redrives/{redrive_id}", RedriveView))


def _decide(redrive_id: UUID, decision: str, reason: str, as_json: bool) -> None:
    _show(_ask(f"/v1/redrives/{redrive_id}/{decision}", _checked(RedriveDecision, {"reason": reason})), as_json)


def _ended(view: RedriveView) -> tuple[int, int]:
    return view.progress.succeeded, view.progress.failed


def _bar(view: RedriveView) -> str:
    gone = view.total - view.progress.waiting
    filled = 30 * gone // max(view.total, 1)
    told = view.progress
    return (
        f"[{'#' * filled}{'.' * (30 - filled)}] {gone} of {view.total}: {told.succeeded} succeeded,"
        f" {told.failed} failed, {told.skipped} skipped, {told.sent} on their way"
    )


def _show(view: RedriveView, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    fields = view.model_dump(exclude={"verdicts", "reasons", "progress", "selection"})
    counted = {f"verdict {name}": count for name, count in view.verdicts.items()}
    print_fields("redrive", fields | counted | {f"letters {k}": v for k, v in view.progress if v})
    if view.reasons:
        print_table("verdicts", ("letters", "because"), [(count, why) for why, count in view.reasons.items()])
    if view.state == "DRY_RUN":
        typer.echo("nothing was changed: add --yes to do it")
    elif view.state == RedriveState.AWAITING_APPROVAL:
        typer.echo(f"it waits for another person: fleet redrives approve {view.id} --yes")
