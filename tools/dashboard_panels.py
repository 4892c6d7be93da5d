"""What the dashboards show: each panel's question, its query and its unit. `tools/dashboards.py` draws them."""

from dataclasses import dataclass
from typing import Final, Literal

Unit = Literal["short", "s", "percentunit", "bytes", "reqps", "dateTimeFromNow"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One question. Queries are (PromQL, legend); a `single` figure turns red from `red_from` on."""

    title: str
    says: str
    queries: tuple[tuple[str, str], ...]
    unit: Unit = "short"
    single: bool = False
    red_from: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `by_rail` lets its reader choose the rail, which its queries name as $rail."""

    file: str
    uid: str
    title: str
    says: str
    rows: tuple[Row, ...]
    by_rail: bool = False


def _figure(title: str, says: str, query: str, unit: Unit = "short", red_from: float | None = 1) -> Panel:
    return Panel(title, says, ((query, ""),), unit, single=True, red_from=red_from)


_NONE: Final = " or vector(0)"


def _or_none(query: str) -> str:
    """What was never counted is none, and not unknown."""
    return f"({query}){_NONE}"


def bare(query: str) -> str:
    """Return a panel's query without the nought that stands for nothing counted: with that none is ever empty."""
    return query.removesuffix(_NONE)


def _quantiles(metric: str, by: str, where: str = "") -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket{where}[5m])))",
            f"p{int(share * 100)} {{{{{by}}}}}",
        )
        for share in (0.5, 0.95, 0.99)
    )


_PAYMENTS: Final = Board(
    "payments",
    "fleet-payments",
    "Payments",
    "Is the money safe, is work stuck, how many and how fast.",
    (
        Row(
            "Is the money safe",
            (
                _figure("Ledgers out of balance", "In minor units; anything but 0 wakes somebody.",
                        "max(fleet_ledger_imbalance_minor)"),
                _figure("Without an answer at the deadline", "Held; a person decides, with the provider's evidence.",
                        "max(fleet_intents_parked)"),
                _figure("Alerts that wake", "Open alerts of severity page.",
                        _or_none('sum(max by (kind) (fleet_alerts_open{severity="page"}))')),
                _figure("Results nobody can use", "Within the last hour.",
                        _or_none("sum(increase(fleet_results_unusable_total[1h]))")),
                _figure("Waiting for a decision", "Payments in REVIEW, held.", "max(fleet_intents_in_review)",
                        red_from=None),
                _figure("Held now", "Payments whose money is held and not decided.",
                        _or_none("sum(max by (rail) (fleet_holds_open))"), red_from=None),
            ),
        ),
        Row(
            "Is work stuck",
            (
                Panel("Oldest due job outside its stream", "Above a minute the outbox is stuck.",
                      ((_or_none("max(fleet_outbox_oldest_due_seconds)"), "oldest"),), "s"),
                Panel("Oldest unfinished entry", "What somebody was given, or nobody took yet.",
                      (("max by (stream) (fleet_stream_oldest_unfinished_seconds)", "{{stream}}"),), "s"),
            ),
        ),
        Row(
            "How many, how fast",
            (
                Panel("Payments that ended", "A decline is an end like another.",
                      (("sum by (outcome) (rate(fleet_payment_seconds_count[5m]))", "{{outcome}}"),), "reqps"),
                Panel("From the job to the end", "All rails.", _quantiles("fleet_payment_seconds", "outcome"), "s"),
                Panel("Not ended in time", "Share of payments that took more than a minute, or had no answer.",
                      ((_or_none("fleet:payments_bad:ratio_rate5m"), "5 m"),
                       (_or_none("fleet:payments_bad:ratio_rate1h"), "1 h")), "percentunit"),
                Panel("Requests of the public API", "By route.",
                      (('sum by (route) (rate(fleet_http_requests_total{listener="public"}[5m]))', "{{route}}"),),
                      "reqps"),
                Panel("Answers of the public API", "5xx are failures of ours.",
                      (('sum by (status) (rate(fleet_http_requests_total{listener="public"}[5m]))', "{{status}}"),),
                      "reqps"),
                Panel("Duration of requests", "Public API.",
                      _quantiles("fleet_http_request_seconds", "listener", '{listener="public"}'), "s"),
            ),
        ),
    ),
)  # fmt: skip

