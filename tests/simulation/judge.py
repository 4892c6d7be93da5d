"""The invariants of the protocol, I1 to I7, checked against the provider's own book."""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from core.domain.ids import derive_id
from core.domain.intents import IntentRow
from core.domain.jobs import mint_reference
from core.domain.ledger import AccountFlags, Transfer, TransferFlags
from schemas.events import IntentState
from schemas.results import Verdict
from tests.simulation.core_side import lookup_job_of, pay_job_of

if TYPE_CHECKING:
    from tests.simulation.simulate import Simulation

MONEY: Final = frozenset({"I1", "I2", "I3", "I4", "I6"})
"""The rules that only money breaks."""
WAITING: Final = "waiting is not failing"
_HELD = (IntentState.AUTHORIZED, IntentState.DISPATCHED, IntentState.UNRESOLVED)
_UNPAID_ENDS = (IntentState.FAILED, IntentState.CANCELLED, IntentState.EXPIRED)


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken invariant; `intent_id` is None where it is about the whole."""

    rule: str
    text: str
    intent_id: UUID | None = None


def subjects_of(intent_id: UUID) -> tuple[str, str]:
    """Return what the provider's book may name an intent by: its payment's job, or its lookup's reference."""
    return str(pay_job_of(intent_id)), mint_reference(lookup_job_of(intent_id), 24)


def judge(simulation: "Simulation") -> list[Violation]:
    """Return every violation, the gravest first."""
    tables = simulation.database.tables
    found: list[Violation] = []
    for row in tables["intents"].values():
        found += _paid_as_said(simulation, row)
    for row in tables["intents"].values():
        found += _ended(simulation, row)
    found += _books(tables)
    found += _promises(simulation)
    found += [Violation("an end is final", text, intent_id) for intent_id, text in simulation.regressions]
    found += [Violation(WAITING, "voided while its rail was paused", each) for each in simulation.expired_in_pause]
    if simulation.database.deadlocks:
        found.append(Violation("no deadlock", f"{simulation.database.deadlocks} transactions waited for each other"))
    return found


def _paid_as_said(simulation: "Simulation", row: IntentRow) -> list[Violation]:
    paid = simulation.paid(row.id)
    if len(paid) > 1:
        told = ", ".join(f"{each.reference[:6]} of {each.account}" for each in paid)
        return [Violation("I2", f"paid {len(paid)} times: {told}", row.id)]
    if row.state == IntentState.SETTLED:
        if not paid:
            return [Violation("I4", "SETTLED, and the provider paid nothing", row.id)]
        if paid[0].amount_minor != row.amount_minor:
            return [Violation("I4", f"SETTLED {row.amount_minor}, paid {paid[0].amount_minor}", row.id)]
    if row.state in _UNPAID_ENDS and paid:
        if not simulation.provider.lied & set(subjects_of(row.id)):
            return [Violation("I3", f"{row.state} ({row.failure_code}), and the provider paid", row.id)]
        if _success_is_known(simulation, row) and derive_id(row.id, "suspense") not in _transfers(simulation):
            return [Violation("I3", f"{row.state}, known to be paid, and nothing in suspense", row.id)]
    return []


def _success_is_known(simulation: "Simulation", row: IntentRow) -> bool:
    tables = simulation.database.tables
    facts = [fact for job in tables["jobs_of"].get(row.id, ()) for fact in tables["facts"].get(job, ())]
    return any(fact.result.verdict is Verdict.SUCCEEDED and fact.quarantine is None for fact in facts)


def _transfers(simulation: "Simulation") -> dict[UUID, Transfer]:
    return simulation.database.tables["transfers"]


