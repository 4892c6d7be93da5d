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
    UNSENT = "unsent"
    """Held, and its payment's job was never made: voided where nothing was permitted, else parked."""
    UNANSWERED = "unanswered"
    """On its way, and every job of it is closed: parked."""
    UNQUEUED = "unqueued"
    """A job is ready, and no outbox row will bring it into a stream: the row is written again."""
    UNCHECKED = "unchecked"
    """A job waits for the resolver, which was never told when: it looks now."""
    UNTOLD = "untold"
    """UNRESOLVED, and no alert says so: marked and alerted."""
    UNCLOSED = "unclosed"
    """Ended, and a job of it is open: the job is closed."""
    UNRELEASED = "unreleased"
    """Ended, and money of it is still held: posted or voided as the intent ended."""
    UNOWNED = "unowned"
    """Money is held for an intent that does not exist: alerted; a person decides."""


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
    open_jobs: tuple[UUID, ...] = ()
    unqueued: tuple[UUID, ...] = ()
    unchecked: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Stranded:
    """One thing that stands. `job_ids` are those that the step is about."""

    kind: StrandedKind
    intent_id: UUID
    tenant_id: UUID
    job_ids: tuple[UUID, ...] = ()


def stranded(each: Standing) -> Stranded | None:
    """Return how an intent stands, None where something will still move it."""
    if each.state.is_terminal:
        return _of(each, StrandedKind.UNCLOSED, each.open_jobs) if each.open_jobs else None
    if each.unqueued:
        return _of(each, StrandedKind.UNQUEUED, each.unqueued)
    if each.unchecked:
        return _of(each, StrandedKind.UNCHECKED, each.unchecked)
    if each.state is IntentState.UNRESOLVED:
        return None if each.marked and each.alerted else _of(each, StrandedKind.UNTOLD)
    if each.open_jobs:
        return None
    if each.state in _BEFORE_ANY_HOLD:
        # What waits for a yes needs no job until its time is over.
        waits = each.state is IntentState.AWAITING_CONFIRMATION and not each.late
        return None if waits else _of(each, StrandedKind.UNASKED)
    if each.state in _ON_ITS_WAY and not each.decided and _sends_money(each.operation):
        return _of(each, StrandedKind.UNANSWERED if each.jobs else StrandedKind.UNSENT)
    return None


def _sends_money(operation: OperationType) -> bool:
    # Money that is to come in waits for its payer, without a job.
    return OPERATIONS[operation].needs_rail and not OPERATIONS[operation].collects


def _of(each: Standing, kind: StrandedKind, job_ids: tuple[UUID, ...] = ()) -> Stranded:
    return Stranded(kind, each.intent_id, each.tenant_id, job_ids)
