"""`fleet routes`: which rail carries a payment, by operation and currency."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated
from uuid import UUID

import typer

from core.services.terms.routes import RouteTerms
from core.services.terms.set_routes import MAIN, RouteRequest, RouteView, disable_route, set_route
from core.store.database import UnitOfWork
from core.store.settling import rails
from core.store.terms.limits import stored_quotas
from core.store.terms.routes import RouteStore
from fleet.cli.moments import moment
from fleet.cli.operator import ACTOR, Tenant, in_tenant
from fleet.cli.output import CommandError, JsonFlag, print_fields, print_json, print_table
from fleet.stack.tenant import TENANT
from schemas.limits import QuotaObject
from schemas.money import AmountError, currency_of, to_minor
from schemas.money import Currency as KnownCurrency
from schemas.operations import OperationType

app = typer.Typer(help="Which rail carries a payment.", no_args_is_help=True)

Operation = Annotated[OperationType, typer.Argument(help="The operation, such as PAYOUT.")]
Currency = Annotated[str, typer.Argument(help="The currency, such as THB.")]
Rail = Annotated[str, typer.Argument(help="The rail; its adapter must have registered.")]


@app.command("list")
def list_(tenant: Tenant = TENANT, as_json: JsonFlag = False) -> None:
    """List routes, disabled ones too; the first that takes a payment, in the order shown, carries it."""

    async def work(uow: UnitOfWork) -> list[RouteView]:
        return list(await RouteStore().list_routes(uow, tenant))

    found = [asdict(route) for route in in_tenant(tenant, work)]
    if as_json:
        print_json(found)
        return
    columns = (
        "operation", "currency", "priority", "rail", "name", "version", "min_amount_minor", "max_amount_minor",
        "payee_types", "valid_from", "valid_until", "enabled",
    )  # fmt: skip
    print_table("routes", columns, [[_cell(route[column]) for column in columns] for route in found])


@app.command("set")
def set_(
    operation: Operation, currency: Currency, rail: Rail, tenant: Tenant = TENANT, as_json: JsonFlag = False
) -> None:
    """Send all new payments to this rail and disable every route before it; obeyed within seconds."""
    _set(tenant, RouteRequest(operation, _currency(currency).code, rail), as_json)


@app.command()
def add(
    operation: Operation,
    currency: Currency,
    rail: Rail,
    name: Annotated[str, typer.Option(help="Routes of one rail with different names stand together.")] = MAIN,
    priority: Annotated[int, typer.Option(min=0, max=1000, help="The lowest is tried first.")] = 100,
    min_amount: Annotated[str, typer.Option(help="Take payments from this amount on, in major units.")] = "",
    max_amount: Annotated[str, typer.Option(help="Take payments up to this amount, in major units.")] = "",
    payee_type: Annotated[list[str] | None, typer.Option(help="Take only this type of payee; repeatable.")] = None,
    from_: Annotated[
        datetime | None, typer.Option("--from", parser=moment, help="From this moment on, UTC; left out, now.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=moment, help="Until this moment, UTC; left out, for good.")
    ] = None,
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Send the payments that meet these terms to this rail, beside other routes.

    The first route by priority that takes a payment carries it; one whose rail is paused or whose provider is away is
    passed over for the next that takes it. The rail's route of this name before it is disabled, unless this has dates.
    """
    known = _currency(currency)
    try:
        least = to_minor(min_amount, known) if min_amount else None
        most = to_minor(max_amount, known) if max_amount else None
    except AmountError as error:
        raise CommandError(error.code, str(error)) from error
    request = RouteRequest(
        operation,
        known.code,
        rail,
        RouteTerms(priority, least, most, frozenset(payee_type) if payee_type else None),
        from_,
        until,
        alone=False,
        name=name,
    )
    _set(tenant, request, as_json)


@app.command()
def disable(
    operation: Operation,
    currency: Currency,
    rail: Annotated[str | None, typer.Option(help="Only the routes to this rail; left out, all.")] = None,
    name: Annotated[str | None, typer.Option(help="Only the routes of this name; left out, all.")] = None,
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Send no new payments there; those that were accepted go on. Without any route they are refused."""
    code = _currency(currency).code
    disabled = in_tenant(tenant, lambda uow: disable_route(uow, RouteStore(), tenant, operation, code, rail, name))
    if as_json:
        print_json({"disabled": disabled})
    else:
        to, named = f" to {rail}" if rail else "", f" named {name}" if name else ""
        typer.echo(f"{operation} in {code} has no route{to}{named} any more")


def _set(tenant: UUID, request: RouteRequest, as_json: bool) -> None:
    async def work(uow: UnitOfWork) -> RouteView:
        route = await set_route(uow, RouteStore(), rails, tenant, ACTOR, request)
        await stored_quotas().check(uow, tenant, QuotaObject.ROUTES)
        return route

    route = asdict(in_tenant(tenant, work, must_exist=True))
    if as_json:
        print_json(route)
    else:
        print_fields("route", {name: _cell(value) for name, value in route.items()})


def _cell(value: object) -> object:
    return ", ".join(value) if isinstance(value, list) else value


def _currency(text: str) -> KnownCurrency:
    try:
        return currency_of(text.upper())
    except AmountError as error:
        raise CommandError(error.code, str(error)) from error
