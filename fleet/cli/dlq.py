"""`fleet dlq`: dead letters, what each proves, and whether it may be sent again."""

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer

from core.domain.context import Context
from core.services.dead_letters import LetterFilter, LetterGroup, LetterState, LetterView, letter_document
from core.services.explain import tell
from core.store.database import Database
from core.store.dead_letters import DeadLetterStore
from core.store.explain import StoryStore
from core.store.vault import PostgresVault
from fleet.cli import redrives
from fleet.cli.connection import Connection
from fleet.cli.keys import master_key
from fleet.cli.operator import with_database
from fleet.cli.output import CommandError, ExitCode, JsonFlag, print_fields, print_json, print_table
from fleet.cli.redrives import utc
from schemas.on_call import Story

app = typer.Typer(help="Dead letters.", no_args_is_help=True)

_CONTEXT = Context(None, "fleet-cli")

Rail = Annotated[str | None, typer.Option(help="Only this rail.")]
Class = Annotated[str | None, typer.Option("--class", help="Only this class of error.")]
Fingerprint = Annotated[str | None, typer.Option(help="Only letters with this fingerprint.")]
State = Annotated[LetterState, typer.Option(help="OPEN, REDRIVEN or CLOSED.")]
Operation = Annotated[str | None, typer.Option(help="Only this operation, such as PAYOUT.")]
Provider = Annotated[str | None, typer.Option(help="Only this provider.")]
Tenant = Annotated[UUID | None, typer.Option(help="Only this tenant's.")]
Intent = Annotated[UUID | None, typer.Option(help="Only this payment's.")]
Job = Annotated[UUID | None, typer.Option(help="Only this job's.")]
Text = Annotated[str | None, typer.Option(help="Words of the message, the class or the provider's reference.")]
After = Annotated[datetime | None, typer.Option(help="Received at or after this time, UTC.")]
Before = Annotated[datetime | None, typer.Option(help="Received before this time, UTC.")]


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
    text: Text = None,
    after: After = None,
    before: Before = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Letters a page.")] = 50,
    cursor: Annotated[UUID | None, typer.Option(help="The id of the last letter of the page before.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters, newest first, each with the verdict SAFE, INQUIRE_FIRST or REFUSED."""
    wanted = LetterFilter(
        rail=rail, error_class=error_class, fingerprint=fingerprint, state=state, operation=operation,
        provider=provider, tenant_id=tenant, intent_id=intent, job_id=job, text=text,
        received_after=utc(after), received_before=utc(before),
    )  # fmt: skip

    async def work(database: Database, connection: Connection) -> list[LetterView]:
        async with database.unit_of_work(_CONTEXT) as uow:
            # One more than asked for tells whether there is a next page.
            return await _store(connection).list_letters(uow, wanted, limit + 1, cursor)

    found = with_database(work, "master_key")
    letters, following = found[:limit], found[limit - 1].id if len(found) > limit else None
    if as_json:
        print_json([letter_document(letter) for letter in letters])
        return
    columns = ("id", "rail", "class", "message", "age", "deliveries", "verdict")
    rows = [
        (x.id, x.rail, x.error_class, x.message, timedelta(seconds=x.age_s), x.deliveries, x.verdict[0])
        for x in letters
    ]
    print_table("dead letters", columns, rows)
    if following:
        typer.echo(f"more: --cursor {following}")


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
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many groups.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Count dead letters by fingerprint, the largest group first, with the last hour against the one before."""
    wanted = LetterFilter(
        rail=rail, error_class=error_class, state=state, operation=operation, provider=provider, tenant_id=tenant,
        text=text, received_after=utc(after), received_before=utc(before),
    )  # fmt: skip

    async def work(database: Database, connection: Connection) -> list[LetterGroup]:
        async with database.unit_of_work(_CONTEXT) as uow:
            return await _store(connection).group_letters(uow, wanted, limit)

    found = with_database(work, "master_key")
    names = (
        "fingerprint",
        "error_class",
        "rail",
        "letters",
        "last_hour",
        "hour_before",
        "trend",
        "first_at",
        "last_at",
    )
    if as_json:
        print_json([{name: getattr(group, name) for name in (*names, "message")} for group in found])
        return
    columns = ("fingerprint", "class", "rail", "letters", "last hour", "hour before", "trend", "first", "last")
    print_table("dead letters by fingerprint", columns, [[getattr(group, name) for name in names] for group in found])


@app.command()
def show(letter_id: Annotated[UUID, typer.Argument(help="The letter's id.")], as_json: JsonFlag = False) -> None:
    """Show one dead letter, whether it may be sent again, and why. Its body stays sealed."""

    async def work(database: Database, connection: Connection) -> LetterView | None:
        async with database.unit_of_work(_CONTEXT) as uow:
            return await _store(connection).find_letter(uow, letter_id)

    letter = with_database(work, "master_key")
    if letter is None:
        raise CommandError(
            "not_found", f"there is no dead letter {letter_id}: fleet dlq list shows them", ExitCode.REFUSED
        )
    document: dict[str, Any] = letter_document(letter)
    if as_json:
        print_json(document)
    else:
        print_fields("dead letter", document)


@app.command("explain")
def explain_(
    any_id: Annotated[UUID, typer.Argument(help="A payment's, a job's or a dead letter's id.")],
    as_json: JsonFlag = False,
) -> None:
    """Tell the whole story of one payment: events, permits, facts, evidence, transfers, letters, redrives."""

    async def work(database: Database, _: Connection) -> Story:
        async with database.unit_of_work(_CONTEXT) as uow:
            return await tell(uow, StoryStore(), any_id, None)

    story = with_database(work)
    if as_json:
        print_json(story.model_dump(mode="json"))
        return
    typer.echo(f"{story.intent_id}: {story.summary}")
    print_table("story", ("at", "what", "told"), [(line.at, line.what, line.text) for line in story.lines])


app.command("redrive")(redrives.redrive)
app.command("discard")(redrives.discard)
app.command("settle")(redrives.settle)


def _store(connection: Connection) -> DeadLetterStore:
    return DeadLetterStore(PostgresVault(master_key(connection)))
