"""What the embedded servers have in common: one process, which ends by a signal and starts again where it was."""

import signal
import subprocess
from abc import ABC, abstractmethod
from typing import ClassVar


class EmbeddedServer(ABC):
    """One server's process, on a port and on data that it keeps."""

    _ends_by: ClassVar[tuple[signal.Signals, signal.Signals]]
    """What asks the server to end, and what ends it at once."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id. Raises RuntimeError where it does not run."""
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} is not running")
        return self._process.pid

    @abstractmethod
    def start(self, timeout_s: float = 30) -> None:
        """Start the server and wait until it answers. Raises RuntimeError with the end of its log otherwise."""

    def exit_code(self) -> int | None:
        """Return what the server ended with, a signal as a negative number; None while it runs or was not started."""
        return None if self._process is None else self._process.poll()

    def stop(self, grace_s: float = 15) -> None:
        """Ask the server to end; end it at once after `grace_s`. Harmless when not running."""
        if self._process is None:
            return
        if self._process.poll() is None:
            politely, at_once = self._ends_by
            self._process.send_signal(politely)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._process.send_signal(at_once)
                self._process.wait(grace_s)
        self._process = None

    def restart(self) -> None:
        """Stop and start on the same port: what clients see is a server that went away and came back."""
        self.stop()
        self.start()