_RAIL: Final = Board(
    "rail",
    "fleet-rail",
    "One rail",
    "What a provider answers, how fast, and what waits for it.",
    (
        Row(
            "State",
            (
                _figure("Breaker", "0 closed, 1 half open, 2 open.",
                        _or_none('max(fleet_breaker_state{rail="$rail"})'), red_from=2),
                _figure("Paused", "1 where a person paused the rail.",
                        _or_none('max(fleet_rail_paused{rail="$rail"})')),
                _figure("Held now", "Payments on this rail that hold money.",
                        _or_none('max(fleet_holds_open{rail="$rail"})'), red_from=None),
                _figure("Oldest hold", "How long money has been held.",
                        _or_none('max(fleet_hold_oldest_seconds{rail="$rail"})'), "s", 14400),
                _figure("Dead letters", "Jobs that were given up and that nobody settled.",
                        _or_none('max(fleet_dead_letters_open{rail="$rail"})')),
                _figure("Adapters", "Processes of this rail that are scraped.",
                        'count(count by (instance) (fleet_provider_calls_total{rail="$rail"}))', red_from=None),
            ),
        ),
        Row(
            "Provider",
            (
                Panel("Calls by what they said", "UNKNOWN is a doubt; DECLINED is an end like another.",
                      (('sum by (action, outcome) (rate(fleet_provider_calls_total{rail="$rail"}[5m]))',
                        "{{action}} {{outcome}}"),), "reqps"),
                Panel("Duration of calls", "By action.",
                      _quantiles("fleet_provider_call_seconds", "action", '{rail="$rail"}'), "s"),
                Panel("Doubts", "Share of payments whose answer says nothing certain.",
                      ((_or_none(
                          'sum(rate(fleet_provider_calls_total{rail="$rail",action="submit",outcome="UNKNOWN"}[5m]))'
                          ' / sum(rate(fleet_provider_calls_total{rail="$rail",action="submit"}[5m]))'), "unknown"),),
                      "percentunit"),
                Panel("Calls that may run at once", "Adapts between its bounds.",
                      (('sum by (lane) (fleet_concurrency_limit{rail="$rail"})', "{{lane}}"),)),
            ),
        ),
        Row(
            "Work",
            (
                Panel("Permits", "What the core answered.",
                      (('sum by (answer) (rate(fleet_permits_answered_total{rail="$rail"}[5m]))', "{{answer}}"),),
                      "reqps"),
                Panel("Not yet taken", "Entries that no adapter was given.",
                      (('max by (stream) (fleet_stream_lag{stream=~"\\\\{$rail\\\\}:.*"})', "{{stream}}"),)),
                Panel("In hand", "Entries that consumers hold.",
                      (('max by (stream) (fleet_stream_pending{stream=~"\\\\{$rail\\\\}:.*"})', "{{stream}}"),)),
                Panel("Verdicts", "What the settler committed.",
                      (('sum by (verdict) (rate(fleet_verdicts_received_total{rail="$rail"}[5m]))', "{{verdict}}"),),
                      "reqps"),
                Panel("Waits", "For how long, and why, nothing goes on or expires.",
                      ((_or_none('max by (cause) (fleet_rail_waiting_seconds{rail="$rail"})'), "{{cause}}"),), "s"),
            ),
        ),
    ),
    by_rail=True,
)  # fmt: skip

