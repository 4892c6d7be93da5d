"""`fleet dlq`: dead letters, what each proves, and whether it may be sent again."""

from typing import Annotated, Any
from uuid import UUID

import typer

from core.domain.context import Context
from core.services.dead_letters import LetterFilter, LetterState, LetterView
from core.store.database import Database
from core.store.dead_letters import DeadLetterStore
from core.store.vault import PostgresVault
from fleet.cli.connection import Connection
from fleet.cli.keys import master_key
from fleet.cli.operator import with_database
from fleet.cli.output import CommandError, ExitCode, JsonFlag, print_fields, print_json, print_table

app = typer.Typer(help="Dead letters.", no_args_is_help=True)

_CONTEXT = Context(None, "fleet-cli")


@app.command("list")
def list_(
    rail: Annotated[str | None, typer.Option(help="Only this rail.")] = None,
    error_class: Annotated[str | None, typer.Option("--class", help="Only this class of error.")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="Only letters with this fingerprint.")] = None,
    state: Annotated[LetterState, typer.Option(help="OPEN, REDRIVEN or CLOSED.")] = LetterState.OPEN,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Letters a page.")] = 50,
    cursor: Annotated[UUID | None, typer.Option(help="The id of the last letter of the page before.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters, newest first, each with the verdict SAFE, INQUIRE_FIRST or REFUSED."""
    wanted = LetterFilter(rail, error_class, fingerprint, state)

    async def work(database: Database, connection: Connection) -> list[LetterView]:
        async with database.unit_of_work(_CONTEXT) as uow:
            # One more than asked for tells whether there is a next page.
            return await _store(connection).list_letters(uow, wanted, limit + 1, cursor)

    found = with_database(work, "master_key")
    letters, following = found[:limit], found[limit - 1].id if len(found) > limit else None
    if as_json:
        print_json([_document(letter) for letter in letters])
        return
    columns = ("id", "rail", "class", "message", "deliveries", "verdict")
    rows = [(x.id, x.rail, x.error_class, x.message, x.deliveries, x.verdict[0]) for x in letters]
    print_table("dead letters", columns, rows)
    if following:
        typer.echo(f"more: --cursor {following}")


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
    if as_json:
        print_json(_document(letter))
    else:
        print_fields("dead letter", _document(letter))


def _store(connection: Connection) -> DeadLetterStore:
    return DeadLetterStore(PostgresVault(master_key(connection)))


def _document(letter: LetterView) -> dict[str, Any]:
    verdict, reason = letter.verdict
    return {
        "id": letter.id,
        "state": letter.state,
        "rail": letter.rail,
        "stream": letter.stream,
        "entry_id": letter.entry_id,
        "job_id": letter.job_id,
        "intent_id": letter.intent_id,
        "intent_state": letter.intent_state,
        "class": letter.error_class,
        "fingerprint": letter.fingerprint,
        "message": letter.message,
        "deliveries": letter.deliveries,
        "fence": letter.fence,
        "received_at": letter.received_at,
        "verdict": verdict,
        "reason": reason,
    }
