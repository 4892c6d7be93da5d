"""Named points at which a test may kill or stop the process, so that each step of the protocol is attacked.

`FLEET_FAILPOINTS` arms from the start: `relay.after_xadd=kill,adapter.during_call=stop@3` (third hit).
`FLEET_FAILPOINTS_DIR` lets a test arm a running process: a file named as the point whose text is `kill`,
`stop` or `kill@3`; the file is removed when it fires, so that the restarted process lives.
Without either variable a failpoint costs one look at a global.
"""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Final

_SIGNALS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class FailpointError(ValueError):
    """An arming text that is neither `kill` nor `stop`, with an optional `@n`."""


class Failpoints:
    """The armed points of one process and how often each was reached."""

    def __init__(self, armed: str = "", directory: str = "") -> None:
        self._armed = dict(_parse(item) for item in armed.split(",") if item.strip())
        self._directory = Path(directory) if directory else None
        self._hits: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._armed) or self._directory is not None

    def due(self, name: str) -> signal.Signals | None:
        """Count a hit of `name` and return the signal that is due now, if any."""
        self._hits[name] += 1
        action = self._armed.get(name) or self._armed_by_file(name)
        if action is None:
            return None
        sent, at_hit = action
        if self._hits[name] < at_hit:
            return None
        self._disarm(name)
        return sent

    def _armed_by_file(self, name: str) -> tuple[signal.Signals, int] | None:
        if self._directory is None:
            return None
        try:
            text = (self._directory / name).read_text()
        except FileNotFoundError:
            return None
        return _parse(f"{name}={text.strip()}")[1]

    def _disarm(self, name: str) -> None:
        self._armed.pop(name, None)
        if self._directory is not None:
            (self._directory / name).unlink(missing_ok=True)


def _parse(item: str) -> tuple[str, tuple[signal.Signals, int]]:
    name, _, action = item.strip().partition("=")
    verb, _, hit = action.partition("@")
    if verb not in _SIGNALS or not (hit.isdecimal() or not hit):
        raise FailpointError(f"failpoint {item!r} is not NAME=kill, NAME=stop or NAME=kill@N")
    return name, (_SIGNALS[verb], int(hit or 1))


class _Process:
    """The failpoints of this process, read from the environment on first use, never at import."""

    failpoints: Failpoints | None = None


def failpoint(name: str) -> None:
    """Do nothing, unless a test armed `name`: then send this process the signal."""
    points = _of_this_process()
    if points and (sent := points.due(name)) is not None:
        os.kill(os.getpid(), sent)


def may_fire() -> bool:
    """Whether a test may arm points of this process at all: what only serves them can be left out otherwise."""
    return bool(_of_this_process())


def _of_this_process() -> Failpoints:
    points = _Process.failpoints
    if points is None:
        environ = os.environ
        points = Failpoints(environ.get("FLEET_FAILPOINTS", ""), environ.get("FLEET_FAILPOINTS_DIR", ""))
        _Process.failpoints = points
    return points
