"""Writes docs/metrics.md from the metrics that the processes register.

python -m tools.metrics [--check]    write it, or exit 1 where it is not what would be written
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

import adapters.runtime.app
import core.__main__

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "metrics.md"
PROCESSES: Final = (
    core.__main__,
    adapters.runtime.app,
    *(import_module(f"adapters.{each.parent.name}.adapter") for each in sorted(ROOT.glob("adapters/*/adapter.py"))),
)
"""Whose imports register every metric there is: the core, the runtime and each rail."""
SUFFIXES: Final = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}

_HEAD: Final = """# Metrics

Generated from the code by `python -m tools.metrics`; `./dev check` compares them. Every process answers `/metrics`;
which port, and what `/healthz` and `/readyz` say, is in [deployment.md](deployment.md). Labels are closed sets: never
an id, a name of a person, or a provider's raw code. Seconds, bytes and minor units stand in the names. What the
observer reads is shown by each resolver alike: take the largest. Beside these each process shows what the Python
client does (`process_cpu_seconds_total`, `process_resident_memory_bytes`).

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def declared() -> dict[str, MetricWrapperBase]:
    """Return every metric of ours by its name, as a query names it less `_bucket`, `_sum` and `_count`."""
    registered = REGISTRY._collector_to_names  # noqa: SLF001  the library lists them nowhere else
    metrics = [each for each in registered if isinstance(each, MetricWrapperBase)]
    named = {_name(metric) + ("_total" if isinstance(metric, Counter) else ""): metric for metric in metrics}
    return {name: named[name] for name in sorted(named) if name.startswith("fleet_")}


def series() -> dict[str, frozenset[str]]:
    """Return each series that a query may name, with the labels that it carries."""
    found: dict[str, frozenset[str]] = {}
    for metric in declared().values():
        for suffix in SUFFIXES[type(metric)]:
            labels = frozenset(labels_of(metric))
            found[_name(metric) + suffix] = labels | {"le"} if suffix == "_bucket" else labels
    return found


def labels_of(metric: MetricWrapperBase) -> tuple[str, ...]:
    """Return the names of a metric's labels."""
    return tuple(metric._labelnames)  # noqa: SLF001  the library tells them nowhere else


def _name(metric: MetricWrapperBase) -> str:
    return str(metric._name)  # noqa: SLF001  the library tells it nowhere else


def page() -> str:
    """Return the page."""
    rows = [
        f"| `{name}` | {type(metric).__name__.lower()} | {', '.join(f'`{label}`' for label in labels_of(metric))}"
        f" | {metric._documentation} |\n"  # noqa: SLF001  the library tells it nowhere else
        for name, metric in declared().items()
    ]
    return _HEAD + "".join(rows)


def main() -> int:
    """Write or compare."""
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        print("docs/metrics.md is not what the code declares: python -m tools.metrics")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
