"""What the runtime counts. Labels are closed enums, never ids or a provider's raw codes."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

PERMITS: Final = Counter("fleet_permits_total", "Answers to permit requests.", ["rail", "answer"])
CALLS: Final = Counter("fleet_provider_calls_total", "Provider calls by what they said.", ["rail", "action", "outcome"])
CALL_SECONDS: Final = Histogram(
    "fleet_provider_call_seconds",
    "Duration of provider calls.",
    ["rail", "action"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)
VIOLATIONS: Final = Counter("fleet_protocol_violations_total", "Answers that make no sense.", ["rail"])
DEAD_LETTERS: Final = Counter("fleet_dead_letters_total", "Jobs given up.", ["rail", "error_class"])
DELETED: Final = Counter("fleet_entries_deleted_pending_total", "Entries deleted while pending.", ["rail", "stream"])
EVIDENCE_LATE: Final = Counter("fleet_evidence_late_total", "Evidence that the core did not take in time.", ["rail"])
EVIDENCE_DROPPED: Final = Counter("fleet_evidence_dropped_total", "Evidence given up: the bound was reached.", ["rail"])
CORE_UNREACHABLE: Final = Counter("fleet_core_unreachable_total", "Permit requests without an answer.", ["rail"])
BREAKER: Final = Gauge("fleet_breaker_state", "0 closed, 1 half open, 2 open.", ["rail", "operation", "kind"])
CONCURRENCY: Final = Gauge("fleet_concurrency_limit", "Calls that may run at once.", ["rail", "lane"])
RATE_WAITS: Final = Counter("fleet_rate_waits_total", "Calls put off by the provider's rate limit.", ["rail"])
