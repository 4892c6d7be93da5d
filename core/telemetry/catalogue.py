"""The core's metrics: every name here is set by running code. Labels are closed sets, never ids."""

from typing import Final

from prometheus_client import Counter, Gauge

PERMITS: Final = Counter("fleet_permits_answered_total", "Permit answers.", ["rail", "answer"])
DISPATCHED: Final = Counter("fleet_dispatched_total", "Entries that the relay added.", ["rail", "stream"])
VERDICTS: Final = Counter("fleet_verdicts_received_total", "Results that were committed.", ["rail", "verdict"])
UNUSABLE: Final = Counter("fleet_results_unusable_total", "Results that the core kept but could not use.", ["rail"])
DEAD_LETTERS: Final = Counter("fleet_dead_letters_received_total", "Dead letters that were committed.", ["rail"])
SWEPT: Final = Counter("fleet_jobs_swept_total", "Jobs put back because their entry was lost.", ["rail"])

OUTBOX_DEPTH: Final = Gauge("fleet_outbox_depth", "Jobs that wait for a stream.", ["stream"])
OUTBOX_AGE: Final = Gauge("fleet_outbox_oldest_due_seconds", "How long the oldest due job has been due.", ["stream"])
UNRESOLVED: Final = Gauge("fleet_intents_parked", "Intents that wait for a person.")
UNRESOLVED_AGE: Final = Gauge("fleet_intents_parked_oldest_seconds", "How long the oldest has waited.")
IN_REVIEW: Final = Gauge("fleet_intents_in_review", "Intents that wait, held, for a decision.")
ALERTS_OPEN: Final = Gauge("fleet_alerts_open", "Alerts that nobody closed.", ["severity"])
DEAD_LETTERS_OPEN: Final = Gauge("fleet_dead_letters_open", "Dead letters that nobody settled.", ["rail"])
ENTRIES_PARKED: Final = Gauge("fleet_entries_parked", "Entries that nobody can read yet.", ["stream"])
BACKLOG: Final = Gauge("fleet_stream_backlog", "Lag and pending of a stream's group.", ["stream", "group"])
LAG_UNKNOWN: Final = Gauge("fleet_stream_lag_unknown", "1 where the server cannot tell the lag.", ["stream", "group"])
GATE_CLOSED: Final = Gauge("fleet_gate_closed", "1 where nothing more may be added.", ["stream"])
