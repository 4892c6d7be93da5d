"""`fleet console users`: who may sign in to the console, and with which role."""

import secrets
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

from core.domain.roles import Role
from core.services.access.people import SYSTEM_TENANT, PeopleService, Person
from core.store.access.people import StoredPeople
from core.store.database import Database
from core.store.on_call.audit import AuditStore
from fleet.cli.connection import Connection
from fleet.cli.operator import ACTOR, with_database
from fleet.cli.output import JsonFlag, print_fields, print_json, print_table

T = TypeVar("T")

app = typer.Typer(help="The console: who may sign in.", no_args_is_help=True)
users = typer.Typer(help="People of the console.", no_args_is_help=True)
app.add_typer(users, name="users")

_PASSWORD_BYTES = 18
Name = Annotated[str, typer.Argument(help="The person's name.")]
RoleOption = Annotated[Role, typer.Option(help="What they may; each may what those before it may.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin; else one is made.")]


@app.callback()
def console() -> None:
    """The console: who may sign in."""


@users.command()
def add(
    name: Name,
    role: RoleOption,
    tenant: Annotated[
        UUID, typer.Option(help="Whose rows they see; left out, they are the system's and see every tenant's.")
    ] = SYSTEM_TENANT,
    password_stdin: FromStdin = False,
    as_json: JsonFlag = False,
) -> None:
    """Let somebody in. A password that was made is shown this once."""
    made, password = _password(password_stdin)

    async def work(service: PeopleService) -> Person:
        return await service.add(ACTOR, name=name, role=role, tenant_id=tenant, password=password)

    person = _with_people(work)
    document = {"name": person.name, "role": person.role.value} | ({"password": password} if made else {})
    _show(document, as_json)


@users.command()
def roles(name: Name, role: RoleOption, as_json: JsonFlag = False) -> None:
    """Give a person another role; it counts from their next click."""
    _with_people(lambda service: service.set_role(ACTOR, name, role))
    _show({"name": name, "role": role.value}, as_json)


@users.command()
def password(name: Name, password_stdin: FromStdin = False, as_json: JsonFlag = False) -> None:
    """Give a person another password, and end their sessions."""
    made, text = _password(password_stdin)
    _with_people(lambda service: service.set_password(ACTOR, name, text))
    _show({"name": name} | ({"password": text} if made else {}), as_json)


@users.command()
def revoke(name: Name, as_json: JsonFlag = False) -> None:
    """Let a person in no more, and end their sessions at once."""
    _with_people(lambda service: service.revoke(ACTOR, name))
    _show({"name": name, "revoked": True}, as_json)


@users.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List everybody, by name, revoked ones too."""
    found = [_document(person) for person in _with_people(lambda service: service.list_people(None))]
    if as_json:
        print_json(found)
        return
    columns = ("name", "role", "tenant_id", "signs_in_by", "revoked_at")
    print_table("people", columns, [[str(person[column] or "") for column in columns] for person in found])


def people_service(database: Database) -> PeopleService:
    """Return the service; it opens no session here, so their lengths do not matter."""
    unused = timedelta(0)
    return PeopleService(database.unit_of_work, StoredPeople(), AuditStore(), idle=unused, longest=unused)


def _with_people(work: Callable[[PeopleService], Awaitable[T]]) -> T:
    async def run(database: Database, _: Connection) -> T:
        return await work(people_service(database))

    return with_database(run)


def _password(from_stdin: bool) -> tuple[bool, str]:
    """Return whether it was made here, and the password."""
    if from_stdin:
        return False, sys.stdin.readline().rstrip("\r\n")
    return True, secrets.token_urlsafe(_PASSWORD_BYTES)


def _document(person: Person) -> dict[str, Any]:
    return {
        "name": person.name,
        "role": person.role.value,
        "tenant_id": str(person.tenant_id),
        "signs_in_by": person.issuer or "password",
        "created_by": person.created_by,
        "revoked_at": None if person.revoked_at is None else person.revoked_at.isoformat(timespec="seconds"),
    }


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print_fields("person", document)
