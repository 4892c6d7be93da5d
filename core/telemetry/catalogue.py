"""The core's metrics: every name here is set by running code. Labels are closed sets, never ids.

The adapters' are in `adapters/runtime/metrics.py`, what every process has in `wire/pulse.py` and `wire/consumer.py`.
docs/metrics.md lists all of them.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_STREAM: Final = ["stream", "group"]

PERMITS: Final = Counter("fleet_permits_answered_total", "Permit answers.", ["rail", "answer"])
DISPATCHED: Final = Counter("fleet_dispatched_total", "Entries that the relay added.", ["rail", "stream"])
VERDICTS: Final = Counter("fleet_verdicts_received_total", "Results that were committed.", ["rail", "verdict"])
UNUSABLE: Final = Counter("fleet_results_unusable_total", "Results that the core kept but could not use.", ["rail"])
DEAD_LETTERS: Final = Counter("fleet_dead_letters_received_total", "Dead letters that were committed.", ["rail"])
SWEPT: Final = Counter("fleet_jobs_swept_total", "Jobs put back because their entry was lost.", ["rail"])
PAYMENT_SECONDS: Final = Histogram(
    "fleet_payment_seconds",
    "From the payment's job to its end, by what the provider said.",
    ["rail", "outcome"],
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900, 3600),
)
PAYMENTS_LATE: Final = Counter(
    "fleet_payments_late_total", "Payments that reached their deadline without an answer.", ["rail", "outcome"]
)
REQUESTS: Final = Counter("fleet_http_requests_total", "Answers of the API.", ["listener", "route", "status"])
REQUEST_SECONDS: Final = Histogram(
    "fleet_http_request_seconds",
    "Duration of requests.",
    ["listener", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
POOL: Final = Gauge("fleet_database_connections", "Connections of a pool.", ["pool", "state"])
SLOW_QUERIES: Final = Counter("fleet_slow_statements_total", "Statements that took longer than the setting.", ["pool"])
WEBHOOKS: Final = Counter("fleet_webhook_attempts_total", "Webhooks that were sent, by what came of it.", ["outcome"])
STRANDED: Final = Counter(
    "fleet_stranded_total", "What stood though nothing would move it, and what the completer did.", ["kind", "outcome"]
)
RECOVERY_SCANNED: Final = Counter("fleet_recovery_intents_scanned_total", "Intents that the completer looked at.")
RECOVERY_WALKS: Final = Counter("fleet_recovery_walks_total", "Walks of the completer that came to their end.")
RECOVERY_LAST_WALK: Final = Gauge(
    "fleet_recovery_last_walk_timestamp_seconds", "When the completer's last walk came to its end."
)
RECOVERY_LAST_WALK_INTENTS: Final = Gauge("fleet_recovery_last_walk_intents", "How many intents that walk looked at.")
RECOVERY_LAST_WALK_SECONDS: Final = Gauge("fleet_recovery_last_walk_seconds", "How long that walk took.")
LINES_COMPARED: Final = Counter(
    "fleet_register_lines_compared_total",
    "Lines of registers that were compared, by what they came to.",
    ["rail", "match"],
)
COMPARISON_SECONDS: Final = Histogram(
    "fleet_register_comparison_seconds",
    "Duration of comparing one day's register with payments and ledger.",
    ["rail"],
    buckets=(0.1, 0.5, 1, 5, 15, 60, 120, 300, 900),
)
GATE_CLOSED: Final = Gauge("fleet_gate_closed", "1 where nothing more may be added.", ["stream"])

# What the observer of a resolver reads, at its own pace: where several run, the largest counts.
OUTBOX_DEPTH: Final = Gauge("fleet_outbox_depth", "Jobs that wait for a stream.", ["stream"])
OUTBOX_AGE: Final = Gauge("fleet_outbox_oldest_due_seconds", "How long the oldest due job has been due.", ["stream"])
HOLDS: Final = Gauge("fleet_holds_open", "Payments that hold money and are not decided.", ["rail"])
HOLD_AGE: Final = Gauge("fleet_hold_oldest_seconds", "How long the oldest of them has been held.", ["rail"])
UNRESOLVED: Final = Gauge("fleet_intents_parked", "Intents that wait for a person.")
UNRESOLVED_AGE: Final = Gauge("fleet_intents_parked_oldest_seconds", "How long the oldest has waited.")
IN_REVIEW: Final = Gauge("fleet_intents_in_review", "Intents that wait, held, for a decision.")
ALERTS_OPEN: Final = Gauge("fleet_alerts_open", "Alerts that nobody closed.", ["severity", "kind"])
DEAD_LETTERS_OPEN: Final = Gauge("fleet_dead_letters_open", "Dead letters that nobody settled.", ["rail"])
DEAD_LETTER_AGE: Final = Gauge("fleet_dead_letters_oldest_seconds", "How long the oldest has been open.", ["rail"])
ENTRIES_PARKED: Final = Gauge("fleet_entries_parked", "Entries that nobody can read yet.", ["stream"])
RAIL_PAUSED: Final = Gauge("fleet_rail_paused", "1 where a person paused the rail.", ["rail"])
RAIL_WAITING: Final = Gauge(
    "fleet_rail_waiting_seconds", "How long the rail, or an operation of it, has waited.", ["rail", "cause"]
)
IMBALANCE: Final = Gauge(
    "fleet_ledger_imbalance_minor", "How far debits and credits of a ledger differ, pending and posted: 0.", ["ledger"]
)
BOOKS_PROVEN: Final = Gauge(
    "fleet_books_proven_timestamp_seconds",
    "When a resolver last proved the whole ledger from its transfers, whatever it found; at first, when it started.",
)
REGISTERS_AWAITED: Final = Gauge(
    "fleet_registers_awaited", "Registers that are expected, were asked for and have not come.", ["rail"]
)
REGISTERS_AWAITED_AGE: Final = Gauge(
    "fleet_registers_awaited_oldest_seconds", "How long ago the first of them was asked for.", ["rail"]
)
BREAKS_OPEN: Final = Gauge("fleet_breaks_open", "Reconciliation breaks that nobody put right.", ["kind"])
BREAK_AGE: Final = Gauge("fleet_breaks_oldest_seconds", "How long ago the oldest of them was found.", ["kind"])
DATABASE_BYTES: Final = Gauge("fleet_database_size_bytes", "Size of the core's database.")
OBSERVED: Final = Gauge("fleet_observed_timestamp_seconds", "When the observer last read everything.")
LAG: Final = Gauge("fleet_stream_lag", "Entries that no consumer has got; absent where it is not known.", _STREAM)
LAG_UNKNOWN: Final = Gauge("fleet_stream_lag_unknown", "1 where the server cannot tell the lag.", _STREAM)
PENDING: Final = Gauge("fleet_stream_pending", "Entries that consumers hold.", _STREAM)
UNFINISHED_AGE: Final = Gauge("fleet_stream_oldest_unfinished_seconds", "Age of the oldest unfinished entry.", _STREAM)
LENGTH: Final = Gauge("fleet_stream_length", "Entries in a stream, finished ones included.", ["stream"])
REDIS_BYTES: Final = Gauge("fleet_redis_memory_bytes", "Memory that the server uses.")


def begin_at_zero(rails: Iterable[str]) -> None:
    """Show what alerts count from 0 on: of a counter that begins at 1, nobody sees that it rose."""
    for rail in rails:
        UNUSABLE.labels(rail)
        DEAD_LETTERS.labels(rail)
        for outcome in ("settled", "failed"):
            PAYMENT_SECONDS.labels(rail, outcome)
        for outcome in ("expired", "unresolved"):
            PAYMENTS_LATE.labels(rail, outcome)
