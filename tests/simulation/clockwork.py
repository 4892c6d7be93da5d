"""Virtual time: an event loop without I/O whose clock leaps to the next timer. One seed, one order of events."""

import asyncio
from typing import Any


class NothingLeftError(RuntimeError):
    """Every task waits for something that no timer will bring about."""


class _Leap:
    """What the loop asks for events: there are none, so time passes instead."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout_s: float | None) -> list[Any]:
        if timeout_s is None:
            raise NothingLeftError("every task waits and no timer is set")
        self._loop.elapsed_s += timeout_s
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs coroutines; `time()` is virtual seconds since the start."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_s = 0.0
        self._selector = _Leap(self)

    def time(self) -> float:
        """Return virtual seconds since the start."""
        return self.elapsed_s

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """No other thread wakes this loop."""
