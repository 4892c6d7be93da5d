"""Whether a dead letter may be sent again, how fast a redrive goes, and when it stops by itself. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Redrive(StrEnum):
    """Whether a dead letter may be sent again."""

    SAFE = "SAFE"
    INQUIRE_FIRST = "INQUIRE_FIRST"
    REFUSED = "REFUSED"


class Source(StrEnum):
    """What died: a job on its way to an adapter, or an answer on its way into the core."""

    JOB = "JOB"
    RESULT = "RESULT"


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known about a dead letter, its job, its intent and its provider, in one transaction's time."""

    source: Source
    letter_open: bool
    job_known: bool = False
    decided: bool = False
    """The intent has its end, or the job is closed: it never reopens."""
    under_way: bool = False
    """The job is in the outbox or in its stream: it does not wait for anybody."""
    reads_only: bool = False
    """A lookup, or a question about a payment: no money moves by it."""
    permitted: bool = False
    """At least one permit was given."""
    all_negative: bool = False
    """Every permit that could send has a definite negative."""
    tombstoned: bool = False
    doubted: bool = False
    """A restore may have lost permits, and nobody has cleared that."""
    says_paid: bool = False
    """A fact says that it was paid, applied or not."""
    late: bool = False
    """A call that is begun now could end after the job's deadline, so that no permit sends it any more."""
    deduplicates: bool = False
    forgotten: bool = False
    """The provider's dedup window is over, or too nearly over for another sending."""
    inquires: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its sentence. The sentence is one of a closed list: equal standings have equal sentences."""

    verdict: Redrive
    reason: str


_REFUSED, _ASK, _SAFE = Redrive.REFUSED, Redrive.INQUIRE_FIRST, Redrive.SAFE

CLOSED: Final = Judgement(_REFUSED, "this letter is closed: it was acted upon, or its payment ended")
DECIDED: Final = Judgement(_REFUSED, "the intent is decided, and a closed job never reopens: ask for a new payment")
ANSWERED: Final = Judgement(_SAFE, "the provider answered: only the core reads the answer again")
UNKNOWN_JOB: Final = Judgement(_REFUSED, "no job of this rail is known by this entry: there is nothing to send")
UNDER_WAY: Final = Judgement(_REFUSED, "the job is on its way already: it needs no redrive")
READS: Final = Judgement(
    _SAFE,
    "it only asks: no money moves by it; a payment that waits for its lookup holds none, and expires at its deadline",
)
SAYS_PAID: Final = Judgement(_REFUSED, "a fact says that it was paid: redrive that result, or settle it by hand")
LATE: Final = Judgement(_REFUSED, "nothing was sent, and its deadline leaves no time to: it is voided by itself")
NEVER_SENT: Final = Judgement(_SAFE, "no permit was ever given: nothing was sent")
ALL_NEGATIVE: Final = Judgement(_SAFE, "every permit is proven unpaid")
DOUBTED: Final = Judgement(_ASK, "the database was restored: permits may be lost, so it may have been sent")
DOUBTED_MUTE: Final = Judgement(
    _REFUSED, "the database was restored and the provider answers no inquiries: settle it by hand, with evidence"
)
FORGOTTEN: Final = Judgement(
    _REFUSED, "it may have been sent, and the provider no longer knows the reference: settle it by hand, or pay anew"
)
MUTE: Final = Judgement(
    _REFUSED, "it may have been sent, and the provider neither deduplicates nor answers: settle it by hand"
)
MAY_BE_SENT: Final = Judgement(_ASK, "a permit has no definite negative: it may have been sent")


def judge(standing: Standing) -> Judgement:
    """Return whether a redrive is safe, in the order of the table in docs/on-call.md. The first line that fits counts.

    SAFE is what a permit would send without asking, or what moves no money; INQUIRE_FIRST is what the permit protocol
    lets out only as an inquiry, or as a sending that the provider deduplicates.
    """
    if not standing.letter_open:
        return CLOSED
    if standing.source is Source.RESULT:
        # Whatever was decided since: reading an answer reopens no job, and money that it tells of must be booked.
        return ANSWERED
    if standing.decided:
        return DECIDED
    if not standing.job_known:
        return UNKNOWN_JOB
    if standing.under_way:
        return UNDER_WAY
    return READS if standing.reads_only else _judge_payment(standing)


def _judge_payment(standing: Standing) -> Judgement:
    if standing.says_paid:
        return SAYS_PAID
    if standing.doubted:
        return DOUBTED if standing.inquires else DOUBTED_MUTE
    unsent = not standing.tombstoned and (not standing.permitted or standing.all_negative)
    if unsent:
        if standing.late:
            return LATE
        return ALL_NEGATIVE if standing.permitted else NEVER_SENT
    if standing.deduplicates and standing.forgotten:
        return FORGOTTEN
    if not standing.deduplicates and not standing.inquires:
        return MUTE
    return MAY_BE_SENT


def allowed_by(elapsed_ms: int, rate_per_s: int, ramp_s: int) -> int:
    """Return how many letters may have been acted upon after this time: the rate is reached in a straight line."""
    ramp_ms = ramp_s * 1000
    if elapsed_ms < ramp_ms:
        return rate_per_s * elapsed_ms * elapsed_ms // (2 * ramp_ms * 1000)
    return rate_per_s * (2 * elapsed_ms - ramp_ms) // 2000


RECENT: Final = 50
"""So many of the newest known outcomes are a rate of their own: what fails now is not outweighed by the past."""
_ENOUGH: Final = 5
"""Fewer outcomes than this say nothing about a rate, but in a canary, where each one counts."""


def failing(failed: int, succeeded: int, stop_at_percent: int, *, canary: bool) -> bool:
    """Whether the share of failures among the known outcomes has reached the bound."""
    known = failed + succeeded
    if failed == 0 or (known < _ENOUGH and not canary):
        return False
    return failed * 100 >= stop_at_percent * known
