"""What a verdict does to a payment: the rule alone. A hold is voided only where the negatives prove it. Pure."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from core.domain.intents import IntentRow, lookup_expiry
from core.domain.jobs import JobRow, JobState
from schemas.events import TERMINAL_STATES, IntentState
from schemas.operations import JobKind
from schemas.permits import PermitMode
from schemas.rails import Capabilities
from schemas.results import Basis, Result, Verdict


class Step(StrEnum):
    """What becomes of the payment, of its lookup, or of the fact itself."""

    POST = "POST"
    VOID = "VOID"
    RETRY = "RETRY"
    WAIT = "WAIT"
    SUSPEND = "SUSPEND"
    ALERT = "ALERT"
    QUARANTINE = "QUARANTINE"
    CONFIRM = "CONFIRM"
    REFUSE = "REFUSE"
    IGNORE = "IGNORE"
    COLLECT = "COLLECT"
    """A payment in is reported: it is matched, credited or put into suspense."""
    REVERSE = "REVERSE"
    """A payment in was taken back."""
    AWAIT = "AWAIT"
    """The payer may pay: shown what to pay, and asked about."""
    LAPSE = "LAPSE"
    """The payer did not pay and can no more."""
    RETURN = "RETURN"
    """It was paid and came back: posted where it was not yet, then refunded by a refund of the core's own."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A step and its stable reason; `after_s` for RETRY; `negative_fence` is proven unpaid by the fact.

    `detail` is what a person is told of it beside the reference.
    """

    step: Step
    reason: str = ""
    after_s: float = 0
    negative_fence: int | None = None
    detail: str = ""


@dataclass(slots=True)
class AttemptView:
    """One permit of a job and whether a definite negative was seen for it."""

    fence: int
    mode: PermitMode
    granted_at: datetime
    negative: bool


@dataclass(slots=True)
class Case:
    """A payment as its locked rows show it."""

    job: JobRow
    intent: IntentRow
    attempts: dict[int, AttemptView]
    capabilities: Capabilities
    now: datetime
    epoch_doubted: bool = False
    """The job is older than a ledger epoch that reconciliation has not cleared: permits may have been lost."""
    unapplied_positive: bool = False
    """A fact that says "paid" is kept unapplied: nothing may be voided over it."""
    horizon_starts_at: datetime | None = None
    """A later start of H than the last permit's: when the epoch was raised."""
    returned_minor: int = 0
    """What the provider gave back before, in minor units."""
    asked_at: datetime | None = None
    """When the question that a fact answers was put, at the earliest; None where the fact answers none."""
    paused: bool = False
    """The rail, or an operation of it, is paused or waits: what that keeps back is not voided before it goes on."""

    @property
    def permits_may_be_lost(self) -> bool:
        """Whether the job is older than the newest ledger epoch, cleared or not: its permits may not all be known."""
        return self.horizon_starts_at is not None

    @property
    def decided(self) -> bool:
        """Whether the hold has its one decision or the intent its end."""
        return self.intent.decision is not None or self.intent.state in TERMINAL_STATES


_BACKOFF_FIRST_S = 1.0
_BACKOFF_LONGEST_S = 60.0
PAID = frozenset({Verdict.SUCCEEDED, Verdict.PAID, Verdict.RETURNED})
"""Verdicts that say that money moved, also where it came back."""
NEGATIVE = frozenset({Verdict.DECLINED, Verdict.CANCELLED})
_DOUBT = frozenset({Verdict.PENDING, Verdict.UNKNOWN})


def decide_payment(case: Case, result: Result) -> Decision:
    """Return what a fact about a payment does, whether its own job brought it or an inquiry or a cancel."""
    verdict = result.verdict
    if verdict is Verdict.SUCCEEDED:
        return _succeeded(case, result)
    if verdict is Verdict.RETURNED:
        return _returned(case, result)
    if verdict not in NEGATIVE | _DOUBT | {Verdict.NOT_SENT, Verdict.NOT_FOUND}:
        return Decision(Step.QUARANTINE, "verdict_not_of_a_payment")
    if case.decided:
        contradicts = case.intent.decision == "POST" and verdict in NEGATIVE
        return Decision(Step.ALERT, "failure_after_success") if contradicts else Decision(Step.IGNORE)
    if verdict in NEGATIVE:
        return negative(case, result)
    if verdict is Verdict.NOT_SENT:
        return not_sent(case, result)
    of_reference = result.basis is Basis.REFERENCE_STATUS
    if verdict is Verdict.NOT_FOUND and of_reference and not_found_is_final(case):
        return _void(case, result.reason or "not_found")
    if verdict is Verdict.NOT_FOUND and of_reference and _may_send_anew(case):
        return Decision(Step.RETRY, "not_found", after_s=_backoff_s(case.job))
    return Decision(Step.WAIT, verdict.lower())


