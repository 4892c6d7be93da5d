"""`fleet collections`: money in that waits for its payer, and how exactly it must be paid."""

from typing import Annotated

import typer
from pydantic import ValidationError

from fleet.cli.connection import with_client
from fleet.cli.intents import money_of
from fleet.cli.output import CommandError, JsonFlag, invalid_field, print_fields, print_json, print_next, print_table
from schemas.api import IntentPage
from schemas.events import IntentState
from schemas.money import AmountError, currency_of, to_major_text, to_minor
from schemas.operations import COLLECTED, OperationType
from schemas.suspense import ToleranceRequest

app = typer.Typer(help="Money in: what waits for its payer, and tolerances.", no_args_is_help=True)
_NOTHING = "0"


@app.command("list")
def list_(cursor: str | None = None, as_json: JsonFlag = False) -> None:
    """List the dispatched collections of a page of intents, newest first, with what their payers are shown."""
    asked = {"state": IntentState.DISPATCHED.value}
    page: IntentPage = with_client(lambda client: client.page_of_intents(cursor=cursor, **asked))
    waiting = [intent for intent in page.items if intent.operation in COLLECTED]
    if as_json:
        items = [intent.model_dump(mode="json") for intent in waiting]
        print_json({"items": items, "next_cursor": page.next_cursor})
        return
    rows = [
        (each.id, each.operation, money_of(each), each.next_action.payload if each.next_action else "", each.deadline)
        for each in waiting
    ]
    print_table("collections", ("id", "operation", "amount", "to pay", "until"), rows)
    print_next(page)


@app.command()
def tolerances(as_json: JsonFlag = False) -> None:
    """List how far payments may differ from what was asked and still be credited."""
    found = with_client(lambda client: client.collection_tolerances())
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    rows = [(each.operation, each.currency, each.below_minor, each.above_minor, each.set_by) for each in found.items]
    print_table("tolerances", ("operation", "currency", "below (minor)", "above (minor)", "set by"), rows)


@app.command()
def tolerate(
    operation: OperationType,
    currency: str,
    below: Annotated[str, typer.Option(help="Major units less than asked, such as 1.00.")] = _NOTHING,
    above: Annotated[str, typer.Option(help="Major units more than asked.")] = _NOTHING,
    as_json: JsonFlag = False,
) -> None:
    """Credit payments that differ by no more than this, as they came. Without options, exactly what was asked."""
    try:
        unit = currency_of(currency)
        below_minor, above_minor = (0 if part == _NOTHING else to_minor(part, unit) for part in (below, above))
        request = ToleranceRequest(
            operation=operation, currency=currency, below_minor=below_minor, above_minor=above_minor
        )
    except AmountError as error:
        raise CommandError(error.code, str(error)) from error
    except ValidationError as error:
        raise invalid_field(error) from error
    view = with_client(lambda client: client.set_collection_tolerance(request))
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    print_fields(
        "tolerance",
        {
            "operation": view.operation,
            "below": f"{to_major_text(view.below_minor, unit)} {view.currency}",
            "above": f"{to_major_text(view.above_minor, unit)} {view.currency}",
        },
    )
