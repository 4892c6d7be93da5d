"""Every fact in every situation, judged twice: by the code, and by the protocol's sentence read literally."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product
from uuid import UUID

import pytest

from core.domain.ids import mint_id
from core.domain.intents import IntentRow
from core.domain.jobs import JobRow, JobState
from core.domain.verdicts import AttemptView, Case, Step, decide_payment
from schemas.operations import JobKind, OperationType
from schemas.permits import PermitMode
from schemas.rails import Capabilities
from schemas.results import Basis, Result, Verdict

SENT_AT = datetime(2026, 11, 21, tzinfo=UTC)
H_S = 120
TENANT, JOB, INTENT = UUID(int=1), mint_id(1_000), mint_id(1_000)
STATES = {
    "AUTHORIZED": None, "DISPATCHED": None, "UNRESOLVED": None,
    "SETTLED": "POST", "FAILED": "VOID", "CANCELLED": "VOID", "EXPIRED": "VOID",
}  # fmt: skip


@dataclass(frozen=True)
class Permits:
    """What is known of the permits: the mode and the negative of the first, and whether there is a second."""

    first_mode: PermitMode
    first_negative: bool
    second: bool


PERMITS = [Permits(mode, negative, second) for mode, negative, second in product(
    (PermitMode.SEND, PermitMode.INQUIRE_ONLY), (False, True), (False, True))]  # fmt: skip


@dataclass(frozen=True)
class Rail:
    """What the provider can do, and the doubts of the core."""

    final: bool
    expiry: bool
    cancels: bool
    late: bool
    unapplied_positive: bool
    epoch_doubted: bool


RAILS = [Rail(*flags) for flags in product((False, True), repeat=6)]


@cache
def _capabilities(rail: Rail) -> Capabilities:
    return Capabilities(
        not_found_horizon_s=H_S, max_amount_minor=10**9, currencies=["THB"], inquiry=True,
        negative_is_final_for_reference=rail.final, request_expiry=rail.expiry, cancel_by_reference=rail.cancels,
    )  # fmt: skip


def _case(state: str, permits: Permits, rail: Rail) -> Case:
    job = JobRow(JOB, TENANT, INTENT, JobKind.PAY, OperationType.PAYOUT, "testrail", "p", "a", "s", "R" * 16, 100,
                 "THB", SENT_AT + timedelta(hours=1), state=JobState.QUEUED, fence=1 + permits.second)  # fmt: skip
    intent = IntentRow(INTENT, TENANT, "k", "PAYOUT", state, UUID(int=2), 100, "THB", "AUTHORIZED")
    intent.decision = STATES[state]
    views = {1: AttemptView(1, permits.first_mode, SENT_AT, permits.first_negative)}
    if permits.second:
        views[2] = AttemptView(2, PermitMode.SEND, SENT_AT, negative=False)
    now = SENT_AT + timedelta(seconds=H_S if rail.late else H_S - 1)
    return Case(job, intent, views, _capabilities(rail), now, rail.epoch_doubted, rail.unapplied_positive, asked_at=now)


def _may_void(state: str, permits: Permits, rail: Rail, result: Result) -> bool:
    """The protocol, section 3: "A hold may be voided iff", sentence by sentence. Some permit was granted here."""
    if STATES[state] is not None or rail.unapplied_positive:
        return False
    refused = result.verdict in (Verdict.DECLINED, Verdict.CANCELLED)
    if result.kind is JobKind.CANCEL and result.verdict is Verdict.CANCELLED:
        return True  # "a tombstone ... also kills a reference never seen"
    if result.basis is Basis.REFERENCE_STATUS and refused:
        return rail.final  # "covers all fences, but only where the capability holds"
    if result.basis is Basis.REFERENCE_STATUS and result.verdict is Verdict.NOT_FOUND:
        return rail.late and rail.expiry and not rail.cancels  # "after H and only if the request carried an expiry"
    if result.kind is not JobKind.PAY:
        return False  # what refuses a question says nothing about the payment
    if refused or (result.verdict is Verdict.NOT_SENT and result.retry_after_s is None):
        # "negative for its own fence only": every other permit needs a negative of its own, and none may be forgotten
        first_is_covered = result.fence == 1 or permits.first_negative or permits.first_mode is PermitMode.INQUIRE_ONLY
        second_is_covered = not permits.second or result.fence == 2
        return first_is_covered and second_is_covered and not rail.epoch_doubted
    return False


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("state", list(STATES))
def test_every_fact_voids_exactly_where_the_protocol_proves_it(verdict: Verdict, state: str) -> None:
    facts = [
        Result(job_id=JOB, rail="testrail", kind=kind, fence=fence, verdict=verdict, basis=basis, retry_after_s=retry,
               observed_at=SENT_AT)
        for kind, fence, basis, retry in product(
            (JobKind.PAY, JobKind.INQUIRE, JobKind.CANCEL), (1, 2), (Basis.SUBMISSION, Basis.REFERENCE_STATUS),
            (None, 1.0) if verdict is Verdict.NOT_SENT else (None,))
    ]  # fmt: skip
    for result, permits, rail in product(facts, PERMITS, RAILS):
        if result.fence == 2 and not permits.second:
            continue
        decision = decide_payment(_case(state, permits, rail), result)
        where = (result, permits, rail)
        assert (decision.step is Step.VOID) == _may_void(state, permits, rail, result), where
        paid_may_post = verdict is Verdict.SUCCEEDED and STATES[state] is None
        assert (decision.step is Step.POST) == paid_may_post, where
        # Money that proves paid after a void rests in suspense; what comes back of it makes suspense whole.
        after_void = verdict in (Verdict.SUCCEEDED, Verdict.RETURNED) and STATES[state] == "VOID"
        assert (decision.step is Step.SUSPEND) == after_void, where
        back = verdict is Verdict.RETURNED and STATES[state] != "VOID"
        assert (decision.step is Step.RETURN) == back, where
        if STATES[state] is not None:
            assert decision.step in {Step.RETURN, Step.IGNORE, Step.ALERT, Step.SUSPEND, Step.QUARANTINE}, where


def test_what_came_back_before_comes_back_no_more() -> None:
    permits, rail = PERMITS[0], RAILS[0]
    for amount_minor, before, step in (
        (None, 100, Step.IGNORE), (100, 100, Step.IGNORE), (40, 40, Step.IGNORE), (60, 40, Step.QUARANTINE),
        (40, 100, Step.QUARANTINE), (101, 0, Step.QUARANTINE), (40, 0, Step.RETURN), (None, 0, Step.RETURN),
    ):  # fmt: skip
        case = _case("SETTLED", permits, rail)
        case.returned_minor = before
        result = Result(job_id=JOB, rail="testrail", kind=JobKind.INQUIRE, fence=1, verdict=Verdict.RETURNED,
                        basis=Basis.REFERENCE_STATUS, amount_minor=amount_minor, observed_at=SENT_AT)  # fmt: skip
        assert decide_payment(case, result).step is step, (amount_minor, before)
