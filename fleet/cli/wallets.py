"""`fleet wallets`: what they own and owned, what moved it, and what is done to them beside."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, BinaryIO
from uuid import UUID

import orjson
import typer
from pydantic import ValidationError

from fleet.cli.connection import with_client
from fleet.cli.moments import moment
from fleet.cli.output import CommandError, JsonFlag, invalid_field, print_fields, print_json, print_page, print_table
from fleet.client import FleetClient
from schemas.api import WalletRequest, WalletView
from schemas.money import currency_of, to_major_text
from schemas.statements import StatementFormat
from schemas.wallets import EntrySign, ExternalIdRequest

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


@app.command("list")
def list_wallets(
    owner: Annotated[str | None, typer.Option(help="Of one owner.")] = None,
    external_id: Annotated[str | None, typer.Option(help="The one with your own id.")] = None,
    cursor: str | None = None,
    as_json: JsonFlag = False,
) -> None:
    """List wallets, oldest first."""
    query = {name: value for name, value in (("external_id", external_id), ("cursor", cursor)) if value is not None}
    page = with_client(lambda client: client.list_wallets(owner=owner, **query))
    columns = ("id", "owner", "state", "external id", "available", "currency")
    print_page(
        page, as_json, "wallets", columns,
        lambda x: (x.id, x.owner, x.status, x.external_id, _major(x.available_minor, x.currency), x.currency),
    )  # fmt: skip


@app.command()
def balance(
    wallet_id: UUID,
    at: Annotated[
        datetime | None, typer.Option(parser=moment, help="A moment, such as 2026-11-30T17:00:00+07:00.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a wallet owned, and what of it was held, just before a moment, or now."""
    found = with_client(lambda client: client.wallet_balance(wallet_id, at=at))
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    balances = _balances(found.currency, found.available_minor, found.held_minor, found.posted_minor)
    print_fields("balance", {"id": found.wallet_id, "at": found.at, **balances})


@app.command()
def statement(
    wallet_id: UUID,
    first_day: Annotated[str | None, typer.Option("--from", help="First day; else the first of the month.")] = None,
    last_day: Annotated[str | None, typer.Option("--to", help="Last day, included; else today.")] = None,
    timezone: Annotated[str, typer.Option("--tz", help="Whose days, such as Asia/Bangkok.")] = "UTC",
    form: Annotated[StatementFormat, typer.Option("--format")] = StatementFormat.CSV,
    out: Annotated[Path | None, typer.Option("--out", help="A file; else standard output.")] = None,
) -> None:
    """Write a statement: opening balance, entries, totals, closing balance. A file appears only when it is whole."""
    days = {name: day for name, day in (("from", first_day), ("to", last_day)) if day is not None}

    async def write(client: FleetClient, target: BinaryIO) -> None:
        async for part in client.wallet_statement(wallet_id, tz=timezone, format=form, **days):
            target.write(part)

    if out is None:
        with_client(lambda client: write(client, sys.stdout.buffer))
        return
    partial = out.with_name(f"{out.name}.partial")
    try:
        with partial.open("wb") as target:
            with_client(lambda client: write(client, target))
        partial.replace(out)
    except OSError as error:
        raise CommandError("file_unwritable", f"{out} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


@app.command()
def history(
    wallet_id: UUID,
    cursor: str | None = None,
    begin: Annotated[str | None, typer.Option("--from", help="A moment with its offset.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Just before this moment.")] = None,
    operation: str | None = None,
    sign: Annotated[EntrySign | None, typer.Option(help="Money that came, or money that went.")] = None,
    counterparty: Annotated[UUID | None, typer.Option(help="The other wallet.")] = None,
    comment: Annotated[str | None, typer.Option(help="A part of the comment.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the posted entries, newest first, with the balance after each."""
    given = {"from": begin, "to": end, "operation": operation, "sign": sign, "comment": comment,
             "counterparty_wallet_id": None if counterparty is None else str(counterparty)}  # fmt: skip
    filters = {name: value for name, value in given.items() if value is not None}
    page = with_client(lambda client: client.wallet_history(wallet_id, cursor=cursor, **filters))
    columns = ("at", "amount", "balance", "operation", "from", "to", "comment", "intent")
    print_page(
        page, as_json, "entries (minor units)", columns,
        lambda x: (
            x.at, x.amount_minor, x.balance_minor, x.operation or "", x.from_name, x.to_name, x.comment, x.intent_id
        ),
    )  # fmt: skip


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
    balances = _balances(view.currency, view.available_minor, view.held_minor, view.posted_minor)
    print_fields(
        "wallet",
        {"id": view.id, "owner": view.owner, "external id": view.external_id, "status": view.status, **balances},
    )


def _balances(currency: str, available_minor: int, held_minor: int, posted_minor: int) -> dict[str, object]:
    amounts = {"available": available_minor, "held": held_minor, "posted": posted_minor}
    return {name: f"{_major(amount_minor, currency)} {currency}" for name, amount_minor in amounts.items()}


def _major(amount_minor: int, currency: str) -> str:
    return to_major_text(amount_minor, currency_of(currency))
