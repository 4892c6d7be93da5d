"""The whole loop behind PgBouncer in transaction mode, by the configuration that is shipped."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.store.database import Database
from fleet.client import FleetClient
from fleet.stack.account import account_of_servers
from fleet.stack.postgres import EmbeddedPostgres
from fleet.stack.processes import free_port
from fleet.stack.provision import Secrets
from fleet.stack.stack import StackPlan, running
from tests.chaos.conftest import Fleet, check
from tests.support.servers import scratch_directory

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.long, pytest.mark.timeout(300), pytest.mark.needs("pgbouncer")]


@contextmanager
def pgbouncer(server_port: int, kept: Secrets) -> Iterator[tuple[int, Path]]:
    """Run PgBouncer before a server; yield its port and its log."""
    with scratch_directory() as folder:
        port = free_port()
        shipped = (ROOT / "deploy" / "pgbouncer" / "pgbouncer.ini").read_text()
        own = re.sub(
            r"port=5432", f"port={server_port}", re.sub(r"(?m)^listen_port = .*", f"listen_port = {port}", shipped)
        )
        (folder / "pgbouncer.ini").write_text(own)
        users = {"fleet_app": kept.app_password, "fleet_worker": kept.worker_password}
        (folder / "userlist.txt").write_text("".join(f'"{name}" "{word}"\n' for name, word in users.items()))
        user = account_of_servers()
        if user is not None:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, user)
        with (folder / "pgbouncer.log").open("wb") as log:
            process = subprocess.Popen(
                ["pgbouncer", "pgbouncer.ini"], cwd=folder, user=user, stdout=log, stderr=log
            )  # fmt: skip
        try:
            yield port, folder / "pgbouncer.log"
        finally:
            process.terminate()
            process.wait(20)


async def test_the_whole_loop_runs_behind_a_transaction_pooler() -> None:
    with tempfile.TemporaryDirectory(prefix="fleet-pool-") as name:
        home = Path(name)
        # Its port and the passwords are made once and kept: the stack finds them.
        first = EmbeddedPostgres(home / "postgres")
        first.start()
        first.stop()
        kept = Secrets.load_or_create(home / "secrets.json")
        with pgbouncer(int((home / "postgres" / "port").read_text()), kept) as (port, log):
            through = f"postgresql://{{}}:{{}}@127.0.0.1:{port}/fleet"
            env = {
                "DATABASE_URL": through.format("fleet_app", kept.app_password),
                "DATABASE_WORKER_URL": through.format("fleet_worker", kept.worker_password),
                "FLEET_DB_STATEMENT_CACHE": "0",
            }
            plan = StackPlan(home, rails={"promptpay": 1}, core_env=env, provider_latency_ms=20)
            async with running(plan) as stack:
                info = stack.info
                database = await Database.connect(info.database_url, max_size=2)
                async with FleetClient(info.public_url, info.key_id, info.key_secret) as client:
                    fleet = Fleet(stack, client, database)
                    await check(fleet, await fleet.pay(60, refused=True), 60, refused=True)
                await database.close()
            said = log.read_text()
        assert all(re.search(rf"login attempt: db=fleet user={user}", said) for user in ("fleet_app", "fleet_worker"))
        assert "prepared statement" not in said
