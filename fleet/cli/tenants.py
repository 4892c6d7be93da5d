"""`fleet tenants`: make, list and set tenants."""

from typing import Annotated
from uuid import UUID

import typer
from pydantic import ValidationError

from core.services.access.keys import ANY
from core.services.access.tenants import TenantService
from core.store.access.tenants import TenantStore
from core.store.database import Database
from fleet.cli.connection import Connection
from fleet.cli.keys import key_service
from fleet.cli.operator import ACTOR, with_database
from fleet.cli.output import CommandError, JsonFlag, invalid_field, print_fields, print_json, print_table
from schemas.tenants import ReturnsTo, TenantRequest

app = typer.Typer(help="Tenants: unaware of each other.", no_args_is_help=True)


def _service(database: Database, connection: Connection) -> TenantService:
    return TenantService(database.unit_of_work, TenantStore(), key_service(database, connection))


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Its own among all tenants.")],
    timezone: Annotated[str, typer.Option(help="Where its days and months begin.")] = "UTC",
    returns_to: Annotated[ReturnsTo, typer.Option(help="Where returned payments go.")] = ReturnsTo.WALLET,
    operations: Annotated[str, typer.Option(help="What its first key carries, divided by commas.")] = ANY,
    as_json: JsonFlag = False,
) -> None:
    """Make a tenant with its first key, whose secret is shown this once."""
    chosen = tuple(part.strip() for part in operations.split(",") if part.strip())
    try:
        asked = TenantRequest(name=name, business_timezone=timezone, returns_to=returns_to, operations=chosen)
    except ValidationError as error:
        raise invalid_field(error) from error
    made = with_database(lambda database, connection: _service(database, connection).create(ACTOR, asked), "master_key")
    if as_json:
        print_json(made.model_dump(mode="json"))
        return
    print_fields("tenant", {**made.tenant.model_dump(mode="json"), "key_id": made.key_id, "secret": made.secret})
    typer.echo("keep the secret now: it is not shown again")


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List tenants, oldest first."""
    found = with_database(lambda database, connection: _service(database, connection).all(ACTOR), "master_key")
    documents = [tenant.model_dump(mode="json") for tenant in found]
    if as_json:
        print_json(documents)
        return
    columns = ("id", "name", "business_timezone", "returns_to", "created_at", "created_by")
    print_table("tenants", columns, [[document[column] for column in columns] for document in documents])


@app.command("set")
def set_(
    tenant: Annotated[UUID, typer.Argument(help="The tenant's id.")],
    returns_to: Annotated[ReturnsTo | None, typer.Option(help="Where returned payments go.")] = None,
    adjust_alone_up_to: Annotated[
        int | None, typer.Option(min=0, help="Minor units that one key gives by hand, or out of suspense, alone.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say where a tenant wants what providers give back, and above which amount two keys move money by hand."""
    if returns_to is None and adjust_alone_up_to is None:
        raise CommandError("invalid_request", "name what to set: --returns-to, --adjust-alone-up-to")

    async def work(database: Database, connection: Connection) -> None:
        service = _service(database, connection)
        if returns_to is not None:
            await service.set_returns_to(ACTOR, tenant, returns_to)
        if adjust_alone_up_to is not None:
            await service.set_adjusts_alone(ACTOR, tenant, adjust_alone_up_to)

    with_database(work, "master_key")
    asked = {"returns_to": returns_to, "adjust_alone_up_to": adjust_alone_up_to}
    given = {name: value for name, value in asked.items() if value is not None}
    if as_json:
        print_json({"id": str(tenant), **given})
        return
    if returns_to is not None:
        typer.echo(f"what providers give back of {tenant} goes to {returns_to}")
    if adjust_alone_up_to is not None:
        typer.echo(f"one key of {tenant} adjusts up to {adjust_alone_up_to} minor units alone")
