"""How a child process is started so that it cannot outlive the process that started it."""

import ctypes
import signal
import socket
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


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
