"""`fleet dlq`: dead letters, what each proves, and whether it may be sent again."""

from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic import ValidationError

from fleet.cli import redrives
from fleet.cli.connection import with_operator
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
from fleet.cli.output import JsonFlag, invalid_field, print_fields, print_json, print_page, print_table
from schemas.on_call import LetterDetail, LetterGroups, LetterPage, LetterQuery, LetterState, Story

app = typer.Typer(help="Dead letters.", no_args_is_help=True)

State = Annotated[LetterState, typer.Option(help="OPEN, REDRIVEN or CLOSED.")]
Limit = Annotated[int, typer.Option(min=1, max=500, help="How many a page.")]
Cursor = Annotated[str | None, typer.Option(help="Where the page before ended.")]


@app.command("list")
def list_(
    rail: Rail = None,
    error_class: Class = None,
    fingerprint: Fingerprint = None,
    state: State = LetterState.OPEN,
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
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters, newest first, each with the verdict SAFE, INQUIRE_FIRST or REFUSED."""
    query = _query(
        rail=rail, error_class=error_class, fingerprint=fingerprint, state=state, operation=operation,
        provider=provider, tenant_id=tenant, intent_id=intent, job_id=job, trace_id=trace, evidence_id=evidence,
        permits=permits, text=text, received_after=after, received_before=before, limit=limit, cursor=cursor,
    )  # fmt: skip
    page = with_operator(lambda client: client.call("GET", "/v1/dead-letters", LetterPage, query=query))
    columns = ("id", "rail", "class", "message", "age", "deliveries", "verdict")
    print_page(
        page, as_json, "dead letters", columns,
        lambda x: (x.id, x.rail, x.error_class, x.message, timedelta(seconds=x.age_s), x.deliveries, x.verdict),
    )  # fmt: skip


@app.command()
def groups(
    rail: Rail = None,
    error_class: Class = None,
    state: State = LetterState.OPEN,
    operation: Operation = None,
    provider: Provider = None,
    tenant: Tenant = None,
    text: Text = None,
    after: After = None,
    before: Before = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: JsonFlag = False,
) -> None:
    """Count dead letters by fingerprint, the largest group first, with the last hour against the one before."""
    query = _query(
        rail=rail, error_class=error_class, state=state, operation=operation, provider=provider, tenant_id=tenant,
        text=text, received_after=after, received_before=before, limit=limit, cursor=cursor,
    )  # fmt: skip
    page = with_operator(lambda client: client.call("GET", "/v1/dead-letters/groups", LetterGroups, query=query))
    columns = ("fingerprint", "class", "rail", "letters", "last hour", "hour before", "trend", "first", "last")
    print_page(
        page, as_json, "dead letters by fingerprint", columns,
        lambda x: (
            x.fingerprint, x.error_class, x.rail, x.letters, x.last_hour, x.hour_before, x.trend, x.first_at, x.last_at
        ),
    )  # fmt: skip


@app.command()
def show(letter_id: Annotated[UUID, typer.Argument(help="The letter's id.")], as_json: JsonFlag = False) -> None:
    """Show one dead letter, whether it may be sent again, and why. Its body stays sealed."""
    letter = with_operator(lambda client: client.call("GET", f"/v1/dead-letters/{letter_id}", LetterDetail))
    if as_json:
        print_json(letter.model_dump(mode="json", by_alias=True))
    else:
        told = letter.model_dump(by_alias=True, exclude={"attempts", "evidence", "links"})
        print_fields("dead letter", told | {"trace_page": letter.links.trace})
        _print_attempts(letter)


def _print_attempts(letter: LetterDetail) -> None:
    rows = []
    for attempt in letter.attempts:
        told = [
            f"{fact.verdict}{f', not applied: {fact.quarantine}' if fact.quarantine else ''}" for fact in attempt.facts
        ]
        proven = ["proven unpaid"] if attempt.negative_at else []
        evidence = ", ".join(str(fact.evidence_id) for fact in attempt.facts if fact.evidence_id)
        rows.append((attempt.fence, attempt.mode, attempt.granted_at, "; ".join(told + proven) or "nothing", evidence))
    print_table("attempts", ("permit", "mode", "given", "reported", "evidence"), rows)
    kept = [(each.id, each.kind, each.received_at) for each in letter.evidence]
    print_table("sealed evidence", ("id", "kind", "received"), kept)


@app.command("explain")
def explain_(
    any_id: Annotated[UUID, typer.Argument(help="A payment's, a job's or a dead letter's id.")],
    as_json: JsonFlag = False,
) -> None:
    """Tell the whole story of one payment: events, permits, facts, evidence, transfers, letters, redrives."""
    story = with_operator(lambda client: client.call("GET", f"/v1/stories/{any_id}", Story))
    if as_json:
        print_json(story.model_dump(mode="json"))
        return
    typer.echo(f"{story.intent_id}: {story.summary}")
    print_table("story", ("at", "what", "told"), [(line.at, line.what, line.text) for line in story.lines])


app.command("redrive")(redrives.redrive)
app.command("discard")(redrives.discard)
app.command("settle")(redrives.settle)


def _query(**given: Any) -> dict[str, str]:
    try:
        query = LetterQuery(**given)
    except ValidationError as error:
        raise invalid_field(error) from error
    return {name: str(value) for name, value in query.model_dump(mode="json", exclude_none=True).items()}
