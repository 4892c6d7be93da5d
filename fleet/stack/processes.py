"""How a child process is started so that it cannot outlive the process that started it, and where it is reached."""

import atexit
import contextlib
import ctypes
import itertools
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_SOCKET_PATH_BYTES = 104
"""What every system allows for the path of a socket: macOS 104 with its end, Linux 108."""
_OPEN_FILES = 4_096
_SERVER_PORTS = range(15_000, 30_000)
_FIRST_PORT = random.randrange(len(_SERVER_PORTS))  # noqa: S311  no secret: two processes begin at different places
_next_port = itertools.cycle((*_SERVER_PORTS[_FIRST_PORT:], *_SERVER_PORTS[:_FIRST_PORT]))
_SOCKET_NAME_BYTES = len("/.s.PGSQL.65535.lock")


def die_with_parent(signal_number: int = signal.SIGTERM) -> Callable[[], None] | None:
    """Return a `preexec_fn` that ties a child's life to its parent's, or None where the system cannot do it.

    Linux delivers the signal when the *thread* that forked ends, so children are started from the main thread only.
    """
    if not sys.platform.startswith("linux"):
        return None
    # Resolved before the fork: between fork and exec nothing may be imported or allocated that needs a lock.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)

    return arm


def allow_open_files() -> None:
    """Let this process and its children have 4,096 files and sockets open, or as many as the system lets them.

    macOS starts every process with 256: a server of payments with its pools and some hundred connections needs more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def free_port() -> int:
    """Return a loopback TCP port that nobody uses now; a process gets none twice before it has had them all.

    Below what any system gives to outgoing connections: one of those would else take it before its server does.
    """
    for _ in _SERVER_PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", next(_next_port)))
            return int(probe.getsockname()[1])
    raise OSError(f"every port from {_SERVER_PORTS[0]} to {_SERVER_PORTS[-1]} is in use")


class SocketHome:
    """Where a server keeps its socket: its own directory, or a short one where the system's limit forbids that."""

    def __init__(self, home: Path) -> None:
        self.path = home
        self._made = len(os.fsencode(home.absolute())) + _SOCKET_NAME_BYTES < _SOCKET_PATH_BYTES

    def make(self, owner: str | None = None) -> None:
        """Make the short directory unless it is there, for as long as this process lives; it becomes the owner's."""
        if self._made:
            return
        self.path, self._made = Path(tempfile.mkdtemp(prefix="fleet-")), True
        atexit.register(shutil.rmtree, self.path, ignore_errors=True)
        if owner is not None:
            shutil.chown(self.path, owner)
