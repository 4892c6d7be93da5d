"""A database for one measurement: on the server that `DATABASE_URL` names, or on an embedded one of its own."""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet.stack.postgres import EmbeddedPostgres
from fleet.stack.provision import RoleUrls, Secrets, create_database, provision


@dataclass(frozen=True, slots=True)
class BenchDatabase:
    """A provisioned database, and a folder that goes when the measurement ends."""

    urls: RoleUrls
    home: Path
    secrets: Secrets


@asynccontextmanager
async def bench_database(name: str) -> AsyncIterator[BenchDatabase]:
    """Provision a database called `name` with roles and schema; an embedded server ends with the block."""
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder:
        home, server = Path(folder), None
        admin_url = os.environ.get("DATABASE_URL", "")
        if not admin_url:
            server = EmbeddedPostgres(home / "postgres")
            server.start()
            admin_url = server.admin_url
        try:
            kept = Secrets.load_or_create(home / "secrets.json")
            yield BenchDatabase(await provision(await create_database(admin_url, name), kept), home, kept)
        finally:
            if server is not None:
                server.stop()
