"""A circuit breaker: while a provider's operation fails, calls to it are not begun. Pure but for the clock.

CLOSED counts the last calls; where too many of them failed it is OPEN for a while, which doubles each time up to a
cap; then HALF_OPEN admits a few probes, which close it or open it again. What was admitted before it turned says
nothing about the provider of now, so each call carries the ticket that it was admitted under.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum


class BreakerState(IntEnum):
    """The states, in the order of their numbers in `fleet_breaker_state`."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When it opens and for how long. Durations are seconds."""

    window_s: float = 10.0
    """Calls that ended within this long (and no less than half of it) count."""
    least_calls: int = 10
    failed_percent: int = 50
    open_s: float = 2.0
    open_most_s: float = 60.0
    probes: int = 3
    """How many calls are tried while half open, and how many must succeed to close it."""


class Breaker:
    """Guards one operation of a provider. Not safe across threads: an event loop owns it."""

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._own, self._clock = settings, clock
        self._ticket = 0
        self._opened = 0
        self._closes_at_s = 0.0
        self._state = BreakerState.CLOSED
        self._since_s = clock()
        self._ended, self._failed = [0, 0], [0, 0]
        self._probing = self._proven = 0

    @property
    def state(self) -> BreakerState:
        """The state now: OPEN turns HALF_OPEN by time alone."""
        if self._state is BreakerState.OPEN and self._clock() >= self._closes_at_s:
            self._turn(BreakerState.HALF_OPEN)
        return self._state

    @property
    def reopens_in_s(self) -> float:
        """Seconds until probes are admitted; 0 where calls are."""
        return max(0.0, self._closes_at_s - self._clock()) if self.state is BreakerState.OPEN else 0.0

    def admit(self) -> int | None:
        """Return a ticket for one call, or None where it may not begin. Each ticket is recorded or returned."""
        state = self.state
        if state is BreakerState.CLOSED:
            return self._ticket
        if state is BreakerState.OPEN or self._probing + self._proven >= self._own.probes:
            return None
        self._probing += 1
        return self._ticket

    def unused(self, ticket: int) -> None:
        """The call was not made after all."""
        if ticket == self._ticket and self._state is BreakerState.HALF_OPEN:
            self._probing = max(0, self._probing - 1)

    def record(self, ticket: int, *, failed: bool) -> None:
        """Count the end of a call; `failed` says that the provider did not work, never that it said no."""
        if ticket != self._ticket:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._probing = max(0, self._probing - 1)
            if failed:
                self._open()
                return
            self._proven += 1
            if self._proven >= self._own.probes:
                self._opened = 0
                self._turn(BreakerState.CLOSED)
            return
        self._age()
        self._ended[0] += 1
        self._failed[0] += failed
        ended, broken = sum(self._ended), sum(self._failed)
        if failed and ended >= self._own.least_calls and broken * 100 >= ended * self._own.failed_percent:
            self._open()

    def _open(self) -> None:
        own = self._own
        wait_s = min(own.open_most_s, own.open_s * 2.0 ** min(self._opened, 16))
        self._opened += 1
        # Instances that saw the same failure must not probe in the same instant.
        self._closes_at_s = self._clock() + wait_s * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
        self._turn(BreakerState.OPEN)

    def _turn(self, state: BreakerState) -> None:
        self._state = state
        self._ticket += 1
        self._since_s = self._clock()
        self._ended, self._failed = [0, 0], [0, 0]
        self._probing = self._proven = 0

    def _age(self) -> None:
        """Two halves of the window: the newer one counts on, the older one is dropped whole."""
        half_s, passed_s = self._own.window_s / 2, self._clock() - self._since_s
        if passed_s < half_s:
            return
        stays = passed_s < 2 * half_s
        self._ended = [0, self._ended[0] if stays else 0]
        self._failed = [0, self._failed[0] if stays else 0]
        self._since_s = self._clock()
