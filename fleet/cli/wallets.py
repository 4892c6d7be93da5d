"""`fleet wallets`: create, show, history, freeze, unfreeze, close, events, external-id."""

from typing import Annotated
from uuid import UUID

import orjson
import typer
from pydantic import ValidationError

from fleet.cli.connection import with_client
from fleet.cli.output import JsonFlag, invalid_field, print_fields, print_json, print_table
from schemas.api import WalletRequest, WalletView
from schemas.money import currency_of, to_major_text
from schemas.wallets import ExternalIdRequest

app = typer.Typer(help="Wallets and their balances.", no_args_is_help=True)


@app.command()
def create(
    owner: str,
    currency: str = "THB",
    external_id: Annotated[str | None, typer.Option(help="Your own id; repeating it returns the wallet.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Open a wallet."""
    try:
        request = WalletRequest(owner=owner, currency=currency, external_id=external_id)
    except ValidationError as error:
        raise invalid_field(error) from error
    _show(with_client(lambda client: client.create_wallet(request)), as_json)


@app.command()
def show(wallet_id: UUID, as_json: JsonFlag = False) -> None:
    """Show a wallet with posted, held and available balance."""
    _show(with_client(lambda client: client.get_wallet(wallet_id)), as_json)


@app.command()
def history(wallet_id: UUID, cursor: str | None = None, as_json: JsonFlag = False) -> None:
    """Show the posted entries, newest first, with the balance after each."""
    page = with_client(lambda client: client.wallet_history(wallet_id, cursor=cursor))
    if as_json:
        print_json(page.model_dump(mode="json"))
        return
    rows = [
        (e.at, e.amount_minor, e.balance_minor, e.operation or "", e.from_name, e.to_name, e.intent_id)
        for e in page.items
    ]
    print_table("entries (minor units)", ("at", "amount", "balance", "operation", "from", "to", "intent"), rows)
    if page.next_cursor:
        typer.echo(f"more: --cursor {page.next_cursor}")


_Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the event.")]


@app.command()
def freeze(wallet_id: UUID, reason: _Reason, as_json: JsonFlag = False) -> None:
    """Refuse every new payment from the wallet; money still arrives."""
    _show(with_client(lambda client: client.change_wallet(wallet_id, "freeze", reason=reason)), as_json)


@app.command()
def unfreeze(wallet_id: UUID, reason: _Reason, as_json: JsonFlag = False) -> None:
    """Let the wallet pay again."""
    _show(with_client(lambda client: client.change_wallet(wallet_id, "unfreeze", reason=reason)), as_json)


@app.command()
def close(wallet_id: UUID, reason: _Reason, as_json: JsonFlag = False) -> None:
    """Close an empty wallet, for good."""
    _show(with_client(lambda client: client.change_wallet(wallet_id, "close", reason=reason)), as_json)


@app.command()
def external_id(
    wallet_id: UUID,
    external_id: Annotated[str | None, typer.Argument(help="Leave it out to take the id away.")] = None,
    reason: str = "",
    as_json: JsonFlag = False,
) -> None:
    """Attach your own id to a wallet, or replace it."""
    try:
        request = ExternalIdRequest(external_id=external_id, reason=reason)
    except ValidationError as error:
        raise invalid_field(error) from error
    _show(with_client(lambda client: client.set_external_id(wallet_id, request)), as_json)


@app.command()
def events(wallet_id: UUID, as_json: JsonFlag = False) -> None:
    """Show what changed the wallet beside its money, oldest first."""
    found = with_client(lambda client: client.wallet_events(wallet_id))
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    rows = [(e.at, e.type, e.actor, e.reason, orjson.dumps(e.data).decode() if e.data else "") for e in found.items]
    print_table("events", ("at", "type", "actor", "reason", "data"), rows)


def _show(view: WalletView, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    currency = currency_of(view.currency)
    balances = {
        name: f"{to_major_text(amount, currency)} {view.currency}"
        for name, amount in (
            ("available", view.available_minor),
            ("held", view.held_minor),
            ("posted", view.posted_minor),
        )
    }
    print_fields(
        "wallet",
        {"id": view.id, "owner": view.owner, "external id": view.external_id, "status": view.status, **balances},
    )
