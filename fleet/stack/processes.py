"""How a child process is started so that it cannot outlive the process that started it, and where it is reached."""

import atexit
import ctypes
import os
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


def free_port() -> int:
    """Return a loopback TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
