"""The console of a one-machine stack: its process, and the first admin, whose password a file remembers."""

import json
import os
import secrets
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from core.services.access.people import PeopleService
from core.store.access.people import StoredPeople
from core.store.database import Database
from core.store.on_call.audit import AuditStore
from fleet.stack.provision import RoleUrls
from fleet.stack.supervisor import ChildSpec

CONSOLE = "core-console"
ADMIN = "admin"


async def first_admin(path: Path, urls: RoleUrls) -> str:
    """Make the first admin where the console has nobody; return the password, or an empty text where it is not ours."""
    kept = _read(path)
    password = kept.get("password") or secrets.token_urlsafe(18)
    database = await Database.connect(urls.worker, max_size=2, application_name="fleet-stack")
    try:
        unused = timedelta(0)
        service = PeopleService(database.unit_of_work, StoredPeople(), AuditStore(), idle=unused, longest=unused)
        made = await service.first_admin("stack", ADMIN, password)
    finally:
        await database.close()
    if made:
        _write(path, {"name": ADMIN, "password": password})
        return password
    return kept.get("password", "")


def _read(path: Path) -> dict[str, str]:
    kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return kept


def _write(path: Path, kept: Mapping[str, str]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(kept, file)


def console_process(env: Mapping[str, str], port: int) -> ChildSpec:
    """Return the process of the console, beside the core's others."""
    more = {"FLEET_CONSOLE_PORT": str(port), "FLEET_CONSOLE_URL": f"http://127.0.0.1:{port}"}
    return ChildSpec(CONSOLE, (sys.executable, "-m", "core", "console"), {**env, **more})
