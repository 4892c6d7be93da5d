"""/metrics of the internal listener: counters of this process, and figures that are read when it is scraped."""

from collections.abc import Sequence
from typing import Final

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from starlette.responses import Response

from core.bootstrap import PASSING_FAULTS, Core
from core.bus.gate import BacklogGate
from core.store.figures import read_figures
from core.telemetry import catalogue

_GAUGES: Final[dict[str, Gauge]] = {
    "outbox_depth": catalogue.OUTBOX_DEPTH,
    "outbox_age": catalogue.OUTBOX_AGE,
    "alerts_open": catalogue.ALERTS_OPEN,
    "dead_letters_open": catalogue.DEAD_LETTERS_OPEN,
    "entries_parked": catalogue.ENTRIES_PARKED,
}
_SINGLE: Final[dict[str, Gauge]] = {
    "parked": catalogue.UNRESOLVED,
    "parked_age": catalogue.UNRESOLVED_AGE,
    "in_review": catalogue.IN_REVIEW,
}


def install_metrics(app: FastAPI, core: Core, gates: Sequence[BacklogGate]) -> None:
    """Add /metrics, unsigned. While the database is away its figures are absent, the rest is served."""

    async def metrics() -> Response:
        for gauge in _GAUGES.values():
            gauge.clear()
        try:
            figures = await read_figures(core.worker_database)
        except PASSING_FAULTS:
            figures = []
        for figure, label, value in figures:
            if figure in _GAUGES:
                _GAUGES[figure].labels(label).set(value)
            else:
                _SINGLE[figure].set(value)
        for gate in gates:
            await _show(gate)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    app.add_api_route("/metrics", metrics, include_in_schema=False)


async def _show(gate: BacklogGate) -> None:
    closed = await gate.room() <= 0
    catalogue.GATE_CLOSED.labels(gate.stream).set(closed)
    catalogue.LAG_UNKNOWN.labels(gate.stream, gate.group).set(gate.lag_unknown)
    if gate.backlog is None:
        catalogue.BACKLOG.remove(gate.stream, gate.group)
    else:
        catalogue.BACKLOG.labels(gate.stream, gate.group).set(gate.backlog)
