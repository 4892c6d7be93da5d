"""`fleet suspense`: money whose owner or reason is not known, and what a person decides about it."""

from typing import Annotated
from uuid import UUID

import typer
from pydantic import ValidationError

from fleet.cli.connection import with_client
from fleet.cli.dry_run import Yes, show_dry_run
from fleet.cli.output import JsonFlag, invalid_field, print_fields, print_json, print_page
from schemas.money import currency_of, to_major_text
from schemas.suspense import AssignRequest, ReturnRequest, SuspenseDecided, SuspenseDetail, SuspenseItem, SuspenseState

app = typer.Typer(help="Money in suspense: the work list, and decisions about it.", no_args_is_help=True)

Why = Annotated[str, typer.Option(help="Why; kept with the decision.")]


@app.command("list")
def list_(
    state: Annotated[SuspenseState, typer.Option(help="Which items.")] = SuspenseState.OPEN,
    intent: Annotated[UUID | None, typer.Option(help="Those under one collection.")] = None,
    cursor: str | None = None,
    as_json: JsonFlag = False,
) -> None:
    """List items, oldest first, a page at a time."""
    page = with_client(lambda client: client.page_of_suspense(state=state, intent_id=intent, cursor=cursor))
    columns = ("id", "amount", "reason", "rail", "transaction", "reference", "paid")
    print_page(
        page, as_json, "suspense", columns,
        lambda x: (x.id, _money(x), x.reason, x.rail, x.transaction_id, x.reference, x.occurred_at),
    )  # fmt: skip


@app.command()
def show(item_id: UUID, as_json: JsonFlag = False) -> None:
    """Show an item: who told of it, and what was decided."""
    _show(with_client(lambda client: client.get_suspense(item_id)), as_json)


@app.command()
def assign(
    item_id: UUID,
    wallet: Annotated[UUID, typer.Option(help="Whose the money is.")],
    reason: Why,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Give the money to a wallet of its currency; what one key may not do alone waits under `fleet reviews`."""
    try:
        request = AssignRequest(wallet_id=wallet, reason=reason)
    except ValidationError as error:
        raise invalid_field(error) from error
    if not yes:
        _would(item_id, f"give to wallet {wallet}", reason, as_json)
        return
    _show(with_client(lambda client: client.assign_suspense(item_id, request)), as_json)


@app.command("return")
def return_(item_id: UUID, reason: Why, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Pay the money back to who paid it. Where the provider, or the second key, refuses, the item is open again."""
    try:
        request = ReturnRequest(reason=reason)
    except ValidationError as error:
        raise invalid_field(error) from error
    if not yes:
        _would(item_id, "pay back to who paid it", reason, as_json)
        return
    _show(with_client(lambda client: client.return_suspense(item_id, request)), as_json)


def _would(item_id: UUID, act: str, reason: str, as_json: bool) -> None:
    item = with_client(lambda client: client.get_suspense(item_id))
    told = {"id": item.id, "state": item.state, "amount": _money(item), "transaction": item.transaction_id}
    show_dry_run(act, told | {"reason": reason}, as_json)


def _show(item: SuspenseDetail, as_json: bool) -> None:
    if as_json:
        print_json(item.model_dump(mode="json"))
        return
    told = ", ".join(f"{each.source.lower()} {each.evidence_id or 'without evidence'}" for each in item.sources)
    decided = "; ".join(_decided(each) for each in item.decisions)
    fields: dict[str, object] = {
        "id": item.id,
        "state": item.state,
        "amount": _money(item),
        "reason": item.reason,
        "rail": f"{item.rail} {item.provider_account}",
        "transaction": item.transaction_id,
        "reference": item.reference,
        "intent": item.intent_id,
        "taken by": item.taken_by,
        "told by": told,
        "decided": decided,
    }
    print_fields("suspense", {name: value for name, value in fields.items() if value})


def _decided(decision: SuspenseDecided) -> str:
    text = f"{decision.action} by {decision.actor}: {decision.reason}"
    return f"{text} ({decision.review} by {decision.reviewed_by})" if decision.review else text


def _money(item: SuspenseItem) -> str:
    return f"{to_major_text(item.amount_minor, currency_of(item.currency))} {item.currency}"
