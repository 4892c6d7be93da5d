"""Money in: what a verdict does to a collection, and what becomes of one payment at a provider. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from core.domain.intents import IntentRow
from core.domain.jobs import JobRow
from core.domain.registry import OPERATIONS
from core.domain.resolution import Due, Pace
from core.domain.verdicts import NEGATIVE, Case, Decision, Step, negative, not_sent, permit_is_shown
from schemas.collections import PaymentFate, PaymentKind, PaymentSource, PaymentStatus, ProviderPayment
from schemas.events import IntentState
from schemas.results import Basis, Result, Verdict

LONGEST_POLL_S: Final = 30.0
"""A payer waits in front of a code: a collection is asked about at least this often."""
_NAME: Final = re.compile(r"[\x21-\x7e]{1,64}")
_RECEIVED: Final = frozenset({Verdict.PAID, Verdict.SUCCEEDED})


def decide_collection(case: Case, result: Result) -> Decision:
    """Return what a fact about a collection does, whether its own job brought it or an inquiry or a cancel."""
    verdict = result.verdict
    if verdict in _RECEIVED or verdict is Verdict.RETURNED:
        if fault := _unusable(case, result):
            return Decision(Step.QUARANTINE, fault)
        return Decision(Step.REVERSE if verdict is Verdict.RETURNED else Step.COLLECT)
    if not case.intent.expects_payment:
        # One in review was paid as well.
        paid = case.intent.decision == "POST" or case.intent.state == IntentState.REVIEW
        contradicts = paid and verdict in NEGATIVE
        return Decision(Step.ALERT, "failure_after_success") if contradicts else Decision(Step.IGNORE)
    if verdict is Verdict.AWAITING_PAYMENT:
        return Decision(Step.AWAIT)
    if verdict is Verdict.EXPIRED or (verdict is Verdict.CANCELLED and result.basis is Basis.REFERENCE_STATUS):
        return Decision(Step.LAPSE, result.reason or verdict.lower())
    if verdict in NEGATIVE:
        return negative(case, result)
    if verdict is Verdict.NOT_SENT:
        return not_sent(case, result)
    if verdict is Verdict.NOT_FOUND and _may_ask_anew(case, result):
        return Decision(Step.RETRY, "not_found", after_s=1.0)
    if verdict in (Verdict.NOT_FOUND, Verdict.PENDING, Verdict.UNKNOWN):
        return Decision(Step.WAIT, verdict.lower())
    return Decision(Step.QUARANTINE, "verdict_not_of_a_collection")


def _unusable(case: Case, result: Result) -> str:
    if not permit_is_shown(case, result):
        return "success_without_attempt"
    if result.amount_minor is None or result.currency is None:
        return "amount_missing"
    if not _NAME.fullmatch(result.provider_tx_id or ""):
        return "transaction_missing"
    return "reference_differs" if result.reference and result.reference != case.job.reference else ""


def _may_ask_anew(case: Case, result: Result) -> bool:
    """Nothing can be paid for a code that the provider does not know; a deduplicating one makes it once."""
    known = case.capabilities.deduplicates_reference and not case.job.tombstoned
    return known and result.basis is Basis.REFERENCE_STATUS and case.now < case.job.deadline


def decide_due_collection(case: Case, *, waits: bool) -> Due:
    """Return the step for an open collect job that is due. `waits`: its rail is paused or was unreachable just now.

    No money is held, so lateness alone ends it: what is paid later rests in suspense. A direct debit is pulled, and
    nothing takes that back: it ends by the provider's word alone.
    """
    job, late = case.job, case.now >= case.job.deadline
    if job.fence == 0 and not case.epoch_doubted:
        return Due.EXPIRE_UNSENT if late and not waits else Due.WAIT
    asks = Due.INQUIRE if case.capabilities.inquiry else Due.WAIT
    parks = asks if case.intent.state == IntentState.UNRESOLVED else Due.PARK
    if late and not waits:
        if OPERATIONS[job.operation].pulls:
            return parks
        patience = timedelta(seconds=case.capabilities.not_found_horizon_s)
        if case.now >= job.deadline + patience and not case.epoch_doubted:
            return parks if case.unapplied_positive else Due.EXPIRE_UNPAID
    # Marked where its client wants no payment any more. Asked again, it is the same.
    buries = case.capabilities.cancel_by_reference and (job.tombstoned or (late and not waits))
    return Due.CANCEL if buries else asks


def poll_after_s(case: Case, pace: Pace) -> float:
    """Return when a collection is asked about next: soon while a payer may be paying, and right after the deadline."""
    after_s = min(pace.after_s(case.job.inquiries), LONGEST_POLL_S)
    left_s = (case.job.deadline - case.now).total_seconds()
    return min(after_s, left_s + pace.first_s / 2) if left_s > 0 else after_s


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a payment may be below or above what was asked, in minor units, and still be credited as it came."""

    below_minor: int = 0
    above_minor: int = 0

    def takes(self, asked_minor: int, received_minor: int) -> bool:
        """Whether a payment of this amount is credited."""
        return asked_minor - self.below_minor <= received_minor <= asked_minor + self.above_minor


