"""`fleet liquidity` and `fleet exposure`: what exchanges are paid from, and what they leave a tenant exposed to."""

from datetime import datetime
from typing import Annotated, cast
from uuid import UUID

import typer
from pydantic import ValidationError

from core.domain.context import Context
from core.services.ledger_port import Ledger
from core.services.terms.exposure import allow_overdraft, exposure
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from core.store.terms.liquidity import PostgresLiquidity
from fleet.cli.connection import Connection, with_client
from fleet.cli.dry_run import Yes, show_dry_run
from fleet.cli.intents import create_once
from fleet.cli.moments import moment
from fleet.cli.operator import ACTOR, Tenant, in_tenant, require_tenant, with_database
from fleet.cli.output import CommandError, JsonFlag, invalid_field, print_json, print_table
from fleet.stack.tenant import TENANT
from schemas.api import IntentRequest
from schemas.exchange import ExposureView
from schemas.money import AmountError, currency_of, money_text, to_minor
from schemas.operations import Direction, OperationType

app = typer.Typer(help="What exchanges are paid from.", no_args_is_help=True)


Wallet = Annotated[UUID, typer.Option(help="The wallet on the other side.")]
Amount = Annotated[str, typer.Option(help="Decimal major units of the wallet's currency, such as 1000.00.")]
Key = Annotated[str, typer.Option(help="Idempotency key; a new one is minted where it is left out.")]


@app.command()
def put(wallet: Wallet, amount: Amount, key: Key = "", yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Put money of a wallet into the liquidity of its currency."""
    _move(wallet, amount, Direction.TO_LIQUIDITY, key, yes, as_json)


@app.command()
def take(wallet: Wallet, amount: Amount, key: Key = "", yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Take money out of liquidity, into a wallet of its currency."""
    _move(wallet, amount, Direction.FROM_LIQUIDITY, key, yes, as_json)


@app.command()
def overdraft(
    currency: Annotated[str, typer.Argument(help="The currency, such as THB.")],
    allow: Annotated[bool, typer.Option("--allow/--forbid", help="Whether it may go below zero.")],
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Let the liquidity of a currency go below zero, or no more."""

    async def work(database: Database, _: Connection) -> ExposureView:
        context = Context(tenant, ACTOR)
        async with database.unit_of_work(context) as uow:
            await require_tenant(uow, tenant)
            ledger = cast("Ledger", PostgresLedger(database, context))
            return await allow_overdraft(uow, PostgresLiquidity(), ledger, tenant, currency.upper(), allow)

    _show(with_database(work), as_json)


def exposure_(
    since: Annotated[
        datetime | None, typer.Option(parser=moment, help="Count what was exchanged from here on, UTC.")
    ] = None,
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Show what liquidity there is, what was bought, sold and earned, and at which average rate."""
    _show(in_tenant(tenant, lambda uow: exposure(uow, PostgresLiquidity(), tenant, since), must_exist=True), as_json)


def _move(wallet: UUID, amount: str, direction: Direction, key: str, yes: bool, as_json: bool) -> None:
    currency = with_client(lambda client: client.get_wallet(wallet)).currency
    try:
        request = IntentRequest.model_validate(
            {
                "operation": OperationType.MANUAL_ADJUSTMENT,
                "wallet_id": wallet,
                "amount_minor": to_minor(amount, currency_of(currency)),
                "currency": currency,
                "direction": direction,
            }
        )
    except AmountError as error:
        raise CommandError(error.code, str(error)) from error
    except ValidationError as error:
        raise invalid_field(error) from error
    if yes:
        create_once(request, key, as_json)
    else:
        would = "put into liquidity" if direction is Direction.TO_LIQUIDITY else "take out of liquidity"
        about = {"wallet": wallet, "amount": money_text(request.amount_minor, currency)}
        show_dry_run(would, about, as_json)


def _show(view: ExposureView, as_json: bool) -> None:
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    names = ("position", "held", "bought", "sold", "spread", "moved_by_hand")
    rows = [
        (each.currency, *(getattr(each, f"{name}_minor") for name in names), each.may_overdraw)
        for each in view.currencies
    ]
    print_table("liquidity (minor units)", ("currency", *names, "may overdraw"), rows)
    pairs = [
        (f"{each.from_currency} to {each.to_currency}", each.count, each.from_minor, each.to_minor, each.spread_minor,
         each.average_rate)
        for each in view.pairs
    ]  # fmt: skip
    print_table("exchanged (minor units)", ("pair", "count", "paid", "bought", "spread", "average rate"), pairs)