_STREAMS: Final = Board(
    "streams",
    "fleet-streams",
    "Streams and dead letters",
    "What waits where, for how long, what came again, what was given up.",
    (
        Row(
            "Streams",
            (
                Panel("Not yet taken", "Lag of each group; where it is not known, see beside.",
                      (("max by (stream, group) (fleet_stream_lag)", "{{stream}}"),)),
                Panel("In hand", "Pending of each group.",
                      (("max by (stream, group) (fleet_stream_pending)", "{{stream}}"),)),
                Panel("Oldest unfinished entry", "Pending or not yet taken.",
                      (("max by (stream) (fleet_stream_oldest_unfinished_seconds)", "{{stream}}"),), "s"),
                Panel("Came again", "Their consumer died or let go.",
                      ((_or_none("sum by (stream) (rate(fleet_redeliveries_total[5m]))"), "{{stream}}"),), "reqps"),
                Panel("Length", "Finished entries included, until the janitor trims them.",
                      (("max by (stream) (fleet_stream_length)", "{{stream}}"),)),
                Panel("Gates and lost counts", "1: nothing more is added; the server does not know its lag.",
                      (("max by (stream) (fleet_gate_closed)", "closed {{stream}}"),
                       ("max by (stream) (fleet_stream_lag_unknown)", "lag unknown {{stream}}"))),
            ),
        ),
        Row(
            "Outbox",
            (
                Panel("Waiting in the outbox", "Jobs that are not in their stream.",
                      ((_or_none("sum by (stream) (fleet_outbox_depth)"), "{{stream}}"),)),
                Panel("Added by the relay", "Entries a second.",
                      (("sum by (stream) (rate(fleet_dispatched_total[5m]))", "{{stream}}"),), "reqps"),
                Panel("Put back", "Jobs whose entry was lost.",
                      ((_or_none("sum by (rail) (increase(fleet_jobs_swept_total[5m]))"), "{{rail}}"),)),
                Panel("Parked", "Entries of a schema version that nobody here reads.",
                      ((_or_none("sum by (stream) (fleet_entries_parked)"), "{{stream}}"),)),
            ),
        ),
        Row(
            "Dead letters",
            (
                Panel("Open", "That nobody settled.",
                      ((_or_none("max by (rail) (fleet_dead_letters_open)"), "{{rail}}"),)),
                Panel("Oldest", "How long it has been open.",
                      ((_or_none("max by (rail) (fleet_dead_letters_oldest_seconds)"), "{{rail}}"),), "s"),
                Panel("Given up", "By the class of the error.",
                      ((_or_none("sum by (rail, error_class) (increase(fleet_dead_letters_total[5m]))"),
                        "{{rail}} {{error_class}}"),)),
                Panel("Results that cannot be used", "Each is kept, and mirrored on results.dlq.",
                      ((_or_none("sum by (rail) (increase(fleet_results_unusable_total[5m]))"), "{{rail}}"),)),
            ),
        ),
    ),
)  # fmt: skip

_LEDGER: Final = Board(
    "ledger",
    "fleet-ledger",
    "Ledger and reconciliation",
    "Do the books balance, what is held, what waits for a person.",
    (
        Row(
            "Balance",
            (
                Panel("Out of balance", "Debits less credits, in minor units of each ledger: 0.",
                      (("max by (ledger) (fleet_ledger_imbalance_minor)", "{{ledger}}"),)),
                Panel("Open alerts", "By kind: what contradicts, was paid after its void, or cannot be resolved.",
                      ((_or_none("max by (severity, kind) (fleet_alerts_open)"), "{{severity}} {{kind}}"),)),
            ),
        ),
        Row(
            "Held",
            (
                Panel("Holds", "Payments that hold money and are not decided.",
                      ((_or_none("max by (rail) (fleet_holds_open)"), "{{rail}}"),)),
                Panel("Oldest hold", "By rail.",
                      ((_or_none("max by (rail) (fleet_hold_oldest_seconds)"), "{{rail}}"),), "s"),
                Panel("Without an answer at the deadline", "UNRESOLVED: held until a person decides.",
                      (("max(fleet_intents_parked)", "payments"),)),
                Panel("The oldest of them", "How long it has waited.",
                      (("max(fleet_intents_parked_oldest_seconds)", "oldest"),), "s"),
                Panel("In review", "Held until another key approves or rejects.",
                      (("max(fleet_intents_in_review)", "payments"),)),
                Panel("Reached their deadline", "Proven unsent and released (expired), or in doubt (unresolved).",
                      ((_or_none("sum by (rail, outcome) (increase(fleet_payments_late_total[5m]))"),
                        "{{rail}} {{outcome}}"),)),
            ),
        ),
        Row(
            "Reconciliation",
            (
                Panel("Registers that have not come", "Expected and asked for, by rail.",
                      ((_or_none("max by (rail) (fleet_registers_awaited)"), "{{rail}}"),)),
                Panel("Asked for since", "How long ago the first of them was asked for.",
                      ((_or_none("max by (rail) (fleet_registers_awaited_oldest_seconds)"), "{{rail}}"),), "s"),
                Panel("Breaks", "That nobody put right, by kind.",
                      ((_or_none("max by (kind) (fleet_breaks_open)"), "{{kind}}"),)),
                Panel("Oldest break", "By kind.",
                      ((_or_none("max by (kind) (fleet_breaks_oldest_seconds)"), "{{kind}}"),), "s"),
                Panel("Books proven", "When the whole ledger was last proven from its transfers.",
                      (("max(fleet_books_proven_timestamp_seconds) * 1000", "proven"),), "dateTimeFromNow"),
                Panel("Lines compared", "By what they came to.",
                      ((_or_none("sum by (rail, match) (increase(fleet_register_lines_compared_total[1h]))"),
                        "{{rail}} {{match}}"),)),
                Panel("Comparing a day", "How long it took, p95.",
                      ((_or_none("histogram_quantile(0.95, sum by (le, rail)"
                                 " (rate(fleet_register_comparison_seconds_bucket[6h])))"), "{{rail}}"),), "s"),
            ),
        ),
        Row(
            "Recovery",
            (
                Panel("Stranded", "What nothing would have moved any more, by kind and by what was done about it.",
                      ((_or_none("sum by (kind, outcome) (increase(fleet_stranded_total[1h]))"),
                        "{{kind}} {{outcome}}"),)),
                Panel("Looked at", "Intents that the completer looks at, every second.",
                      (("sum(rate(fleet_recovery_intents_scanned_total[5m]))", "intents"),), "reqps"),
                Panel("Last whole walk", "When a walk through all that may stand came to its end.",
                      (("max(fleet_recovery_last_walk_timestamp_seconds) * 1000", "ended"),), "dateTimeFromNow"),
                Panel("Intents of that walk", "And how long it took, in seconds.",
                      (("max(fleet_recovery_last_walk_intents)", "intents"),
                       ("max(fleet_recovery_last_walk_seconds)", "seconds"))),
                Panel("Walks", "That came to their end, of every resolver.",
                      (("sum(increase(fleet_recovery_walks_total[1h]))", "walks"),)),
            ),
        ),
    ),
)  # fmt: skip