def _ended(simulation: "Simulation", row: IntentRow) -> list[Violation]:
    tables, state = simulation.database.tables, IntentState(row.state)
    jobs = [tables["jobs"][each] for each in tables["jobs_of"].get(row.id, ())]
    if state.is_terminal:
        left = [job for job in jobs if job.closed_at is None]
        return [Violation("closed", f"{state} with an open {job.kind} job", row.id) for job in left]
    if state is IntentState.UNRESOLVED:
        alerts = tables["alerts"].values()
        if not any(alert.intent_id == row.id and alert.kind == "unresolved" for alert in alerts):
            return [Violation("I5", "UNRESOLVED, and nobody was alerted", row.id)]
        return _resolvable(simulation, row)
    newest = max(tables["epochs"])
    if row.ledger_epoch < newest and tables["epochs"][newest][1] is None:
        return []  # held until reconciliation clears the epoch
    late = simulation.world.now - (row.deadline or simulation.world.now)
    if late < timedelta(seconds=120):
        return []
    return [Violation("I5", f"still {state} {late.total_seconds():.0f} s after its deadline", row.id)]


def _resolvable(simulation: "Simulation", row: IntentRow) -> list[Violation]:
    """What the provider can tell for certain is found out: after the calm, asking was all that it took."""
    profile, tables = simulation.scenario.profile, simulation.database.tables
    newest = max(tables["epochs"])
    doubted = row.ledger_epoch < newest and tables["epochs"][newest][1] is None
    if not profile.inquiry or doubted or row.provider_account != simulation.account:
        return []
    facts = [fact for job in tables["jobs_of"].get(row.id, ()) for fact in tables["facts"].get(job, ())]
    if any(fact.quarantine for fact in facts) and not simulation.paid(row.id):
        return []  # a "paid" that could not be used forbids the void: a person decides
    if simulation.paid(row.id) or profile.cancels or profile.expires:
        return [Violation("I5", "UNRESOLVED, although the provider can tell", row.id)]
    return []


def _books(tables: Any) -> list[Violation]:
    """Prove every balance from the transfers alone."""
    found: list[Violation] = []
    posted: Counter[UUID] = Counter()
    pending: Counter[UUID] = Counter()
    for transfer in tables["transfers"].values():
        amount = transfer.amount_minor
        if transfer.flags & TransferFlags.PENDING:
            if transfer.id not in tables["resolutions"]:
                pending[transfer.debit_account_id] += amount
        elif not transfer.flags & TransferFlags.VOID_PENDING:
            posted[transfer.debit_account_id] -= amount
            posted[transfer.credit_account_id] += amount
    for account_id, balance in tables["accounts"].items():
        if (balance.posted_minor, balance.debits_pending_minor) != (posted[account_id], pending[account_id]):
            found.append(Violation("I1", f"account {account_id} is not explained by its transfers"))
        guarded = balance.account.flags & AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS
        if guarded and balance.available_minor < 0:
            found.append(Violation("I1", f"account {account_id} spent what it has not got"))
    if sum(balance.posted_minor for balance in tables["accounts"].values()):
        found.append(Violation("I1", "the ledger does not sum to zero"))
    held = sum(row.amount_minor + row.fee_minor for row in tables["intents"].values() if row.state in _HELD)
    if held != sum(pending.values()):
        found.append(Violation("I6", f"{sum(pending.values())} are held, {held} by intents"))
    return found


def _promises(simulation: "Simulation") -> list[Violation]:
    """What a client was told with a 2xx exists, unless a restore took it away."""
    found = []
    rows = simulation.database.tables["intents"]
    for told in simulation.told:
        if told.accepted is None or _taken_away(simulation, told.accepted_in_s):
            continue
        row = rows.get(told.accepted)
        if row is None:
            found.append(Violation("I7", f"payment {told.order.number} was accepted and is not there"))
            continue
        cancelled = told.cancelled_in_s is not None and not _taken_away(simulation, told.cancelled_in_s)
        if cancelled and row.state != IntentState.CANCELLED:
            found.append(Violation("I7", f"told CANCELLED, and it is {row.state}", row.id))
    return found


def _taken_away(simulation: "Simulation", lasted_s: tuple[float, float]) -> bool:
    """Whether the commit behind an answer may lie in the time that a restore took away."""
    since_s, until_s = simulation.restored_to_s, simulation.restored_at_s
    return since_s is not None and until_s is not None and lasted_s[1] >= since_s and lasted_s[0] <= until_s
