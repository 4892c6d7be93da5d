"""`fleet keys`: the service keys of clients and adapters. A secret is shown once, when it is made."""

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

from core.domain.context import Context
from core.services.access.keys import ANY, KNOWN_SCOPES, NAMED_ONLY, KeyService, NewKey, StoredKey
from core.store.access.keys import KeyStore
from core.store.database import Database
from core.store.terms.limits import stored_quotas
from core.store.vault import PostgresVault
from fleet.cli.connection import Connection
from fleet.cli.operator import ACTOR, Tenant, require_tenant, with_database
from fleet.cli.output import CommandError, JsonFlag, print_fields, print_json, print_table, require_rail
from fleet.stack.tenant import TENANT

T = TypeVar("T")

app = typer.Typer(help="Service keys: create, list, rotate, revoke.", no_args_is_help=True)

_CONTEXT = Context(None, ACTOR)
_MASTER_KEY_BYTES = 32
_OPERATIONS_HELP = f"Permitted operations, divided by commas; * permits all but {', '.join(sorted(NAMED_ONLY))}."


@app.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is, for people.")],
    operations: Annotated[str, typer.Option(help=_OPERATIONS_HELP)] = ANY,
    wallet: Annotated[list[UUID] | None, typer.Option(help="A permitted wallet; repeatable; left out, all.")] = None,
    rail: Annotated[str | None, typer.Option(help="Make the key of this rail's adapter.")] = None,
    serves: Annotated[
        list[UUID] | None, typer.Option(help="With --rail: a tenant that it may carry payments of; left out, all.")
    ] = None,
    acts_for_users: Annotated[
        bool, typer.Option("--acts-for-users", help="Each request must say for which user it is made.")
    ] = False,
    tenant: Tenant = TENANT,
    as_json: JsonFlag = False,
) -> None:
    """Make a key. Its secret is shown this once and cannot be read again."""
    chosen = [part.strip() for part in operations.split(",") if part.strip()]
    if not name.strip():
        raise CommandError("name_missing", "say whose key it is, such as --name shop")
    if rail is not None:
        require_rail(rail)
    if serves and rail is None:
        raise CommandError("serves_without_rail", "only the key of a rail's adapter serves tenants: give --rail too")
    if acts_for_users and rail is not None:
        raise CommandError(
            "rail_acts_for_nobody", "the key of a rail's adapter acts for no user: leave one of both out"
        )
    if unknown := sorted(set(chosen) - KNOWN_SCOPES) or ([] if chosen else [operations]):
        raise CommandError("operation_unknown", f"{', '.join(unknown)}: choose among {', '.join(sorted(KNOWN_SCOPES))}")

    async def work(database: Database, service: KeyService) -> NewKey:
        async with database.unit_of_work(_CONTEXT) as uow:
            await require_tenant(uow, tenant)
        return await service.create(
            _CONTEXT,
            tenant_id=tenant,
            name=name,
            operations=chosen,
            accounts=wallet or None,
            rail=rail,
            serves=serves or None,
            acts_for_users=acts_for_users,
        )

    _show(_with_keys(work), as_json)


@app.command("list")
def list_(
    tenant: Annotated[UUID | None, typer.Option(help="Only this tenant's; left out, all.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List keys, oldest first, revoked ones too. Secrets are never shown."""

    async def work(database: Database, _: Connection) -> list[StoredKey]:
        async with database.unit_of_work(_CONTEXT) as uow:
            return await KeyStore(database).list_keys(uow, tenant)

    found = [_document(key) for key in with_database(work)]
    if as_json:
        print_json(found)
        return
    columns = ("key_id", "name", "rail", "operations", "wallets", "secrets", "revoked")
    print_table("keys", columns, [[_cell(key[column]) for column in columns] for key in found])


@app.command()
def rotate(key_id: Annotated[str, typer.Argument(help="The key's id.")], as_json: JsonFlag = False) -> None:
    """Make a new secret; the one before it stays live until the next rotation."""
    _show(_with_keys(lambda _, service: service.rotate(_CONTEXT, key_id)), as_json)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id.")], as_json: JsonFlag = False) -> None:
    """Revoke a key for good; every process obeys within seconds."""
    _with_keys(lambda _, service: service.revoke(_CONTEXT, key_id))
    if as_json:
        print_json({"key_id": key_id, "revoked": True})
    else:
        typer.echo(f"{key_id} is revoked")


def _with_keys(work: Callable[[Database, KeyService], Awaitable[T]]) -> T:
    async def run(database: Database, connection: Connection) -> T:
        return await work(database, key_service(database, connection))

    return with_database(run, "master_key")


def key_service(database: Database, connection: Connection) -> KeyService:
    """Return the service of keys. Raises CommandError `master_key_malformed`."""
    vault = PostgresVault(master_key(connection))
    return KeyService(database.unit_of_work, KeyStore(database), vault, stored_quotas())


def master_key(connection: Connection) -> bytes:
    """Return the master key. Raises CommandError `master_key_malformed`; the key itself is never shown."""
    try:
        key = base64.b64decode(connection.master_key, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != _MASTER_KEY_BYTES:
        raise CommandError("master_key_malformed", "FLEET_MASTER_KEY should be 32 bytes in base64, as the core has it")
    return key


def _document(key: StoredKey) -> dict[str, Any]:
    return {
        "key_id": key.id,
        "tenant_id": key.tenant_id,
        "name": key.name,
        "rail": key.rail,
        "operations": sorted(key.operations),
        "serves": None if key.serves is None else sorted(str(tenant) for tenant in key.serves),
        "wallets": None if key.accounts is None else sorted(str(wallet) for wallet in key.accounts),
        "acts_for_users": key.acts_for_users,
        "secrets": 0 if key.revoked else 2 if key.secret_next else 1,
        "revoked": key.revoked,
    }


def _cell(value: object) -> object:
    return ", ".join(value) if isinstance(value, list) else value


def _show(made: NewKey, as_json: bool) -> None:
    if as_json:
        print_json({"key_id": made.id, "secret": made.secret})
        return
    print_fields("key", {"key_id": made.id, "secret": made.secret})
    typer.echo("keep the secret now: it is not shown again")