EXACT: Final = Tolerance()
MONITORED: Final = "monitored"
"""Why money rests that came as it was asked for: a person decides about it first."""


@dataclass(slots=True)
class Payment:
    """One payment at a provider as it is stored."""

    id: UUID
    tenant_id: UUID
    state: str
    amount_minor: int
    currency: str
    intent_id: UUID | None = None
    consumed_by: UUID | None = None
    reason: str = ""
    returned_minor: int = 0
    """What its provider took back of it while it rested in suspense."""
    returned_by: UUID | None = None
    """The return that took it back, or waits to."""
    names: frozenset[str] = frozenset()

    @property
    def left_minor(self) -> int:
        """What rests of it in suspense, where it does."""
        return self.amount_minor - self.returned_minor


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of a fact, and the stable reason of a suspense or a quarantine."""

    fate: PaymentFate
    reason: str = ""
    asks: bool = False
    """Whether the collection that it names is asked about at once."""


FURTHER: Final = "further_payment"
"""Why a payment goes by way of suspense to its wallet: its code was paid before, and may be paid again and again."""
RETURN_TO_APPLY: Final = frozenset({"return_of_unknown_payment", "refund_running"})
"""Why a return waits that surely happened: it is applied once its payment is there to be taken back."""
NAME_OF_ANOTHER: Final = "name_of_another_transaction"


def same_transaction(fact: ProviderPayment, named: Sequence[Payment]) -> tuple[Payment | None, bool]:
    """Return the payment that a fact is about, of those that its names are known for, and whether a name is another's.

    The provider's own name decides. By another name alone it is the same transaction only where that is all that is
    known of it: two that differ in the provider's name are two, whatever else they are called.
    """
    told = {fact.transaction_id, *fact.also_known_as}
    own = next((each for each in named if fact.transaction_id in each.names), None)
    others = [each for each in named if each is not own]
    if own is not None:
        return own, bool(others)
    if len(others) == 1 and others[0].names <= told:
        return others[0], False
    return None, bool(others)


def judge(
    fact: ProviderPayment,
    known: Payment | None,
    intent: IntentRow | None,
    tolerance: Tolerance,
    *,
    shares_name: bool = False,
    reusable: bool = False,
) -> Judgement:
    """Return what becomes of a PAYMENT fact, the rows being locked.

    `intent` is the collection whose reference the payment carried. Only a payment that was confirmed credits; a line of
    a register or statement confirms what is known, and parks what nothing open expects. `shares_name`: a name of it is
    another transaction's, so that a person looks before money moves. `reusable`: what the payer was shown may be paid
    again and again; of what follows the first payment a statement tells for sure, too.
    """
    if shares_name and (known is None or known.state == "NOTED"):
        return Judgement(PaymentFate.QUARANTINED, NAME_OF_ANOTHER, asks=True)
    if known is not None and (known.amount_minor, known.currency) != (fact.amount_minor, fact.currency):
        return Judgement(PaymentFate.QUARANTINED, "same_transaction_other_money")
    if known is not None and known.state != "NOTED":
        return Judgement(PaymentFate.KNOWN)
    if fact.status is not PaymentStatus.SUCCEEDED:
        return Judgement(PaymentFate.NOTED, asks=True)
    sure = fact.source is PaymentSource.POLL or (fact.source is PaymentSource.CALLBACK and fact.confirmed)
    booked = fact.source in (PaymentSource.REGISTER, PaymentSource.STATEMENT)
    open_ = intent is not None and intent.expects_payment
    if not sure and (open_ or not booked):
        return Judgement(PaymentFate.NOTED, asks=True)
    if intent is None:
        return Judgement(PaymentFate.SUSPENDED, "unknown_reference")
    if not open_ and (closed := _closed_to(fact, intent, reusable=reusable)):
        return Judgement(PaymentFate.SUSPENDED, closed)
    if fact.currency != intent.currency:
        return Judgement(PaymentFate.SUSPENDED, "currency_differs")
    if not tolerance.takes(intent.expected_minor, fact.amount_minor):
        return Judgement(PaymentFate.SUSPENDED, "amount_differs")
    return Judgement(PaymentFate.CREDITED) if open_ else Judgement(PaymentFate.SUSPENDED, FURTHER)


def _closed_to(fact: ProviderPayment, intent: IntentRow, *, reusable: bool) -> str:
    """Return why a payment for a collection that has ended is none of its wallet's; empty where it is a further one.

    What the payer was shown may name until when it is payable; where it names no time, it always is.
    """
    if intent.state == IntentState.REVIEW:
        return "second_payment"
    if intent.state != IntentState.SETTLED:
        return "late_payment"
    if not reusable or fact.source is PaymentSource.REGISTER:
        return "second_payment"
    until = (intent.next_action or {}).get("expires_at")
    return "late_payment" if until is not None and fact.occurred_at > datetime.fromisoformat(until) else ""


def judge_return(
    fact: ProviderPayment, known: Payment | None, paid: Payment | None, *, refund_runs: bool = False
) -> Judgement:
    """Return what becomes of a RETURN fact; `known` is an earlier one, `paid` the payment that was taken back.

    `refund_runs`: a person's refund of it is on its way; whose loss the return is shows when that has ended.
    """
    if known is not None and (known.amount_minor, known.currency) != (fact.amount_minor, fact.currency):
        return Judgement(PaymentFate.QUARANTINED, "second_return")
    if known is not None and known.state != "NOTED":
        return Judgement(PaymentFate.KNOWN)
    # The line of a statement counts: for what a bank took back it is the only source. One of a register never does.
    told = fact.source in (PaymentSource.POLL, PaymentSource.STATEMENT)
    sure = told or (fact.source is PaymentSource.CALLBACK and fact.confirmed)
    if fact.status is not PaymentStatus.SUCCEEDED or not sure:
        return Judgement(PaymentFate.NOTED, known.reason if known is not None else "", asks=True)
    if paid is None or paid.state == "NOTED":
        return Judgement(PaymentFate.NOTED, "return_of_unknown_payment")
    if paid.returned_by is not None and (known is None or known.id != paid.returned_by):
        return Judgement(PaymentFate.QUARANTINED, "second_return")
    if fact.currency != paid.currency or fact.amount_minor > paid.amount_minor:
        return Judgement(PaymentFate.QUARANTINED, "return_differs")
    return Judgement(PaymentFate.NOTED, "refund_running") if refund_runs else Judgement(PaymentFate.REVERSED)


def received(result: Result, job: JobRow) -> list[ProviderPayment]:
    """Return a collection's PAID or RETURNED as the facts that it is: asked by us, so they may credit."""
    assert result.amount_minor is not None and result.currency is not None  # noqa: S101, PT018 - it was decided on
    returned = result.verdict is Verdict.RETURNED
    first = ProviderPayment(
        provider_account=job.provider_account,
        environment=job.environment,
        transaction_id=result.provider_tx_id or "",
        kind=PaymentKind.RETURN if returned else PaymentKind.PAYMENT,
        status=PaymentStatus.SUCCEEDED,
        amount_minor=result.amount_minor,
        currency=result.currency,
        reference=job.reference,
        source=PaymentSource.POLL,
        confirmed=True,
        occurred_at=result.observed_at,
        evidence_id=result.evidence_id,
    )
    others = [each for each in result.further or () if each.transaction_id != first.transaction_id]
    return [first, *(first.model_copy(update={"kind": PaymentKind.PAYMENT, **each.model_dump()}) for each in others)]
