"""`fleet routes`: which rail carries a payment, by operation and currency."""

from dataclasses import asdict
from typing import Annotated

import typer

from core.services.set_routes import RouteView, disable_route, set_route
from core.store import rails
from core.store.database import UnitOfWork
from core.store.routes import RouteStore
from fleet.cli.operator import Tenant, in_tenant
from fleet.cli.output import CommandError, JsonFlag, print_fields, print_json, print_table
from fleet.stack.installation import TENANT
from schemas.money import AmountError, currency_of
from schemas.operations import OperationType

app = typer.Typer(help="Which rail carries a payment.", no_args_is_help=True)

Operation = Annotated[OperationType, typer.Argument(help="The operation, such as PAYOUT.")]
Currency = Annotated[str, typer.Argument(help="The currency, such as THB.")]


@app.command("list")
def list_(tenant: Tenant = TENANT, as_json: JsonFlag = False) -> None:
    """List routes, disabled ones too; the newest that is enabled carries the payments."""

    async def work(uow: UnitOfWork) -> list[RouteView]:
        return list(await RouteStore().list_routes(uow, tenant))

    found = [asdict(route) for route in in_tenant(tenant, work)]
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

    async def work(uow: UnitOfWork) -> RouteView:
        return await set_route(uow, RouteStore(), rails, tenant, operation, code, rail)

    route = asdict(in_tenant(tenant, work, must_exist=True))
    if as_json:
        print_json(route)
    else:
        print_fields("route", route)


@app.command()
def disable(operation: Operation, currency: Currency, tenant: Tenant = TENANT, as_json: JsonFlag = False) -> None:
    """Refuse new payments of this operation and currency; those that were accepted go on."""
    code = _currency(currency)
    disabled = in_tenant(tenant, lambda uow: disable_route(uow, RouteStore(), tenant, operation, code))
    if as_json:
        print_json({"disabled": disabled})
    else:
        typer.echo(f"{operation} in {code} has no route any more")


def _currency(text: str) -> str:
    try:
        return currency_of(text.upper()).code
    except AmountError as error:
        raise CommandError(error.code, str(error)) from error
