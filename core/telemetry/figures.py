"""Shows what the observer read in the database: a figure that is gone is gone from /metrics too."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Gauge

from core.telemetry import catalogue

_LABELS: Final[dict[str, tuple[Gauge, int]]] = {
    "outbox_depth": (catalogue.OUTBOX_DEPTH, 1),
    "outbox_age": (catalogue.OUTBOX_AGE, 1),
    "holds": (catalogue.HOLDS, 1),
    "hold_age": (catalogue.HOLD_AGE, 1),
    "parked": (catalogue.UNRESOLVED, 0),
    "parked_age": (catalogue.UNRESOLVED_AGE, 0),
    "in_review": (catalogue.IN_REVIEW, 0),
    "alerts_open": (catalogue.ALERTS_OPEN, 2),
    "dead_letters_open": (catalogue.DEAD_LETTERS_OPEN, 1),
    "dead_letter_age": (catalogue.DEAD_LETTER_AGE, 1),
    "entries_parked": (catalogue.ENTRIES_PARKED, 1),
    "rail_paused": (catalogue.RAIL_PAUSED, 1),
    "rail_waiting": (catalogue.RAIL_WAITING, 2),
    "registers_awaited": (catalogue.REGISTERS_AWAITED, 1),
    "registers_awaited_age": (catalogue.REGISTERS_AWAITED_AGE, 1),
    "breaks_open": (catalogue.BREAKS_OPEN, 1),
    "break_age": (catalogue.BREAK_AGE, 1),
    "database_bytes": (catalogue.DATABASE_BYTES, 0),
}
"""Figure -> its gauge and how many labels that has."""


def show_figures(figures: Iterable[tuple[str, str, str, float]]) -> None:
    """Set every gauge to what was read."""
    for gauge, labels in _LABELS.values():
        if labels:
            gauge.clear()
    for figure, first, second, value in figures:
        gauge, labels = _LABELS[figure]
        (gauge.labels(*(first, second)[:labels]) if labels else gauge).set(value)
    catalogue.OBSERVED.set_to_current_time()


def show_imbalance(figures: Iterable[tuple[str, str, str, float]]) -> None:
    """Set the imbalance of each ledger."""
    for _, ledger, _, value in figures:
        catalogue.IMBALANCE.labels(ledger).set(value)
