"""What a batch of results is: the entries as they came, the rows that they are about, and what they do to those."""

from dataclasses import dataclass, field
from typing import Any, Literal

from core.domain.collections import LONGEST_POLL_S
from core.domain.intents import IntentRow, Move
from core.domain.jobs import JobRow, Waiting
from core.domain.resolution import Pace
from core.domain.verdicts import AttemptView, Case
from core.services.payments.returns import Returned
from core.services.settling.claims import BatchClaims
from core.services.settling.close_job import Ending
from core.services.settling.facts import Alert, Fact
from core.services.settling.rails import RailState
from schemas.collections import ProviderPayment
from schemas.operations import JobKind
from schemas.results import Result


@dataclass(frozen=True, slots=True)
class Delivery:
    """One entry of a results stream; `result` is None where the body is no Result, and `error` says why."""

    rail: str
    stream: str
    entry_id: str
    body: str
    deliveries: int = 1
    result: Result | None = None
    error: str = ""
    again: bool = False
    """It was kept as unusable before: the fact that was kept with it, unapplied, is judged anew."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A payment that came to its end, and how long it took from its job's making."""

    rail: str
    outcome: Literal["settled", "failed"]
    age_s: float


@dataclass(slots=True)
class Batch:
    """The locked rows of a batch and the effects that its facts have on them."""

    jobs: dict[Any, JobRow]
    intents: dict[Any, IntentRow]
    targets: dict[Any, Any]
    attempts: dict[Any, dict[int, AttemptView]]
    known: dict[Any, set[bytes]]
    states: dict[str, RailState]
    positives: set[Any]
    returned_minor: dict[Any, int]
    pace: Pace
    claims: BatchClaims = field(default_factory=BatchClaims)
    facts: list[Fact] = field(default_factory=list)
    negatives: list[tuple[Any, int]] = field(default_factory=list)
    endings: dict[Any, Ending] = field(default_factory=dict)
    waits: dict[Any, Waiting] = field(default_factory=dict)
    retries: dict[Any, tuple[JobRow, float]] = field(default_factory=dict)
    closes: list[tuple[Any, str]] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    suspended: list[IntentRow] = field(default_factory=list)
    back_to_suspense: dict[Any, int] = field(default_factory=dict)
    """What came back of what was suspended, in minor units."""
    late: dict[Any, str] = field(default_factory=dict)
    returned: dict[Any, Returned] = field(default_factory=dict)
    collected: dict[Any, list[tuple[int, ProviderPayment]]] = field(default_factory=dict)
    """What came in by collect job: which of the facts said so, and what it said."""
    shown: dict[Any, dict[str, Any]] = field(default_factory=dict)
    confirmed: list[tuple[IntentRow, Move]] = field(default_factory=list)
    authorized: list[IntentRow] = field(default_factory=list)
    unusable: list[tuple[Delivery, str]] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)

    def wait(self, job: JobRow, why: str) -> None:
        """Ask about a job again, after a while that grows."""
        longest_s = LONGEST_POLL_S if job.kind is JobKind.COLLECT else self.pace.longest_s
        self.waits[job.id] = Waiting(job.id, min(self.pace.after_s(job.inquiries), longest_s), why=why)
        # The last fact decides, in one batch as in two.
        self.retries.pop(job.id, None)

    def end(self, intent: IntentRow, move: Move, outcome: str) -> None:
        """End an intent whose rows are locked; the facts that follow see it so."""
        self.endings[intent.id] = Ending.of(intent, move, outcome)
        intent.state, intent.decision = move.to, move.decision or intent.decision
        intent.provider_reference = move.provider_reference or intent.provider_reference

    def alert(self, case: Case, severity: Any, kind: str, more: str = "") -> None:
        """Tell a person about a payment."""
        detail = f"{case.job.rail} {case.job.reference}" + (f": {more}" if more else "")
        self.alerts.append(Alert(case.job.tenant_id, severity, kind, case.intent.id, case.job.id, detail))
