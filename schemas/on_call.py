"""What people on call ask for and see: dead letters, redrives, payments settled by hand, the audit journal."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID, uuid4

from pydantic import Field, model_validator

from schemas.base import AnyMoment, Contract, Flag
from schemas.operations import OperationType

Reason = Annotated[str, Field(min_length=3, max_length=500, pattern=r"^[^\x00]*\S[^\x00]*$")]
Incident = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")]
"""The name of the incident in whatever keeps them, such as INC-1742."""
Word = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")]
TraceId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""The trace's number, as a `traceparent` has it in the middle."""


class RedriveAction(StrEnum):
    """What is done to letters, or to one payment."""

    REDRIVE = "REDRIVE"
    DISCARD = "DISCARD"
    SETTLE = "SETTLE"


class RedriveState(StrEnum):
    """The life of a redrive."""

    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    RUNNING = "RUNNING"
    DONE = "DONE"
    STOPPED = "STOPPED"
    """It stopped by itself: too many failed."""
    CANCELLED = "CANCELLED"
    REJECTED = "REJECTED"


class LetterState(StrEnum):
    """What became of a dead letter."""

    OPEN = "OPEN"
    REDRIVEN = "REDRIVEN"
    CLOSED = "CLOSED"


class LetterFields(Contract):
    """What is known of letters: those match that fit everything that is given."""

    tenant_id: UUID | None = None
    """Narrows what a key of the system's tenant reaches; of another's it is its own."""
    rail: Word | None = None
    error_class: Word | None = None
    fingerprint: Word | None = None
    operation: OperationType | None = None
    provider: Word | None = None
    intent_id: UUID | None = None
    job_id: UUID | None = None
    trace_id: TraceId | None = None
    evidence_id: UUID | None = None
    """Letters of the job that this evidence is about."""
    permits: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """So many permits had been given when it died; 0: nothing was ever sent."""
    text: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")] | None = None
    """Words of the message, the class, the provider's reference or the masked payload."""
    received_after: AnyMoment | None = None
    received_before: AnyMoment | None = None


