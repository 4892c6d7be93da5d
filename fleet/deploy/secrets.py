"""The secrets of a deployment, made on its first start: one directory for each process that reads them.

Each directory is a volume of its own, so that no process sees what another one knows.
"""

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.streams import shards_of
from wire.acl import adapter_rules, core_rules

_READABLE = 0o444
"""A volume is mounted in one service alone, whose user differs by image."""


_SHARED: Final = ("promptpay", "sbp")
"""Rails that sign with a secret which the provider knows too: here the simulator, which has a copy of its own."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the servers are, as every process reaches them."""

    postgres: str = "postgres:5432"
    redis: str = "redis:6379"
    database: str = "fleet"


def write_secrets(
    home: Path, rails: Sequence[str], places: Places, shards: Mapping[str, int] | None = None
) -> list[Path]:
    """Write what is missing and return those files; what is there stays, and a new rail gets its own.

    `shards` says over how many streams a rail is spread; one that it does not name has one.
    """
    made = _Passwords(home / "setup")
    admin, app, worker = (made.of(name) for name in ("postgres", "fleet_app", "fleet_worker"))
    users = {name: made.of(f"redis_{name}") for name in ("core", *rails)}
    base = f"{places.postgres}/{places.database}"
    core = {
        "database_url": f"postgresql://fleet_app:{app}@{base}",
        "database_worker_url": f"postgresql://fleet_worker:{worker}@{base}",
        "redis_url": f"redis://fleet-core:{users['core']}@{places.redis}/0",
        "master_key": base64.b64encode(secrets.token_bytes(32)).decode(),
    }
    files = {
        "postgres/password": admin,
        "setup/database_admin_url": f"postgresql://postgres:{admin}@{base}",
        "grafana/admin_password": made.of("grafana"),
        **{f"core/{name}": text for name, text in core.items()},
        **{f"rail-{rail}/redis_url": f"redis://adapter-{rail}:{users[rail]}@{places.redis}/0" for rail in rails},
    }
    for rail in _SHARED:
        if rail in rails:
            shared = made.of(f"provider_{rail}")
            files |= {f"rail-{rail}/provider_secret": shared, f"provider-{rail}/secret": shared}
    written = [path for name, text in files.items() if _write_once(path := home / name, text)]
    # The users follow the rails and this version's rules: the server reads the file when it starts.
    acl = home / "redis" / "users.acl"
    _write(acl, acl_file(users, rails, shards or {}))
    return [*made.written, *written, acl]


def acl_file(passwords: Mapping[str, str], rails: Sequence[str], shards: Mapping[str, int]) -> str:
    """Return the server's ACL file: the core, each rail's adapter, and a user that may only PING."""
    names = [name for rail in rails for name in shards_of(rail, shards.get(rail, 1))]
    adapters = {rail: adapter_rules(rail, shards.get(rail, 1)) for rail in rails}
    lines = [
        "user default off",
        "user health on nopass -@all +ping",
        " ".join(("user fleet-core on", f">{passwords['core']}", *core_rules(names))),
        *(" ".join((f"user adapter-{rail} on", f">{passwords[rail]}", *rules)) for rail, rules in adapters.items()),
    ]
    return "\n".join(lines) + "\n"


class _Passwords:
    """Passwords by name, each kept in a file that only the setup reads."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.written: list[Path] = []

    def of(self, name: str) -> str:
        """Return the password of a name, made at its first use; its letters need no quoting in an URL."""
        path = self._home / f"{name}.password"
        if _write_once(path, secrets.token_urlsafe(24)):
            self.written.append(path)
        return path.read_text()


def _write_once(path: Path, text: str) -> bool:
    if path.exists():
        return False
    _write(path, text)
    return True


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed: a reader never meets half a file, nor a start that was cut off an empty secret.
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    aside.write_text(text)
    aside.chmod(_READABLE)
    aside.rename(path)
