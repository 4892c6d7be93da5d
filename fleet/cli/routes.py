"""`fleet routes`: which rail carries a payment, by operation and currency."""

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import typer

from core.domain.context import Context
from core.services.set_routes import RouteView, disable_route, set_route
from core.store import rails
from core.store.database import Database
from core.store.routes import RouteStore
from fleet.cli.connection import Connection
from fleet.cli.operator import require_tenant, with_database
from fleet.cli.output import CommandError, JsonFlag, print_fields, print_json, print_table
from fleet.stack.installation import TENANT
from schemas.money import AmountError, currency_of
from schemas.operations import OperationType

app = typer.Typer(help="Which rail carries a payment.", no_args_is_help=True)

_CONTEXT = Context(None, "fleet-cli")

Operation = Annotated[OperationType, typer.Argument(help="The operation, such as PAYOUT.")]
Currency = Annotated[str, typer.Argument(help="The currency, such as THB.")]
Tenant = Annotated[UUID, typer.Option(help="The tenant's id; left out, the one of ./dev up.")]


@app.command("list")
def list_(tenant: Tenant = TENANT, as_json: JsonFlag = False) -> None:
    """List routes, disabled ones too; the newest that is enabled carries the payments."""

    async def work(database: Database, _: Connection) -> list[RouteView]:
        async with database.unit_of_work(_CONTEXT) as uow:
            return list(await RouteStore().list_routes(uow, tenant))

    found = [asdict(route) for route in with_database(work)]
    if as_json:
        print_json(found)
        return
    columns = ("operation", "currency", "rail", "provider_account", "environment", "enabled")
    print_table("routes", columns, [[route[column] for column in columns] for route in found])


@app.command("set")
def set_(
    operation: Operation,
    currency: Currency,
    rail: Annotated[str, typer.Argument(help="The rail; its adapter must have registered.")],
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Send new payments to this rail and disable the routes before it; obeyed within seconds."""
    code = _currency(currency)

    async def work(database: Database, _: Connection) -> RouteView:
        async with database.unit_of_work(_CONTEXT) as uow:
            await require_tenant(uow, tenant)
            return await set_route(uow, RouteStore(), rails, tenant, operation, code, rail)

    route = asdict(with_database(work))
    if as_json:
        print_json(route)
    else:
        print_fields("route", route)


@app.command()
def disable(operation: Operation, currency: Currency, tenant: Tenant = TENANT, as_json: JsonFlag = False) -> None:
    """Refuse new payments of this operation and currency; those that were accepted go on."""
    code = _currency(currency)

    async def work(database: Database, _: Connection) -> int:
        async with database.unit_of_work(_CONTEXT) as uow:
            return await disable_route(uow, RouteStore(), tenant, operation, code)

    disabled = with_database(work)
    if as_json:
        print_json({"disabled": disabled})
    else:
        typer.echo(f"{operation} in {code} has no route any more")


def _currency(text: str) -> str:
    try:
        return currency_of(text.upper()).code
    except AmountError as error:
        raise CommandError(error.code, str(error)) from error