def _may_send_anew(case: Case) -> bool:
    """Whether what never arrived is sent again, under its reference: where the provider takes that once, and no
    tombstone could end it. The permit decides once more, in its own transaction, whether it may be sent.
    """
    job, able, expires_at = case.job, case.capabilities, lookup_expiry(case.intent)
    window_ends_at = None
    if job.first_granted_at is not None and able.dedup_window_s is not None:
        window_ends_at = job.first_granted_at + timedelta(seconds=able.dedup_window_s)
    ends = (job.deadline, expires_at if job.kind is JobKind.PAY else None, window_ends_at)
    return (
        job.kind in (JobKind.PAY, JobKind.REFUND)
        # What died is redriven by people alone: sent again by itself, a payment that kills adapters would go round.
        and job.state is not JobState.DEAD
        and able.deduplicates_reference
        and not able.cancel_by_reference
        and not case.unapplied_positive
        and not case.epoch_doubted
        and IntentState(case.intent.state) is not IntentState.UNRESOLVED
        and all(case.now < end for end in ends if end is not None)
    )


def _backoff_s(job: JobRow) -> float:
    """Return how long a job that failed so often rests before it is sent again."""
    return min(_BACKOFF_LONGEST_S, _BACKOFF_FIRST_S * 2.0 ** min(job.failures, 10))


def permit_is_shown(case: Case, result: Result) -> bool:
    """Whether money that a fact tells of may have been sent by us: a permit is known, or a restore may have lost it.

    A lost one is shown by the answer to a question of the core's own about the reference, and by nothing less: who
    sent under a reference that the core alone mints had a permit. A job of the newest epoch has lost none.
    """
    if case.attempts:
        return True
    asked = result.kind.on_control_stream and result.basis is Basis.REFERENCE_STATUS
    return case.permits_may_be_lost and asked


def _succeeded(case: Case, result: Result) -> Decision:
    job, intent = case.job, case.intent
    if not permit_is_shown(case, result):
        return Decision(Step.QUARANTINE, "success_without_attempt")
    if result.amount_minor is None and not case.attempts:
        return Decision(Step.QUARANTINE, "amount_missing")
    if result.amount_minor is not None and result.amount_minor != job.amount_minor:
        return Decision(Step.QUARANTINE, "amount_differs")
    if result.currency is not None and result.currency != job.currency:
        return Decision(Step.QUARANTINE, "currency_differs")
    if result.reference and result.reference != job.reference:
        return Decision(Step.QUARANTINE, "reference_differs")
    known = intent.provider_reference
    if case.decided and known and result.provider_tx_id and known != result.provider_tx_id:
        # Paid twice: one payment is accounted for already, and the other is neither dropped nor taken for it.
        return Decision(Step.QUARANTINE, "second_transaction")
    if intent.decision == "POST" or intent.state == IntentState.SETTLED:
        return Decision(Step.IGNORE)
    if case.decided:
        return Decision(Step.SUSPEND, "success_after_void")
    return Decision(Step.POST)


def _returned(case: Case, result: Result) -> Decision:
    """What came back in all may grow; where a provider tells single returns, a second one is for a person."""
    job, amount_minor = case.job, result.amount_minor or case.job.amount_minor
    if not permit_is_shown(case, result):
        return Decision(Step.QUARANTINE, "return_without_attempt")
    if result.amount_minor is None and not case.attempts:
        return Decision(Step.QUARANTINE, "amount_missing")
    if result.currency is not None and result.currency != job.currency:
        return Decision(Step.QUARANTINE, "currency_differs")
    if result.reference and result.reference != job.reference:
        return Decision(Step.QUARANTINE, "reference_differs")
    if amount_minor > job.amount_minor:
        return Decision(Step.QUARANTINE, "amount_differs")
    if case.returned_minor:
        in_all = case.capabilities.returns_in_all
        if amount_minor == case.returned_minor or (in_all and amount_minor < case.returned_minor):
            return Decision(Step.IGNORE)
        if not in_all:
            return Decision(Step.QUARANTINE, "second_return")
    if case.decided and case.intent.decision != "POST":
        # Paid and back after its void: the wallet has its money, and the provider gives back what it took.
        return Decision(Step.SUSPEND, "returned_after_void")
    return Decision(Step.RETURN, "returned")


def grows(case: Case, result: Result) -> bool:
    """Whether a return of another amount than before is the same fact, further on, and no contradiction of it."""
    return result.verdict is Verdict.RETURNED and case.capabilities.returns_in_all and case.returned_minor > 0


def negative(case: Case, result: Result) -> Decision:
    """Return what a refusal does, by whom and on what basis it was given."""
    reason = result.reason or result.verdict.lower()
    if result.kind is JobKind.CANCEL and result.verdict is Verdict.CANCELLED:
        # A tombstone: the reference is dead, whatever was sent under it, and it was the core that asked for it.
        return _void(case, "withdrawn")
    if result.basis is Basis.REFERENCE_STATUS:
        if case.capabilities.negative_is_final_for_reference:
            return _void(case, reason)
        return Decision(Step.WAIT, "negative_not_final")
    if result.kind.on_control_stream:
        return Decision(Step.WAIT, "not_asked")  # the question was refused, not the payment
    return _own_fence(case, result.fence, reason)


