"""`fleet quotes`: what an exchange costs: ask, show, use."""

from typing import Annotated
from uuid import UUID

import typer
from pydantic import ValidationError

from fleet.cli.connection import with_client
from fleet.cli.intents import create_once
from fleet.cli.output import CommandError, JsonFlag, invalid_field, print_fields, print_json
from schemas.api import AutoConfirm, IntentRequest
from schemas.exchange import QuoteRequest, QuoteSide, QuoteView
from schemas.money import AmountError, currency_of, to_major_text, to_minor
from schemas.operations import OperationType

app = typer.Typer(help="What an exchange costs.", no_args_is_help=True)


@app.command()
def create(
    wallet: Annotated[UUID, typer.Option(help="The wallet that pays.")],
    to: Annotated[UUID, typer.Option(help="The wallet of the same owner that gets the other currency.")],
    pay: Annotated[str, typer.Option(help="What is paid, such as 100.00; or say what to buy.")] = "",
    buy: Annotated[str, typer.Option(help="What is bought, such as 3500.00.")] = "",
    channel: str = "",
    as_json: JsonFlag = False,
) -> None:
    """Ask what an exchange costs; the quote can be used once, until it expires."""
    if bool(pay) == bool(buy):
        raise CommandError("amount_malformed", "give one amount: --pay what is paid, or --buy what is bought")
    source = with_client(lambda client: client.get_wallet(wallet))
    target = with_client(lambda client: client.get_wallet(to))
    side, text, currency = (QuoteSide.FROM, pay, source.currency) if pay else (QuoteSide.TO, buy, target.currency)
    try:
        request = QuoteRequest(
            wallet_id=wallet,
            counterparty_wallet_id=to,
            from_currency=source.currency,
            to_currency=target.currency,
            side=side,
            amount_minor=to_minor(text, currency_of(currency)),
            channel=channel,
        )
    except AmountError as error:
        raise CommandError(error.code, str(error)) from error
    except ValidationError as error:
        raise invalid_field(error) from error
    _show(with_client(lambda client: client.create_quote(request)), as_json)


@app.command()
def show(quote_id: UUID, as_json: JsonFlag = False) -> None:
    """Show a quote, and the exchange that used it."""
    _show(with_client(lambda client: client.get_quote(quote_id)), as_json)


@app.command()
def use(
    quote_id: UUID,
    max_fee_minor: Annotated[int | None, typer.Option(help="Refuse a fee above this; left out, take any.")] = None,
    reference: str = "",
    key: Annotated[str, typer.Option(help="Idempotency key; a new one is minted where it is left out.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Exchange by a quote."""
    quote = with_client(lambda client: client.get_quote(quote_id))
    try:
        request = IntentRequest(
            operation=OperationType.EXCHANGE,
            wallet_id=quote.wallet_id,
            counterparty_wallet_id=quote.counterparty_wallet_id,
            amount_minor=quote.from_minor,
            currency=quote.from_currency,
            quote_id=quote.id,
            reference=reference,
            auto_confirm=None if max_fee_minor is None else AutoConfirm(max_fee_minor=max_fee_minor),
        )
    except ValidationError as error:
        raise invalid_field(error) from error
    create_once(request, key, as_json)


def _show(view: QuoteView, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    bought = currency_of(view.to_currency)
    print_fields(
        "quote",
        {
            "id": view.id,
            "state": view.state,
            "pays": f"{to_major_text(view.from_minor, currency_of(view.from_currency))} {view.from_currency}",
            "buys": f"{to_major_text(view.to_minor, bought)} {view.to_currency}",
            "rate": f"{view.rate} {view.base}/{view.counter}, version {view.rate_version}",
            "spread": f"{view.spread_basis_points} bp: {to_major_text(view.spread_minor, bought)} {view.to_currency}",
            "rounding": view.rounding,
            "fee_minor": view.fee_minor,
            "received": None
            if view.received_minor is None
            else f"{to_major_text(view.received_minor, bought)} {view.to_currency}",
            "expires_at": view.expires_at,
            "intent": view.intent_id,
        },
    )
