"""Writes the alert rules, of which compose mounts and the chart carries one file.

python -m tools.alerts [--check]    write it, or exit 1 where it is not what would be written
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

RULES: Final = Path(__file__).resolve().parent.parent / "helm" / "psp-fleet" / "files" / "rules" / "fleet.yml"
DASHBOARDS_URL: Final = "http://localhost:3000"
"""Where compose shows Grafana; the chart puts its own value in its place."""
RUNBOOK: Final = "docs/runbook.md"

OBJECTIVE: Final = 0.995
IN_TIME_S: Final = 60
"""The objective: so many payments end, either way, within so long. One without an answer at its deadline does not."""
ENOUGH: Final = 20
"""Payments in the longer window below which one bad payment would be a burn."""
WINDOWS: Final = ("5m", "30m", "1h", "6h", "3d")


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert: what is wrong (`says`), when (`when`, for how long), and where to look."""

    name: str
    severity: Literal["page", "ticket"]
    when: str
    says: str
    dashboard: str
    lasting: str = "0s"

    def rule(self) -> dict[str, Any]:
        """Return the rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.when,
            "for": self.lasting,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.says,
                "runbook_url": f"{RUNBOOK}#{self.name.lower()}",
                "dashboard_url": f"{DASHBOARDS_URL}/d/{self.dashboard}",
            },
        }


def _burn(factor: float, long: str, short: str) -> str:
    bound = round(factor * (1 - OBJECTIVE), 6)
    return (
        f"fleet:payments_bad:ratio_rate{long} > {bound} and fleet:payments_bad:ratio_rate{short} > {bound}"
        f" and fleet:payments:increase{long} > {ENOUGH}"
    )


_AFTER_VOID: Final = "success_after_void|returned_after_void"
_MONEY: Final = (
    Alert(
        "LedgerImbalanced", "page", "max by (ledger) (fleet_ledger_imbalance_minor) > 0",
        "Debits and credits of ledger {{ $labels.ledger }} differ by {{ $value }} minor units.", "fleet-ledger",
    ),
    Alert(
        "PaidAfterVoid", "page", f'max by (kind) (fleet_alerts_open{{kind=~"{_AFTER_VOID}"}}) > 0',
        "A provider paid what the core had released ({{ $labels.kind }}).", "fleet-ledger",
    ),
    Alert(
        "MoneyAlertOpen", "page", f'max by (kind) (fleet_alerts_open{{severity="page",kind!~"{_AFTER_VOID}"}}) > 0',
        "{{ $value }} alerts of kind {{ $labels.kind }} wait for a person.", "fleet-ledger",
    ),
    Alert(
        "UnresolvedOverdue", "page", "max(fleet_intents_parked) > 0",
        "{{ $value }} payments passed their deadline with nobody knowing whether they were paid.", "fleet-payments",
        "2m",
    ),
    Alert(
        "ResultsUnusable", "page", "sum by (rail) (increase(fleet_results_unusable_total[10m])) > 0",
        "The core cannot use what adapters of {{ $labels.rail }} report.", "fleet-streams",
    ),
    Alert(
        "StatementGap", "page", "sum by (kind) (increase(fleet_bank_statement_gaps_total[1h])) > 0",
        "A bank's statement has a gap: {{ $labels.kind }}.", "fleet-ledger",
    ),
    Alert(
        "BankMessageRefused", "page",
        'sum(increase(fleet_bank_messages_total{outcome="refused"}[1h]))'
        " + sum(increase(fleet_bank_entries_refused_total[1h])) > 0 or sum(fleet_bank_facts_refused) > 0",
        "A message of the bank, or an entry of one, is not read, or the core refuses what it tells.", "fleet-ledger",
    ),
    Alert(
        "OutboxStuck", "page",
        # Where many entries are unread the adapters are behind, which has alerts of its own.
        "max by (stream) (fleet_outbox_oldest_due_seconds) > 60 unless max by (stream) (fleet_stream_lag) >= 500",
        "Jobs for {{ $labels.stream }} have been due for {{ $value }} s and are not in the stream.", "fleet-streams",
        "1m",
    ),
    Alert(
        "ResultsStuck", "page", 'max by (stream) (fleet_stream_oldest_unfinished_seconds{group="core"}) > 60',
        "Verdicts in {{ $labels.stream }} have waited for {{ $value }} s: no settler takes them.", "fleet-streams",
        "1m",
    ),
    Alert(
        "ObserverSilent", "page",
        "absent(fleet_observed_timestamp_seconds) or time() - max(fleet_observed_timestamp_seconds) > 60",
        "No resolver has looked at what waits for a minute: every other figure is old.", "fleet-infrastructure", "1m",
    ),
)  # fmt: skip
_SERVICE: Final = (
    Alert(
        "PaymentsBurnFast", "page", _burn(14.4, "1h", "5m"),
        "{{ $value | humanizePercentage }} of payments did not end in time: the month's budget lasts two days.",
        "fleet-payments",
    ),
    Alert(
        "PaymentsBurnSlow", "page", _burn(6, "6h", "30m"),
        "{{ $value | humanizePercentage }} of payments did not end in time over six hours.", "fleet-payments",
    ),
    Alert(
        "PaymentsBurnLong", "ticket", _burn(1, "3d", "6h"),
        "{{ $value | humanizePercentage }} of payments did not end in time over three days.", "fleet-payments",
    ),
    Alert(
        "ApiErrors", "page",
        'sum(rate(fleet_http_requests_total{listener="public",status="5xx"}[5m]))'
        ' / sum(rate(fleet_http_requests_total{listener="public"}[5m])) > 0.01'
        ' and sum(increase(fleet_http_requests_total{listener="public"}[5m])) > 20',
        "{{ $value | humanizePercentage }} of the API's answers are failures of ours.", "fleet-payments", "2m",
    ),
    Alert(
        "ProviderUnanswered", "ticket",
        'sum by (rail) (rate(fleet_provider_calls_total{action="submit",outcome="UNKNOWN"}[10m]))'
        ' / sum by (rail) (rate(fleet_provider_calls_total{action="submit"}[10m])) > 0.05'
        ' and sum by (rail) (increase(fleet_provider_calls_total{action="submit"}[10m])) > 20',
        "{{ $value | humanizePercentage }} of payments to {{ $labels.rail }} end in a doubt.", "fleet-rail", "2m",
    ),
    Alert(
        "DeadLettersOpen", "ticket", "max by (rail) (fleet_dead_letters_open) > 0",
        "{{ $value }} dead letters of {{ $labels.rail }} wait for a verdict.", "fleet-streams", "1m",
    ),
    Alert(
        "RegisterLate", "ticket", "max by (rail) (fleet_registers_awaited_oldest_seconds) > 21600",
        "A register of {{ $labels.rail }} was asked for {{ $value | humanizeDuration }} ago and has not come.",
        "fleet-ledger",
    ),
    Alert(
        "BreakOld", "ticket", "max by (kind) (fleet_breaks_oldest_seconds) > 259200",
        "A break {{ $labels.kind }} has been open for {{ $value | humanizeDuration }}.", "fleet-ledger",
    ),
    Alert(
        "BooksUnproven", "ticket", "time() - max(fleet_books_proven_timestamp_seconds) > 172800",
        "The ledger has not been proven from its transfers for {{ $value | humanizeDuration }}.", "fleet-ledger",
    ),
    Alert(
        "BreakerOpen", "ticket",
        # It is open for a minute at most, then a probe decides: what opens again and again is meant, not once.
        "max by (rail, operation) (max_over_time(fleet_breaker_state[2m])) == 2",
        "{{ $labels.rail }} is not asked for {{ $labels.operation }}: its provider fails.", "fleet-rail", "3m",
    ),
    Alert(
        "JobsStuck", "ticket", 'max by (stream) (fleet_stream_oldest_unfinished_seconds{group="adapters"}) > 120',
        "A job in {{ $labels.stream }} has waited for {{ $value }} s: adapters are away or slow.", "fleet-rail", "1m",
    ),
    Alert(
        "GateClosed", "ticket", "max by (stream) (fleet_gate_closed) == 1",
        "Nothing more is added to {{ $labels.stream }}: what waits in it is above high-water.", "fleet-streams", "2m",
    ),
    Alert(
        "PaymentsStranded", "ticket", 'sum by (kind) (increase(fleet_stranded_total{outcome="found"}[1h])) > 0',
        "The completer found what nothing would have moved any more: {{ $labels.kind }}.", "fleet-ledger",
    ),
    Alert(
        "HoldOld", "ticket", "max by (rail) (fleet_hold_oldest_seconds) > 14400",
        "Money has been held for {{ $value | humanizeDuration }} on {{ $labels.rail }}.", "fleet-ledger",
    ),
    Alert(
        "RailPausedLong", "ticket", "max by (rail) (fleet_rail_paused) == 1",
        "{{ $labels.rail }} has been paused for an hour: is that still meant?", "fleet-rail", "1h",
    ),
    Alert(
        "RailWaitsLong", "ticket", "max by (rail, cause) (fleet_rail_waiting_seconds) > 900",
        "Payments of {{ $labels.rail }} have waited for {{ $value | humanizeDuration }} and do not expire meanwhile:"
        " {{ $labels.cause }}.",
        "fleet-rail",
    ),
    Alert(
        "EvidenceDropped", "ticket", "sum by (rail) (increase(fleet_evidence_dropped_total[15m])) > 0",
        "Evidence of calls to {{ $labels.rail }} was given up: the core did not take it.", "fleet-rail",
    ),
    Alert(
        "ProcessDown", "ticket", "up == 0", "{{ $labels.job }} {{ $labels.instance }} is not scraped.",
        "fleet-infrastructure", "1m",
    ),
    Alert(
        "LoopStalled", "ticket", "time() - fleet_loop_heartbeat_timestamp_seconds > 300",
        "The loop {{ $labels.loop }} of {{ $labels.instance }} stands still.", "fleet-infrastructure", "1m",
    ),
)  # fmt: skip
ALERTS: Final = (*_MONEY, *_SERVICE)


def _recorded(window: str) -> list[dict[str, str]]:
    # A series that never was counts as none: a sum over nothing is nothing, and would hide the rest.
    ended = f"(sum(rate(fleet_payment_seconds_count[{window}])) or vector(0))"
    in_time = f'(sum(rate(fleet_payment_seconds_bucket{{le="{float(IN_TIME_S)}"}}[{window}])) or vector(0))'
    late = f"(sum(rate(fleet_payments_late_total[{window}])) or vector(0))"
    total = f"({ended} + {late})"
    increase = f"(sum(increase(fleet_payment_seconds_count[{window}])) or vector(0))"
    return [
        {
            "record": f"fleet:payments_bad:ratio_rate{window}",
            "expr": f"(({ended} - {in_time} + {late}) / {total}) and ({total} > 0)",
        },
        {
            "record": f"fleet:payments:increase{window}",
            "expr": f"{increase} + (sum(increase(fleet_payments_late_total[{window}])) or vector(0))",
        },
    ]


def rules() -> str:
    """Return the file."""
    groups = [
        {"name": "fleet-in-time", "rules": [rule for window in WINDOWS for rule in _recorded(window)]},
        {"name": "fleet-money", "rules": [alert.rule() for alert in _MONEY]},
        {"name": "fleet-service", "rules": [alert.rule() for alert in _SERVICE]},
    ]
    text: str = yaml.safe_dump({"groups": groups}, sort_keys=False, width=200)
    return "# Written by `python -m tools.alerts`.\n" + text


def main() -> int:
    """Write or compare."""
    if "--check" not in sys.argv:
        RULES.parent.mkdir(parents=True, exist_ok=True)
        RULES.write_text(rules())
    elif not RULES.exists() or RULES.read_text() != rules():
        print("the alert rules are not what tools/alerts.py says: python -m tools.alerts")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