def not_sent(case: Case, result: Result) -> Decision:
    """Return what becomes of a job, or a question, that did not leave: sent again, waited for or ended."""
    if result.kind.on_control_stream:
        return Decision(Step.WAIT, "not_asked")  # the question did not leave: it says nothing about the payment
    reason = result.reason or "not_sent"
    if result.retry_after_s is None:
        return _own_fence(case, result.fence, reason)
    if case.now >= case.job.deadline:
        if case.paused:
            return Decision(Step.WAIT, "paused", negative_fence=result.fence)  # the resolver voids, after the pause
        return _own_fence(case, result.fence, "deadline_unsent")
    if case.unapplied_positive:
        return Decision(Step.WAIT, "unapplied_positive_fact", negative_fence=result.fence)
    after_s = max(float(result.retry_after_s), _backoff_s(case.job))
    return Decision(Step.RETRY, reason, after_s, negative_fence=result.fence)


def _own_fence(case: Case, fence: int, reason: str) -> Decision:
    """A refusal of a request is negative for its own fence: the void needs one for every other fence too."""
    if all_negative(case.attempts.values(), besides=fence) and not case.epoch_doubted:
        decision = _void(case, reason)
    else:
        decision = Decision(Step.WAIT, "other_permits_in_doubt")
    return Decision(decision.step, decision.reason, negative_fence=fence)


def _void(case: Case, reason: str) -> Decision:
    if case.unapplied_positive:
        return Decision(Step.WAIT, "unapplied_positive_fact")
    return Decision(Step.VOID, reason)


def all_negative(attempts: Iterable[AttemptView], besides: int = 0) -> bool:
    """Whether every permit that could send has a definite negative of its own."""
    return all(view.negative or view.fence == besides or view.mode is PermitMode.INQUIRE_ONLY for view in attempts)


def not_found_is_final(case: Case) -> bool:
    """Whether "not found" proves that nothing was paid: asked after H, and after an expiry that the request carried.

    When the answer was given decides, not when it is settled: it may have waited in a stream for longer than H.
    """
    if case.asked_at is None or not case.capabilities.request_expiry or case.capabilities.cancel_by_reference:
        return False
    expires_at = lookup_expiry(case.intent)
    return horizon_passed(case, case.asked_at) and (expires_at is None or case.asked_at >= expires_at)


def horizon_passed(case: Case, at: datetime | None = None) -> bool:
    """Whether H has passed, now or `at` a time, since the last permit, or since the ledger epoch was raised."""
    starts = [view.granted_at for view in case.attempts.values()]
    if case.horizon_starts_at is not None:
        starts.append(case.horizon_starts_at)
    if not starts:
        return False
    return (at or case.now) >= max(starts) + timedelta(seconds=case.capabilities.not_found_horizon_s)


def decide_lookup(case: Case, result: Result, *, auto_confirm_holds: bool) -> Decision:
    """Return what a lookup's answer does. CONFIRM with the reason `auto` authorizes at once. No money is held."""
    if case.decided or case.intent.state != IntentState.VALIDATED:
        return Decision(Step.IGNORE)
    if case.epoch_doubted:
        # What a restore made young again may have been confirmed and paid in the time that was lost.
        return Decision(Step.WAIT, "epoch_doubted")
    if result.verdict is Verdict.FOUND:
        if result.lookup is None:
            return Decision(Step.QUARANTINE, "found_without_lookup")
        return Decision(Step.CONFIRM, "auto" if auto_confirm_holds else "by_client")
    if result.verdict in (Verdict.DECLINED, Verdict.NOT_FOUND):
        return Decision(Step.REFUSE, result.reason or "payee_not_found")
    if result.verdict in (Verdict.NOT_SENT, Verdict.UNKNOWN, Verdict.PENDING):
        if case.now >= case.job.deadline:
            return Decision(Step.REFUSE, "lookup_unanswered")
        backoff_s = min(_BACKOFF_LONGEST_S, _BACKOFF_FIRST_S * 2 ** min(case.job.failures, 10))
        return Decision(Step.RETRY, result.reason, max(float(result.retry_after_s or 0), backoff_s))
    return Decision(Step.QUARANTINE, "verdict_not_of_a_lookup")


def money_hash(result: Result, provider_account: str) -> bytes:
    """Return the hash of a fact's money: the same inbox key with another hash is quarantined, never ignored."""
    parts = (result.amount_minor, result.currency, provider_account, result.provider_tx_id)
    text = "\x1f".join("" if part is None else str(part) for part in parts)
    return hashlib.sha256(text.encode()).digest()


FactKey = tuple[UUID, int, Verdict]
"""Job, fence, verdict: what makes a fact the same fact."""


def fact_key(result: Result) -> FactKey:
    """Return the inbox key of a fact."""
    return result.job_id, result.fence, result.verdict
