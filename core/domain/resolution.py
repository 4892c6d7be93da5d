"""What is to be done about a payment whose answer or deadline is due: the rule alone. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from core.domain.intents import confirmable_until
from core.domain.verdicts import Case, all_negative, horizon_passed
from schemas.events import IntentState
from schemas.operations import JobKind


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a doubt is asked about: first after `first_s`, then twice as long each time, up to `longest_s`."""

    first_s: float
    longest_s: float

    def after_s(self, inquiries: int) -> float:
        """Return the wait before the next inquiry, `inquiries` having been made."""
        return min(self.first_s * 2.0 ** min(inquiries, 40), self.longest_s)


class Due(StrEnum):
    """The next step of a job that is due."""

    EXPIRE_UNSENT = "EXPIRE_UNSENT"
    EXPIRE_UNCONFIRMED = "EXPIRE_UNCONFIRMED"
    EXPIRE_UNPAID = "EXPIRE_UNPAID"
    VOID_NEGATIVE = "VOID_NEGATIVE"
    INQUIRE = "INQUIRE"
    CANCEL = "CANCEL"
    PARK = "PARK"
    WAIT = "WAIT"


_UNKNOWN_THERE: Final = ("not_found", "negative_not_final")
"""Outcomes of a job that say that its provider, asked by reference, did not know it as paid."""


def decide_due(case: Case, *, waits: bool) -> Due:
    """Return the step for an open job. `waits`: its rail is paused or was unreachable until just now.

    Waiting is not failing: what waits is not voided. What was sent is asked about until the answer is definite.
    """
    job, late = case.job, case.now >= case.job.deadline
    if job.kind is JobKind.LOOKUP and case.intent.state == IntentState.AWAITING_CONFIRMATION:
        # No money is held and no rail is needed: only the client's time runs.
        until = confirmable_until(case.intent)
        return Due.EXPIRE_UNCONFIRMED if case.now >= until and not case.epoch_doubted else Due.WAIT
    if job.kind is JobKind.LOOKUP or (job.fence == 0 and not case.epoch_doubted):
        if not late or waits or case.epoch_doubted:
            return Due.WAIT
        return _asked_first(case) or Due.EXPIRE_UNSENT
    if late and case.attempts and all_negative(case.attempts.values()) and not _doubted(case):
        return Due.WAIT if waits else Due.VOID_NEGATIVE
    if late and case.intent.state != IntentState.UNRESOLVED:
        return Due.PARK
    if job.outcome in _UNKNOWN_THERE and horizon_passed(case) and case.capabilities.cancel_by_reference:
        # Also where a cancel was asked for before: its answer may be lost, and burying twice is harmless.
        return Due.CANCEL
    return Due.INQUIRE if case.capabilities.inquiry else Due.WAIT


def _asked_first(case: Case) -> Due | None:
    """Return the question that comes before what has no permit expires as unsent; None where there is none.

    A restore may have lost its permit, and too late to be sent again it would not meet the provider any more: the
    provider is asked, and has not seen it, H after the epoch was raised.
    """
    if not (case.permits_may_be_lost and case.job.kind.moves_money and case.capabilities.inquiry):
        return None
    if case.job.outcome in _UNKNOWN_THERE and horizon_passed(case):
        return None
    return Due.INQUIRE if case.intent.state == IntentState.UNRESOLVED else Due.PARK


def _doubted(case: Case) -> bool:
    return case.epoch_doubted or case.unapplied_positive
