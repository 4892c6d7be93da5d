"""One measured figure, and how busy the machine was with other work while it was taken."""

import os
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

import psutil


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


class BusyElsewhere:
    """Measures, over a block, the share of the machine that processes outside ours used: 0 is an idle machine."""

    def __enter__(self) -> Self:
        self._started, self._busy, self._own = time.monotonic(), _machine_busy_s(), own_cpu_s()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        others_s = (_machine_busy_s() - self._busy) - (own_cpu_s() - self._own)
        self.share = max(0.0, others_s / (elapsed_s * (os.cpu_count() or 1)))


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