_INFRASTRUCTURE: Final = Board(
    "infrastructure",
    "fleet-infrastructure",
    "Infrastructure",
    "Processes, loops, pools, servers.",
    (
        Row(
            "Processes",
            (
                Panel("Scraped", "1: the process answers.", (("up", "{{job}} {{instance}}"),)),
                Panel("CPU", "Cores that a process uses.",
                      (("rate(process_cpu_seconds_total[5m])", "{{job}} {{instance}}"),)),
                Panel("Memory", "Resident.", (("process_resident_memory_bytes", "{{job}} {{instance}}"),), "bytes"),
                Panel("Lag of the event loop", "How late a task was woken, p99.",
                      ((
                          "histogram_quantile(0.99, sum by (le, job) (rate(fleet_event_loop_lag_seconds_bucket[5m])))",
                          "{{job}}",
                      ),), "s"),
                Panel("Age of each loop's last step", "Above five minutes it stands still.",
                      (("max by (loop) (time() - fleet_loop_heartbeat_timestamp_seconds)", "{{loop}}"),), "s"),
                Panel("Age of what is observed", "How old the figures about waiting work are.",
                      (("time() - max(fleet_observed_timestamp_seconds)", "observer"),), "s"),
            ),
        ),
        Row(
            "Servers",
            (
                Panel("Redis memory", "It refuses, and evicts nothing, at its limit.",
                      (("max(fleet_redis_memory_bytes)", "used"),), "bytes"),
                Panel("Database", "Size on disk.", (("max(fleet_database_size_bytes)", "size"),), "bytes"),
                Panel("Connections", "Of each pool: open, and of these idle.",
                      (("sum by (pool, state) (fleet_database_connections)", "{{pool}} {{state}}"),)),
                Panel("Core unreachable", "Permit requests of adapters without an answer.",
                      ((_or_none("sum by (rail) (increase(fleet_core_unreachable_total[5m]))"), "{{rail}}"),)),
            ),
        ),
    ),
)  # fmt: skip

DASHBOARDS: Final = (_PAYMENTS, _RAIL, _STREAMS, _LEDGER, _INFRASTRUCTURE)
