"""One measured figure, how busy the machine was with other work while it was taken, and how fast it was."""

import os
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import psutil

_LOOPS, _TURNS = 3, 500_000


@dataclass(frozen=True, slots=True)
class Measurement:
    """A figure beside its goal; `met` is None where there is no goal."""

    name: str
    value: float
    unit: str
    goal: str
    met: bool | None

    def as_object(self) -> dict[str, Any]:
        """Return the `--json` form."""
        return asdict(self)


def at_least(name: str, value: float, unit: str, goal: float) -> Measurement:
    """Return a figure that should reach `goal`."""
    return Measurement(name, round(value, 2), unit, f">= {goal:g}", value >= goal)


def at_most(name: str, value: float, unit: str, goal: float) -> Measurement:
    """Return a figure that should stay below `goal`."""
    return Measurement(name, round(value, 2), unit, f"< {goal:g}", value < goal)


def shown(name: str, value: float, unit: str) -> Measurement:
    """Return a figure that stands beside others."""
    return Measurement(name, round(value, 2), unit, "", None)


class Surroundings:
    """Measures, over a block, what else went on: other work, and how fast the machine was before and after it."""

    def __enter__(self) -> Self:
        self._pace_before_ms = _pace_ms()
        self._started, self._busy, self._own = time.monotonic(), _machine_busy_s(), own_cpu_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        others_s = (_machine_busy_s() - self._busy) - (own_cpu_s() - self._own)
        self._busy_share = max(0.0, others_s / (elapsed_s * (os.cpu_count() or 1)))
        self._pace_after_ms = _pace_ms()

    def __str__(self) -> str:
        return (
            f"other work kept {self._busy_share:.0%} of the machine busy meanwhile; "
            f"a fixed loop took {self._pace_before_ms:.0f} ms before, {self._pace_after_ms:.0f} ms after"
        )

    def figures(self, section: str) -> list[Measurement]:
        """Return them as figures of the section: 0 % is an idle machine, a shorter loop a faster one."""
        return [
            shown(f"{section}: machine busy with other work", self._busy_share * 100, "%"),
            shown(f"{section}: a fixed loop before", self._pace_before_ms, "ms"),
            shown(f"{section}: a fixed loop after", self._pace_after_ms, "ms"),
        ]


def _pace_ms() -> float:
    # A virtual machine's cores are slower while others use the same silicon, which no share of busy time shows.
    return min(_loop_ms() for _ in range(_LOOPS))


def _loop_ms() -> float:
    started, total = time.perf_counter(), 0
    for number in range(_TURNS):
        total += number & 7
    return (time.perf_counter() - started) * 1000


def _machine_busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "irq", 0) + getattr(times, "softirq", 0))


def own_cpu_s() -> float:
    """Return the CPU seconds of this process and of everything it started, ended children included."""
    me = psutil.Process()
    total = sum(me.cpu_times()[:4])
    for child in me.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return float(total)
