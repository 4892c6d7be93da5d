"""Where the core is: from the environment, else from the stack that `./dev up` runs."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson

from fleet.cli.output import CommandError, ExitCode
from fleet.client import FleetClient, Refused, Unreachable
from wire.environment import SettingsError, read_variable

T = TypeVar("T")

STACK_FILE = Path(".fleet/up/stack.json")
ANSWERS_WITHIN_S = 10


@dataclass(frozen=True, slots=True)
class Connection:
    """Addresses and credentials; a field is empty where neither the environment nor a stack names it."""

    public_url: str
    key_id: str
    key_secret: str
    database_url: str
    redis_url: str
    master_key: str
    on_behalf_of: str
    """A user, and after a space who acts: each request is made for that user."""

    def of_operator(self) -> "Connection":
        """Return the same under the key for people on call: what the environment names, else the stack's own."""
        stack = _stack()
        names = ("key_id", "key_secret")
        if read_variable(_VARIABLES["key_id"]) or not all(stack.get(f"operator_{name}") for name in names):
            return self
        return replace(self, **{name: str(stack[f"operator_{name}"]) for name in names})


_VARIABLES = {
    "public_url": "FLEET_URL",
    "key_id": "FLEET_KEY_ID",
    "key_secret": "FLEET_KEY_SECRET",
    "database_url": "DATABASE_WORKER_URL",
    "redis_url": "REDIS_URL",
    "master_key": "FLEET_MASTER_KEY",
    "on_behalf_of": "FLEET_ON_BEHALF_OF",
}

_KEY_ID = re.compile(r"[\x21-\x7e]{1,64}")


def find_connection() -> Connection:
    """Return what is known; each command demands what it needs with `require`.

    Raises CommandError `stack_file_unusable` for a file that is there and cannot be used.
    """
    stack = _stack()
    try:
        given = {name: read_variable(variable) for name, variable in _VARIABLES.items()}
    except SettingsError as error:
        raise CommandError("file_unreadable", str(error)) from error
    return Connection(**{name: value or str(stack.get(name, "")) for name, value in given.items()})


def _stack() -> dict[str, Any]:
    path = Path(os.environ.get("FLEET_STACK") or STACK_FILE)
    try:
        stack = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError) as error:
        raise CommandError("stack_file_unusable", f"{path} cannot be read ({error}): start ./dev up anew") from error
    if not isinstance(stack, dict):
        raise CommandError("stack_file_unusable", f"{path} is not what ./dev up writes: start it anew")
    return stack


def provider_url(rail: str) -> str:
    """Return where the simulated provider of a rail answers. Raises CommandError `not_configured`."""
    providers = _stack().get("providers")
    url = providers.get(rail) if isinstance(providers, dict) else None
    if not url:
        text = f"no running stack has a provider of {rail}: start ./dev up in this folder, or give --url"
        raise CommandError("not_configured", text, ExitCode.UNREACHABLE)
    return str(url)


def require(connection: Connection, *names: str) -> None:
    """Raise CommandError naming the variables that are missing."""
    missing = [_VARIABLES[name] for name in names if not getattr(connection, name)]
    if missing:
        raise CommandError(
            "not_configured",
            f"set {', '.join(missing)}, or start a stack with ./dev up in this folder",
            ExitCode.UNREACHABLE,
        )


def _check(connection: Connection, *, by_key: bool) -> None:
    """Raise CommandError where address or key id cannot be what they stand for."""
    try:
        address = urlsplit(connection.public_url)
        usable = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise CommandError("address_malformed", "FLEET_URL should be the core's address, such as http://127.0.0.1:8080")
    if by_key and _KEY_ID.fullmatch(connection.key_id) is None:
        raise CommandError("key_malformed", "FLEET_KEY_ID should be a key's id as fleet keys create showed it")


def by_api() -> bool:
    """Whether a command that knows both ways goes through the API: as a person, or where no database is named."""
    return bool(read_variable("FLEET_TOKEN")) or not find_connection().database_url


def core_is_known() -> bool:
    """Whether something says how the core is reached: a person's token, or its address and a key."""
    known = find_connection().of_operator()
    return bool(known.public_url and (read_variable("FLEET_TOKEN") or (known.key_id and known.key_secret)))


def with_operator(work: Callable[[FleetClient], Awaitable[T]], *, timeout_s: int = ANSWERS_WITHIN_S) -> T:
    """Run `work` as `with_client` does, for people on call: a running stack has a key for them beside the client's.

    An answer is waited for `timeout_s`.
    """
    return _with_client(find_connection().of_operator(), work, "", timeout_s)


def with_client(work: Callable[[FleetClient], Awaitable[T]], *, if_unanswered: str = "") -> T:
    """Run `work` with a client; the core's refusals become one line and exit code 3.

    `if_unanswered` says how to go on where the request may have been taken.
    """
    return _with_client(find_connection(), work, if_unanswered, ANSWERS_WITHIN_S)


def _with_client(
    connection: Connection, work: Callable[[FleetClient], Awaitable[T]], if_unanswered: str, timeout_s: int
) -> T:
    token = read_variable("FLEET_TOKEN")
    require(connection, "public_url", *(() if token else ("key_id", "key_secret")))
    _check(connection, by_key=not token)

    async def run() -> T:
        credentials = (connection.public_url, connection.key_id, connection.key_secret)
        async with FleetClient(*credentials, token=token, timeout_s=timeout_s) as client:
            user, _, agent = connection.on_behalf_of.partition(" ")
            return await work(client.acting_for(user, agent or None) if user else client)

    try:
        return asyncio.run(run())
    except Refused as refused:
        raise CommandError(refused.problem.code, refused.problem.detail, ExitCode.REFUSED) from refused
    except Unreachable as error:
        raise CommandError(
            "core_unreachable",
            f"{error}; is the core running at {connection.public_url}? {if_unanswered}".rstrip(),
            ExitCode.UNREACHABLE,
        ) from error
