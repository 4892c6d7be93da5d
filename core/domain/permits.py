"""Whether a job may be sent now, and how: the rule alone, without a database. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from core.domain.jobs import JobRow, JobState
from schemas.events import IntentState
from schemas.operations import JobKind
from schemas.permits import PermitMode
from schemas.rails import Capabilities, Timing


class Refusal(StrEnum):
    """Why a permit is not given now, in order of precedence."""

    CLOSED = "CLOSED"
    THROTTLED = "THROTTLED"
    PAUSED = "PAUSED"
    BUSY = "BUSY"


@dataclass(frozen=True, slots=True)
class Grant:
    """The permit to write. `first` is true only where it is proven that no permit came before."""

    mode: PermitMode
    first: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """No permit now: `after_s` for the waits, `reason` for CLOSED."""

    answer: Refusal
    after_s: float = 1
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Gates:
    """What holds for the whole batch: database time and what is shut."""

    now: datetime
    timing: Timing
    ledger_epoch: int
    epoch_cleared: bool
    paused: frozenset[str]
    """Operations whose first permits are refused; `*` is the whole rail."""
    throttled: bool

    def pauses(self, operation: str) -> bool:
        """Whether first permits of the operation are refused."""
        return "*" in self.paused or operation in self.paused


RAIL_PAUSED_S: Final = 5
"""How long an adapter reads nothing of a rail that is paused."""
ONE_PAUSED_S: Final = 1
"""The same where some of its payments cannot go on and others can: they wait behind for no longer."""

_TOO_LATE = Refused(Refusal.BUSY, after_s=1)


def decide_permit(
    job: JobRow,
    intent_state: IntentState,
    capabilities: Capabilities,
    gates: Gates,
    unsent: bool = False,
) -> Grant | Refused:
    """Return the permit that the job may have now. The caller holds the row's lock.

    SEND on a permit that is not proven to be the first needs a provider that deduplicates the reference, for
    longer than the sending can last, or the proof that nothing was sent: `unsent` says that every permit before
    has a definite negative of its own (docs/adr/0009). A job whose tombstone was asked for is never sent.
    """
    if refused := _refused(job, intent_state, gates):
        return refused
    if not job.kind.moves_money:
        return Grant(PermitMode.READ, first=False)
    doubted = job.ledger_epoch < gates.ledger_epoch
    if job.fence == 0 and not job.tombstoned:
        return Grant(PermitMode.SEND, first=not doubted) if _in_time(job, gates) else _TOO_LATE
    may_send = (
        not job.tombstoned
        and intent_state is not IntentState.UNRESOLVED
        and (not doubted or gates.epoch_cleared)
        # A restore may have lost permits, so that negatives for those that are known prove nothing.
        and ((unsent and not doubted) or _resend_is_deduplicated(job, capabilities, gates))
    )
    if may_send and not _in_time(job, gates):
        # What is proven unsent ends at the deadline; what may have been sent is asked about meanwhile.
        return _TOO_LATE if unsent else Grant(PermitMode.INQUIRE_ONLY, first=False)
    return Grant(PermitMode.SEND if may_send else PermitMode.INQUIRE_ONLY, first=False)


def busy_until_over(job: JobRow, gates: Gates) -> Refused:
    """Return the refusal of a job that somebody may be at work on, until the last permit's S + T_psp has passed."""
    left_s = 1.0 if job.busy_until is None else (job.busy_until - gates.now).total_seconds()
    return Refused(Refusal.BUSY, after_s=max(0.0, left_s))


def _in_time(job: JobRow, gates: Gates) -> bool:
    """Whether a call that is begun at the end of S is over before the deadline: none is begun that would pass it."""
    return gates.now + timedelta(seconds=gates.timing.send_by_s + gates.timing.call_total_s) < job.deadline


def _refused(job: JobRow, intent_state: IntentState, gates: Gates) -> Refused | None:
    # What has ended may be asked about: whoever ends a payment closes every job of it that is open.
    if job.closed_at is not None or (intent_state.is_terminal and job.kind is not JobKind.INQUIRE):
        return Refused(Refusal.CLOSED, reason=job.outcome or "intent_decided")
    if job.state is JobState.DEAD:
        return Refused(Refusal.CLOSED, reason="dead_letter")
    if job.state is JobState.WAITING:
        # The resolver owns it; what was delivered is an old entry that was acked or taken over.
        return Refused(Refusal.CLOSED, reason="waiting_for_resolver")
    if job.state is JobState.READY and job.not_before is not None and job.not_before > gates.now:
        return Refused(Refusal.CLOSED, reason="rescheduled")
    if gates.throttled:
        return Refused(Refusal.THROTTLED, after_s=1)
    if job.kind.on_control_stream:
        return None
    if job.fence == 0 and gates.pauses(job.operation):
        return Refused(Refusal.PAUSED, after_s=RAIL_PAUSED_S if "*" in gates.paused else ONE_PAUSED_S)
    if job.kind.moves_money and job.fence == 0 and job.ledger_epoch < gates.ledger_epoch and not gates.epoch_cleared:
        return Refused(Refusal.PAUSED, after_s=RAIL_PAUSED_S)
    if job.busy_until is not None and job.busy_until > gates.now:
        return busy_until_over(job, gates)
    return None


def _resend_is_deduplicated(job: JobRow, capabilities: Capabilities, gates: Gates) -> bool:
    if not capabilities.deduplicates_reference:
        return False
    if capabilities.dedup_window_s is None:
        return True
    if job.first_granted_at is None:
        return False
    sending = timedelta(seconds=gates.timing.send_by_s + gates.timing.call_total_s)
    # The margin is one more sending time: clocks differ and a provider counts from its own first sight.
    return gates.now + 2 * sending < job.first_granted_at + timedelta(seconds=capabilities.dedup_window_s)
