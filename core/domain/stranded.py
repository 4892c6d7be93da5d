"""What stands though nothing will move it any more: which state of which rows, and what may be done about it. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from core.domain.registry import OPERATIONS
from schemas.events import IntentState
from schemas.operations import OperationType

_BEFORE_ANY_HOLD = frozenset({IntentState.CREATED, IntentState.VALIDATED, IntentState.AWAITING_CONFIRMATION})
_ON_ITS_WAY = frozenset({IntentState.AUTHORIZED, IntentState.DISPATCHED})


class StrandedKind(StrEnum):
    """Each kind has one step that finishes it, or else it is parked: held as it is, with an alert."""

    UNASKED = "unasked"
    """Accepted, nothing held, and no job that would look the payee up: it expires."""
    UNREVIEWED = "unreviewed"
    """In REVIEW, and nothing says until when: its wait ends at its deadline, else now."""
    UNSENT = "unsent"
    """On its way, and the job that would send or collect it was never made: voided, or expired where nothing is held,
    if no permit was given; else parked."""
    UNANSWERED = "unanswered"
    """On its way, and every job of it is closed: parked."""
    UNENDED = "unended"
    """Its hold's decision is made, and it has not ended: parked."""
    UNQUEUED = "unqueued"
    """A job is ready, and no outbox row will bring it into a stream: the row is written again."""
    UNCHECKED = "unchecked"
    """A job waits for the resolver, which was never told when: it looks now."""
    UNTOLD = "untold"
    """UNRESOLVED, and no alert says so: marked and alerted."""
    UNCANCELLED = "uncancelled"
    """The mandate that it pulls under was cancelled, and nothing was sent: the payment is cancelled."""
    UNCLOSED = "unclosed"
    """Ended, and a job of it is open: the job is closed."""
    UNRELEASED = "unreleased"
    """Ended, and money of it is still held: posted or voided as the intent ended."""
    UNOWNED = "unowned"
    """Money is held for an intent that does not exist: alerted; a person decides."""
    OVERHELD = "overheld"
    """A limit holds something else than the open payments have at it: it holds what they have."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One intent as it stands, with what is left of its jobs."""

    intent_id: UUID
    tenant_id: UUID
    operation: OperationType
    state: IntentState
    decided: bool
    late: bool
    marked: bool
    alerted: bool
    jobs: int
    direction: str | None = None
    review_ends: bool = True
    open_jobs: tuple[UUID, ...] = ()
    unqueued: tuple[UUID, ...] = ()
    unchecked: tuple[UUID, ...] = ()
    withdrawn: bool = False
    """Whether its mandate was cancelled before any permit."""


@dataclass(frozen=True, slots=True)
class Stranded:
    """One thing that stands. `job_ids` are those that the step is about; of a limit, `intent_id` is the limit's."""

    kind: StrandedKind
    intent_id: UUID
    tenant_id: UUID
    job_ids: tuple[UUID, ...] = ()


def stranded(each: Standing) -> Stranded | None:
    """Return how an intent stands, None where something will still move it."""
    if each.state.is_terminal:
        return _of(each, StrandedKind.UNCLOSED, each.open_jobs) if each.open_jobs else None
    if each.withdrawn and each.open_jobs:
        return _of(each, StrandedKind.UNCANCELLED, each.open_jobs)
    if each.unqueued:
        return _of(each, StrandedKind.UNQUEUED, each.unqueued)
    if each.unchecked:
        return _of(each, StrandedKind.UNCHECKED, each.unchecked)
    if each.state is IntentState.UNRESOLVED:
        return None if each.marked and each.alerted else _of(each, StrandedKind.UNTOLD)
    if each.decided and each.state in _ON_ITS_WAY:
        return _of(each, StrandedKind.UNENDED)
    if each.open_jobs:
        return None
    if each.state is IntentState.REVIEW:
        return None if each.review_ends else _of(each, StrandedKind.UNREVIEWED)
    if each.state in _BEFORE_ANY_HOLD:
        # What waits for a yes needs no job until its time is over.
        waits = each.state is IntentState.AWAITING_CONFIRMATION and not each.late
        return None if waits else _of(each, StrandedKind.UNASKED)
    if each.state in _ON_ITS_WAY and _needs_a_job(each):
        return _of(each, StrandedKind.UNANSWERED if each.jobs else StrandedKind.UNSENT)
    return None


def _needs_a_job(each: Standing) -> bool:
    return OPERATIONS[each.operation].job_kind_of(each.direction) is not None


def _of(each: Standing, kind: StrandedKind, job_ids: tuple[UUID, ...] = ()) -> Stranded:
    return Stranded(kind, each.intent_id, each.tenant_id, job_ids)