class LetterQuery(LetterFields):
    """A page of letters, or of groups of them."""

    state: LetterState = LetterState.OPEN
    cursor: Annotated[str, Field(max_length=400)] | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class LetterSelection(LetterFields):
    """All open letters that match everything that is given: ids, or fields of which at least one narrows."""

    ids: Annotated[list[UUID], Field(min_length=1, max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _narrows(self) -> Self:
        if not self.model_fields_set or all(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError("name ids, or narrow the selection by at least one field")
        return self


class RedriveRequest(Contract):
    """Redrive or discard all that match. A dry run, which only counts, unless `dry_run` is false."""

    id: UUID = Field(default_factory=uuid4)
    """The redrive's own id: a repeat of the request is the same redrive."""
    action: Literal[RedriveAction.REDRIVE, RedriveAction.DISCARD] = RedriveAction.REDRIVE
    selection: LetterSelection
    reason: Reason
    incident: Incident
    dry_run: Flag = True
    canary: Annotated[int, Field(ge=0, le=1000)] = 5
    """So many go first, and the rest waits for their outcomes."""
    rate_per_s: Annotated[int, Field(ge=1, le=5000)] = 20
    ramp_s: Annotated[int, Field(ge=0, le=3600)] = 30
    """In how many seconds the rate is reached."""
    stop_at_percent: Annotated[int, Field(ge=1, le=100)] = 20
    """It stops by itself when this share of the known outcomes failed."""


class HandOutcome(StrEnum):
    """What a person has seen at the provider."""

    PAID = "PAID"
    UNPAID = "UNPAID"


class HandSettlementRequest(Contract):
    """Settle one payment by what a person has seen at the provider. A second person must approve."""

    id: UUID = Field(default_factory=uuid4)
    intent_id: UUID
    outcome: HandOutcome
    provider_tx_id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")] | None = None
    """The provider's own transaction; demanded for PAID."""
    evidence: Annotated[str, Field(min_length=10, max_length=60_000, pattern=r"^[^\x00]*$")]
    """What shows it, such as the lines of the provider's register; kept encrypted."""
    reason: Reason
    incident: Incident

    @model_validator(mode="after")
    def _names_the_transaction(self) -> Self:
        if self.outcome is HandOutcome.PAID and self.provider_tx_id is None:
            raise ValueError("provider_tx_id: name the transaction that paid it")
        return self


class RedriveDecision(Contract):
    """Why a redrive is approved, rejected or cancelled."""

    reason: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")] = ""


class RedriveProgress(Contract):
    """How many letters are where."""

    waiting: int = 0
    sent: int = 0
    """Acted upon, and the outcome is not known yet."""
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    """Refused by the verdict in the transaction that would have acted."""
    released: int = 0
    """Given back untouched, since the redrive ended before their turn."""


class RedriveView(Contract):
    """A redrive as people see it; of a dry run, what it would be."""

    id: UUID
    action: RedriveAction
    state: RedriveState | Literal["DRY_RUN"]
    reason: str
    incident: str
    selection: dict[str, Any]
    total: int
    verdicts: dict[str, int]
    """How many letters had which verdict when it was asked for."""
    reasons: dict[str, int]
    """The same by sentence."""
    needs_approval: bool
    taken: int = 0
    """Letters that match but are in another redrive already."""
    progress: RedriveProgress
    canary: int
    rate_per_s: int
    ramp_s: int
    stop_at_percent: int
    asked_by: str
    decided_by: str | None = None
    ended_because: str = ""
    evidence_id: UUID | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class RedrivePage(Contract):
    """Redrives, newest first."""

    items: list[RedriveView]
    next_cursor: str | None = None


class RedriveItemView(Contract):
    """What became of one letter in a redrive."""

    letter_id: UUID
    place: int
    state: str
    verdict: str | None
    detail: str
    acted_at: datetime | None


class RedriveItemPage(Contract):
    """The letters of a redrive in their order."""

    items: list[RedriveItemView]
    next_cursor: str | None = None


class LetterDocument(Contract):
    """One dead letter, judged as it stands now. The body stays sealed."""

    id: UUID
    state: str
    verdict: str
    reason: str
    rail: str
    operation: str | None
    kind: str | None
    provider: str | None
    error_class: Annotated[str, Field(alias="class")]
    fingerprint: str
    message: str
    received_at: datetime
    age_s: int
    deliveries: int
    fence: int
    tenant_id: UUID
    job_id: UUID | None
    intent_id: UUID | None
    intent_state: str | None
    reference: str
    permits: int = 0
    """How many permits had been given when it died; `fence` is how many there are now."""
    stream: str
    entry_id: str
    traceparent: str | None
    payload: dict[str, Any]
    closed_at: datetime | None
    closed_because: str = ""


class AttemptFact(Contract):
    """What an adapter reported under a permit; `quarantine` says why it was not applied."""

    verdict: str
    received_at: datetime
    applied_at: datetime | None
    quarantine: str | None
    evidence_id: UUID | None
    provider_tx_id: str | None
    reason: str | None


class LetterAttempt(Contract):
    """One permit of the letter's job, and what was reported under it. Nothing personal is among it."""

    fence: int
    mode: str
    reference: str
    provider_account: str
    environment: str
    granted_at: datetime
    negative_at: datetime | None
    """When it was proven that nothing was paid under it."""
    facts: list[AttemptFact]


class LetterEvidence(Contract):
    """Raw evidence about the letter's job, kept sealed."""

    id: UUID
    kind: str
    received_at: datetime


class LetterLinks(Contract):
    """Where more is told: addresses of this API, and of the traces' own pages where the core knows them."""

    intent: str | None
    history: str | None
    same_kind: str
    journal: str | None
    trace: str | None


class LetterDetail(LetterDocument):
    """One dead letter with every attempt at it, the evidence, and where more is told."""

    trace_id: str | None
    attempts: list[LetterAttempt]
    evidence: list[LetterEvidence]
    links: LetterLinks


class LetterPage(Contract):
    """Dead letters, newest first."""

    items: list[LetterDocument]
    next_cursor: str | None = None


class LetterGroupView(Contract):
    """The letters of one fingerprint."""

    fingerprint: str
    error_class: str
    rail: str
    message: str
    letters: int
    last_hour: int
    hour_before: int
    trend: Literal["rising", "steady", "falling"]
    first_at: datetime
    last_at: datetime


class LetterGroups(Contract):
    """Groups, the largest first."""

    items: list[LetterGroupView]
    next_cursor: str | None = None


class StoryLine(Contract):
    """One thing that happened to a payment."""

    at: datetime
    what: str
    """`event`, `permit`, `negative`, `fact`, `evidence`, `transfer`, `letter`, `redrive`, `alert`, `announced` or
    `audit`."""
    text: str
    data: dict[str, Any] = Field(default_factory=dict)


class Story(Contract):
    """The whole of one payment in the order of time."""

    intent_id: UUID
    state: str
    summary: str
    lines: list[StoryLine]


class AuditEntryView(Contract):
    """One entry of the journal."""

    tenant_id: UUID
    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    data: dict[str, Any]
    hash: str


class AuditPage(Contract):
    """Entries, newest first."""

    items: list[AuditEntryView]
    next_cursor: str | None = None


class AuditProof(Contract):
    """What a walk over the chains found."""

    holds: bool
    tenants: int
    entries: int
    faults: list[str]
    ends: list[str] = Field(default_factory=list)
    """Where each chain ends, as TENANT:NUMBER:HASH: noted elsewhere, it proves later that the chain is the same."""
