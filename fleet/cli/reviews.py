"""`fleet reviews`: what waits for a decision, and the decision."""

from typing import Annotated
from uuid import UUID

import typer
from pydantic import ValidationError

from fleet.cli.connection import with_client
from fleet.cli.dry_run import Yes, show_dry_run
from fleet.cli.intents import money_of, show_intent
from fleet.cli.output import JsonFlag, invalid_field, print_page
from schemas.api import ReviewDecision, ReviewRequest

app = typer.Typer(help="Payments that wait, held, for a decision.", no_args_is_help=True)


@app.command("list")
def list_(cursor: str | None = None, as_json: JsonFlag = False) -> None:
    """List what waits, newest first, a page at a time."""
    page = with_client(lambda client: client.page_of_reviews(cursor=cursor))
    columns = ("id", "operation", "amount", "payee", "reference", "expires")
    print_page(
        page, as_json, "reviews", columns,
        lambda x: (x.id, x.operation, money_of(x), x.payee_masked, x.reference, x.deadline),
    )  # fmt: skip


@app.command()
def approve(
    intent_id: UUID,
    reason: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "",
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Let a payment go on. The key must be another one than the payment's."""
    if not yes:
        intent = with_client(lambda client: client.get_intent(intent_id))
        told = {"id": intent.id, "operation": intent.operation, "state": intent.state, "amount": money_of(intent)}
        show_dry_run("let the payment go on", told | {"payee": intent.payee_masked, "reason": reason}, as_json)
        return
    _decide(intent_id, ReviewDecision.APPROVE, reason, as_json)


@app.command()
def reject(
    intent_id: UUID,
    reason: Annotated[str, typer.Option(help="Why; the client is told it.")],
    as_json: JsonFlag = False,
) -> None:
    """Release what a payment holds and end it."""
    _decide(intent_id, ReviewDecision.REJECT, reason, as_json)


def _decide(intent_id: UUID, decision: ReviewDecision, reason: str, as_json: bool) -> None:
    try:
        request = ReviewRequest(decision=decision, reason=reason)
    except ValidationError as error:
        raise invalid_field(error) from error
    show_intent(with_client(lambda client: client.review_intent(intent_id, request)), as_json)
