"""How many calls a provider gets at once: fewer while it strains, slowly more while it does not. Pure but the clock.

Additive increase, multiplicative decrease. Strain is a refusal for being asked too much, a fifth of the last calls
failing, or calls that take twice as long as that kind of call usually does: a provider that is always slow is not
strained, one that becomes slower is, until it has been so for long. Two means of the same calls are compared: one whose
answers vary, as most do, is no slower than itself.
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

_CUT: Final = 0.8
_SLOWER: Final = 2.0
_NOISE_S: Final = 0.05
"""Differences below this are the machine's, not the provider's."""
_FAILING: Final = 0.2
_USUAL_CALLS: Final = 100
_RECENT_CALLS: Final = 20
"""How many calls each mean is of, by weights that fall."""


@dataclass(slots=True)
class _Pace:
    usual_s: float = 0.0
    recent_s: float = 0.0
    calls: int = 0


class AdaptiveLimit:
    """A number of concurrent calls between `least` and `most`; it begins at `most`."""

    def __init__(self, least: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._least, self._most, self._clock = max(1, min(least, most)), most, clock
        self._limit = float(most)
        self._paces: dict[Hashable, _Pace] = {}
        self._failing = 0.0
        self._cut_again_at_s = 0.0

    @property
    def now(self) -> int:
        """The limit of now."""
        return max(self._least, int(self._limit))

    def record(self, kind: Hashable, elapsed_s: float, *, failed: bool, throttled: bool, in_flight: int) -> None:
        """Learn from one call that took `elapsed_s`, while `in_flight` calls were running."""
        self._failing += ((1.0 if failed else 0.0) - self._failing) * 0.1
        strained = throttled or self._failing >= _FAILING or (not failed and self._slower(kind, elapsed_s))
        now_s = self._clock()
        if strained:
            if now_s >= self._cut_again_at_s:
                self._limit = max(float(self._least), self._limit * _CUT)
                # What is in flight was begun under the old limit: it is cut once for all of them.
                self._cut_again_at_s = now_s + max(elapsed_s, 0.1)
        elif not failed and in_flight * 2 >= self.now:
            self._limit = min(float(self._most), self._limit + 1.0 / self._limit)

    def _slower(self, kind: Hashable, elapsed_s: float) -> bool:
        pace = self._paces.setdefault(kind, _Pace())
        pace.calls += 1
        pace.usual_s += (elapsed_s - pace.usual_s) / min(pace.calls, _USUAL_CALLS)
        pace.recent_s += (elapsed_s - pace.recent_s) / min(pace.calls, _RECENT_CALLS)
        return pace.recent_s > _SLOWER * pace.usual_s + _NOISE_S
