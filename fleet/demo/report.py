"""What the demo prints: a table for people, one object for programs."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fleet.demo.runner import Run
from fleet.proof import Proof


def as_object(run: Run, proof: Proof) -> dict[str, Any]:
    """Return the `--json` object; its keys are stable."""
    return {
        "accepted": len(run.accepted),
        "settled": run.ends["SETTLED"],
        "settled_after_doubt": run.doubted,
        "failed": dict(sorted(run.failed.items())),
        "unresolved": run.ends["UNRESOLVED"],
        "dead_lettered": run.dead_lettered,
        "refused_lines": [{"line": line.line, "code": line.code, "message": line.message} for line in run.refused],
        "ledger": {"balanced": proof.balanced, "holds_match_pending": proof.holds_match_pending},
        "provider_book": {
            "paid_twice": len(proof.paid_twice),
            "paid_not_settled": len(proof.paid_not_settled),
            "settled_not_paid": len(proof.settled_not_paid),
            "by_rail": {rail: asdict(book) for rail, book in proof.by_rail.items()},
        },
        "money_in": {
            "received": proof.received,
            "received_not_credited": len(proof.received_not_credited),
            "credited_not_received": len(proof.credited_not_received),
        },
        "seconds": round(run.seconds, 2),
    }


def print_report(console: Console, run: Run, proof: Proof) -> None:
    """Print outcomes, refused lines, the ledger's proof and the comparison with the provider's book."""
    outcomes = Table(title="payments", title_justify="left", header_style="bold")
    outcomes.add_column("outcome")
    outcomes.add_column("count", justify="right")
    outcomes.add_row("accepted", str(len(run.accepted)))
    outcomes.add_row("settled", str(run.ends["SETTLED"]))
    outcomes.add_row("  of them after a lost or unusable answer", str(run.doubted))
    for reason, count in sorted(run.failed.items()):
        outcomes.add_row(escape(f"failed: {reason}"), str(count))
    outcomes.add_row("unresolved", str(run.ends["UNRESOLVED"]))
    outcomes.add_row("dead-lettered", str(run.dead_lettered))
    outcomes.add_row("refused lines", str(len(run.refused)))
    console.print(outcomes)
    if run.refused:
        refused = Table(title="refused lines", title_justify="left", header_style="bold")
        for column in ("line", "code", "what to do"):
            refused.add_column(column, overflow="fold")
        for line in run.refused[:50]:
            refused.add_row(str(line.line), line.code, escape(line.message))
        console.print(refused)
        if len(run.refused) > 50:
            console.print(f"… and {len(run.refused) - 50} more; --json lists them all")
    checks = Table(title="proof", title_justify="left", header_style="bold")
    checks.add_column("check")
    checks.add_column("result", justify="right")
    checks.add_row("ledger: every transfer sums to zero", _yes(proof.balanced))
    checks.add_row("ledger: holds = pending payments", _yes(proof.holds_match_pending))
    checks.add_row("providers' books: paid out", str(proof.booked))
    for rail, book in proof.by_rail.items():
        checks.add_row(f"  of them by {rail}", str(book.payments))
    checks.add_row("providers' books: paid twice", str(len(proof.paid_twice)))
    checks.add_row("providers' books: paid, not settled", str(len(proof.paid_not_settled)))
    checks.add_row("providers' books: settled, not paid", str(len(proof.settled_not_paid)))
    checks.add_row("providers' books: payments in", str(proof.received))
    checks.add_row("providers' books: in, not credited", str(len(proof.received_not_credited)))
    checks.add_row("providers' books: credited, not in", str(len(proof.credited_not_received)))
    console.print(checks)
    culprits = (*proof.paid_twice, *proof.paid_not_settled, *proof.settled_not_paid, *proof.discrepancies)
    for culprit in (*culprits, *proof.received_not_credited, *proof.credited_not_received):
        console.print(f"  [red]{escape(str(culprit))}[/red]")
    count = len(run.accepted)
    console.print(f"{count} payment{'' if count == 1 else 's'} in {run.seconds:.1f} s, after the start of the system")


def _yes(holds: bool) -> str:
    return "[green]yes[/green]" if holds else "[red]NO[/red]"
