"""Whether the loops of this process still turn: each beats at every step, and a silent one is found by its age."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from prometheus_client import Gauge, Histogram

HEARTBEAT: Final = Gauge("fleet_loop_heartbeat_timestamp_seconds", "When a loop last began a step.", ["loop"])
LOOP_LAG: Final = Histogram(
    "fleet_event_loop_lag_seconds",
    "How late the event loop woke a task.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
STALLED_AFTER_S: Final = 300.0
"""No step takes this long: every call in it has a time-out of its own."""


@dataclass(slots=True)
class Beat:
    """One loop's last sign of life, by a clock that nobody sets."""

    loop: str
    at_s: float

    def beat(self) -> None:
        """Note that the loop begins a step, whether or not the step will succeed."""
        self.at_s = time.monotonic()
        HEARTBEAT.labels(self.loop).set_to_current_time()


class Pulse:
    """Every loop of a process. Several may share a name: the slowest of them counts."""

    def __init__(self) -> None:
        self._beats: list[Beat] = []

    def start(self, loop: str) -> Beat:
        """Follow a loop from now on."""
        beat = Beat(loop, time.monotonic())
        beat.beat()
        self._beats.append(beat)
        return beat

    def end(self, beat: Beat) -> None:
        """Follow a loop no longer: it was told to stop."""
        self._beats.remove(beat)

    def stalled(self, after_s: float = STALLED_AFTER_S) -> list[str]:
        """Return the loops that have not begun a step for so long; none: the process is alive."""
        before_s = time.monotonic() - after_s
        return sorted({beat.loop for beat in self._beats if beat.at_s < before_s})


PULSE: Final = Pulse()
"""The pulse of this process."""


async def watch_event_loop(every_s: float = 1.0) -> None:
    """Beat for the event loop itself, and measure how late it wakes us, until cancelled."""
    beat = PULSE.start("event loop")
    try:
        while True:
            beat.beat()
            due_s = time.monotonic() + every_s
            await asyncio.sleep(every_s)
            LOOP_LAG.observe(max(0.0, time.monotonic() - due_s))
    finally:
        PULSE.end(beat)
