"""The pure rules of permits and verdicts: no sequence of facts both posts and voids."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.collections import decide_collection
from core.domain.ids import mint_id
from core.domain.intents import IntentRow
from core.domain.jobs import JobRow, JobState
from core.domain.permits import Gates, Grant, Refusal, Refused, decide_permit
from core.domain.resolution import Due, decide_due
from core.domain.verdicts import AttemptView, Case, Decision, Step, decide_payment
from schemas.events import IntentState
from schemas.operations import JobKind, OperationType
from schemas.permits import PermitMode
from schemas.rails import Capabilities, Timing
from schemas.results import Basis, Result, Verdict

NOW = datetime(2026, 11, 21, tzinfo=UTC)
TENANT = UUID(int=1)


def _job(**changed: object) -> JobRow:
    fields: dict[str, object] = {
        "id": mint_id(1_000),
        "tenant_id": TENANT,
        "intent_id": mint_id(1_000),
        "kind": JobKind.PAY,
        "operation": OperationType.PAYOUT,
        "rail": "testrail",
        "provider": "p",
        "provider_account": "a",
        "environment": "sandbox",
        "reference": "R" * 16,
        "amount_minor": 100,
        "currency": "THB",
        "deadline": NOW + timedelta(hours=1),
        "state": JobState.QUEUED,
    }
    return JobRow(**(fields | changed))  # type: ignore[arg-type]


def _capabilities(**changed: object) -> Capabilities:
    base = {"not_found_horizon_s": 120, "max_amount_minor": 10**9, "currencies": ["THB"], "inquiry": True}
    return Capabilities.model_validate(base | changed)


def _case(fences: int, **capabilities: object) -> Case:
    job = _job(fence=fences)
    intent = IntentRow(job.intent_id, TENANT, "k", "PAYOUT", "DISPATCHED", UUID(int=2), 100, "THB", "AUTHORIZED")
    views = {n: AttemptView(n, PermitMode.SEND, NOW, negative=False) for n in range(1, fences + 1)}
    return Case(job, intent, views, _capabilities(**capabilities), NOW)


def _result(verdict: Verdict, fence: int = 1, basis: Basis = Basis.SUBMISSION, **changed: object) -> Result:
    base = {"job_id": UUID(int=9), "rail": "testrail", "kind": JobKind.PAY, "fence": fence, "observed_at": NOW}
    return Result.model_validate(base | {"verdict": verdict, "basis": basis} | changed)


def _gates(**changed: object) -> Gates:
    timing = Timing(send_by_s=5, call_total_s=10, claim_idle_s=60)
    fields: dict[str, object] = {
        "now": NOW, "timing": timing, "ledger_epoch": 1,
        "epoch_cleared": True, "paused": frozenset(), "throttled": False
    }  # fmt: skip
    return Gates(**(fields | changed))  # type: ignore[arg-type]


def test_a_refusal_voids_only_when_every_other_permit_is_negative() -> None:
    assert decide_payment(_case(1), _result(Verdict.DECLINED)).step is Step.VOID
    assert decide_payment(_case(2), _result(Verdict.DECLINED, fence=2)).step is Step.WAIT


def test_a_status_of_the_reference_voids_only_where_it_is_final() -> None:
    fact = _result(Verdict.DECLINED, 0, Basis.REFERENCE_STATUS, kind=JobKind.INQUIRE)
    assert decide_payment(_case(2), fact).step is Step.WAIT
    assert decide_payment(_case(2, negative_is_final_for_reference=True), fact).step is Step.VOID


def test_not_found_counts_after_the_horizon_and_only_with_an_expiry() -> None:
    fact = _result(Verdict.NOT_FOUND, 0, Basis.REFERENCE_STATUS, kind=JobKind.INQUIRE)
    case = _case(1, request_expiry=True)
    case.asked_at = case.now
    assert decide_payment(case, fact).step is Step.WAIT
    case.now = case.asked_at = NOW + timedelta(seconds=121)
    assert decide_payment(case, fact).step is Step.VOID
    plain = _case(1)
    plain.now = plain.asked_at = case.now
    assert decide_payment(plain, fact).step is Step.WAIT


def test_not_found_counts_from_when_it_was_asked_not_from_when_it_is_settled() -> None:
    fact = _result(Verdict.NOT_FOUND, 0, Basis.REFERENCE_STATUS, kind=JobKind.INQUIRE)
    case = _case(1, request_expiry=True)
    case.now = NOW + timedelta(hours=2)
    for asked_at in (None, NOW, NOW + timedelta(seconds=119)):
        case.asked_at = asked_at
        assert decide_payment(case, fact).step is Step.WAIT
    case.asked_at = NOW + timedelta(seconds=120)
    assert decide_payment(case, fact).step is Step.VOID


def test_the_horizon_begins_with_the_last_permit_and_again_with_a_raised_epoch() -> None:
    fact = _result(Verdict.NOT_FOUND, 0, Basis.REFERENCE_STATUS, kind=JobKind.INQUIRE)
    case = _case(2, request_expiry=True)
    case.attempts[2].granted_at = NOW + timedelta(seconds=50)
    case.now = case.asked_at = NOW + timedelta(seconds=169)
    assert decide_payment(case, fact).step is Step.WAIT
    case.now = case.asked_at = NOW + timedelta(seconds=170)
    assert decide_payment(case, fact).step is Step.VOID
    case.horizon_starts_at = NOW + timedelta(seconds=60)
    assert decide_payment(case, fact).step is Step.WAIT
    case.now = case.asked_at = NOW + timedelta(seconds=180)
    assert decide_payment(case, fact).step is Step.VOID


def test_not_found_counts_only_once_the_payments_lookup_has_expired() -> None:
    fact = _result(Verdict.NOT_FOUND, 0, Basis.REFERENCE_STATUS, kind=JobKind.INQUIRE)
    case = _case(1, request_expiry=True)
    case.intent.lookup = {"expires_at": (NOW + timedelta(seconds=300)).isoformat()}
    case.now = NOW + timedelta(hours=2)
    case.asked_at = NOW + timedelta(seconds=299)
    assert decide_payment(case, fact).step is Step.WAIT
    case.asked_at = NOW + timedelta(seconds=300)
    assert decide_payment(case, fact).step is Step.VOID


def _never_arrived(**capabilities: object) -> tuple[Case, Result]:
    """A payment that its provider does not know, at a provider that takes a reference once."""
    case = _case(1, deduplicates_reference=True, **capabilities)
    case.job.first_granted_at = case.asked_at = NOW
    return case, _result(Verdict.NOT_FOUND, 0, Basis.REFERENCE_STATUS, kind=JobKind.INQUIRE)


def test_what_died_is_not_sent_again_by_itself_though_it_never_arrived() -> None:
    case, fact = _never_arrived()
    assert decide_payment(case, fact).step is Step.RETRY
    case.job.state = JobState.DEAD
    assert decide_payment(case, fact).step is Step.WAIT


def test_what_never_arrived_is_sent_again_where_its_provider_takes_a_reference_once() -> None:
    case, fact = _never_arrived()
    assert decide_payment(case, fact) == Decision(Step.RETRY, "not_found", after_s=1)
    case.job.failures = 3
    assert decide_payment(case, fact).after_s == 8
    assert decide_payment(*_never_arrived(dedup_window_s=60)).step is Step.RETRY
    again, refund = _never_arrived()
    again.job.kind = JobKind.REFUND
    assert decide_payment(again, refund).step is Step.RETRY


@pytest.mark.parametrize(
    ("changed", "capabilities"),
    [
        ({"now": NOW + timedelta(hours=1)}, {}),
        ({"now": NOW + timedelta(seconds=60)}, {"dedup_window_s": 60}),
        ({"unapplied_positive": True}, {}),
        ({"epoch_doubted": True}, {}),
        ({}, {"cancel_by_reference": True}),
        ({}, {"deduplicates_reference": False}),
    ],
)
def test_what_never_arrived_waits_where_sending_again_could_pay_twice_or_come_too_late(
    changed: dict[str, Any], capabilities: dict[str, object]
) -> None:
    case, fact = _never_arrived()
    able = _capabilities(**({"deduplicates_reference": True} | capabilities))
    assert decide_payment(replace(case, capabilities=able, **changed), fact).step is Step.WAIT


def test_what_never_arrived_waits_once_it_is_parked_or_its_lookup_has_expired() -> None:
    parked, fact = _never_arrived()
    parked.intent.state = "UNRESOLVED"
    assert decide_payment(parked, fact).step is Step.WAIT
    expired, fact = _never_arrived()
    expired.intent.lookup = {"expires_at": NOW.isoformat()}
    assert decide_payment(expired, fact).step is Step.WAIT


def test_an_unapplied_success_blocks_every_void() -> None:
    case = _case(1)
    case.unapplied_positive = True
    assert decide_payment(case, _result(Verdict.DECLINED)).step is Step.WAIT


@pytest.mark.parametrize("changed", [{"amount_minor": 99}, {"currency": "USD"}, {"reference": "OTHER"}])
def test_a_success_that_differs_from_the_hold_is_quarantined(changed: dict[str, Any]) -> None:
    assert decide_payment(_case(1), _result(Verdict.SUCCEEDED, **changed)).step is Step.QUARANTINE


def test_a_success_whose_permit_a_restore_lost_is_for_people() -> None:
    paid = _result(Verdict.SUCCEEDED, 0, Basis.REFERENCE_STATUS, kind=JobKind.INQUIRE)
    assert decide_payment(_case(0), paid).step is Step.QUARANTINE
    assert decide_payment(_case(1), paid).step is Step.POST


def test_success_after_a_void_goes_to_suspense_and_failure_after_success_to_people() -> None:
    case = _case(1)
    case.intent.decision, case.intent.state = "VOID", "FAILED"
    assert decide_payment(case, _result(Verdict.SUCCEEDED)).step is Step.SUSPEND
    case.intent.decision, case.intent.state = "POST", "SETTLED"
    assert decide_payment(case, _result(Verdict.DECLINED)).step is Step.ALERT


_FACTS = st.tuples(st.sampled_from(list(Verdict)), st.integers(1, 3), st.sampled_from(list(Basis)))


@given(st.lists(_FACTS, max_size=12), st.booleans(), st.booleans())
def test_no_sequence_of_facts_both_posts_and_voids(
    facts: list[tuple[Verdict, int, Basis]], final: bool, expiry: bool
) -> None:
    case = _case(3, negative_is_final_for_reference=final, request_expiry=expiry)
    taken = []
    for verdict, fence, basis in facts:
        decision = decide_payment(case, _result(verdict, fence, basis))
        if decision.negative_fence:
            case.attempts[decision.negative_fence].negative = True
        if decision.step in (Step.POST, Step.VOID):
            taken.append(decision.step)
            case.intent.decision = "POST" if decision.step is Step.POST else "VOID"
            case.intent.state = "SETTLED" if decision.step is Step.POST else "FAILED"
    assert len(taken) <= 1


def test_a_second_permit_sends_only_inside_the_dedup_window() -> None:
    job = _job(fence=1, first_granted_at=NOW - timedelta(seconds=100))
    outside = _capabilities(deduplicates_reference=True, dedup_window_s=110)
    inside = _capabilities(deduplicates_reference=True, dedup_window_s=3600)
    ask = IntentState.DISPATCHED
    assert decide_permit(job, ask, outside, _gates()) == Grant(PermitMode.INQUIRE_ONLY, first=False)
    assert decide_permit(job, ask, inside, _gates()) == Grant(PermitMode.SEND, first=False)
    assert decide_permit(job, ask, _capabilities(), _gates()) == Grant(PermitMode.INQUIRE_ONLY, first=False)
    job.tombstoned = True
    assert decide_permit(job, ask, inside, _gates()) == Grant(PermitMode.INQUIRE_ONLY, first=False)


def test_a_pause_refuses_first_permits_only() -> None:
    gates = _gates(paused=frozenset({"*"}))
    first = decide_permit(_job(), IntentState.DISPATCHED, _capabilities(), gates)
    later = decide_permit(_job(fence=1), IntentState.DISPATCHED, _capabilities(), gates)
    assert isinstance(first, Refused)
    assert first.answer is Refusal.PAUSED
    assert isinstance(later, Grant)


def test_a_tombstone_whose_answer_is_lost_is_asked_for_again() -> None:
    case = _case(1, cancel_by_reference=True)
    case.now = NOW + timedelta(seconds=121)
    case.job.outcome = "not_found"
    for asked_before in (False, True):
        case.job.tombstoned = asked_before
        assert decide_due(case, waits=False) is Due.CANCEL
    case.job.outcome = "unknown"
    assert decide_due(case, waits=False) is Due.INQUIRE


def test_a_late_unsent_job_waits_while_its_rail_waits() -> None:
    case = _case(0)
    case.now = NOW + timedelta(hours=2)
    assert decide_due(case, waits=True) is Due.WAIT
    assert decide_due(case, waits=False) is Due.EXPIRE_UNSENT


def test_a_late_sent_job_is_parked_and_never_expired() -> None:
    case = _case(1)
    case.now = NOW + timedelta(hours=2)
    assert decide_due(case, waits=False) is Due.PARK


def test_what_was_not_sent_by_its_deadline_is_not_voided_while_its_rail_is_paused() -> None:
    case, result = _case(1), _result(Verdict.NOT_SENT, retry_after_s=1)
    late = replace(case, now=case.job.deadline)
    assert decide_payment(late, result).step is Step.VOID
    waiting = decide_payment(replace(late, paused=True), result)
    assert (waiting.step, waiting.negative_fence) == (Step.WAIT, 1)
    assert decide_payment(replace(case, paused=True), result).step is Step.RETRY


def _after_a_restore(**more: object) -> tuple[Case, Result]:
    case = _case(0)
    case.horizon_starts_at = NOW
    told = {"amount_minor": 100, "currency": "THB", "reference": "R" * 16} | more
    fact = _result(Verdict.SUCCEEDED, 0, Basis.REFERENCE_STATUS, kind=JobKind.INQUIRE)
    return case, fact.model_copy(update=told)


@pytest.mark.parametrize("doubted", [True, False])
@pytest.mark.parametrize("kind", [JobKind.INQUIRE, JobKind.CANCEL])
def test_the_answer_about_a_reference_shows_a_permit_that_a_restore_may_have_lost(kind: JobKind, doubted: bool) -> None:
    case, fact = _after_a_restore(kind=kind)
    case.epoch_doubted = doubted
    assert decide_payment(case, fact) == Decision(Step.POST)
    assert decide_payment(case, fact.model_copy(update={"verdict": Verdict.RETURNED})).step is Step.RETURN
    case.intent.decision, case.intent.state = "VOID", "EXPIRED"
    assert decide_payment(case, fact) == Decision(Step.SUSPEND, "success_after_void")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"kind": JobKind.PAY}, "success_without_attempt"),
        ({"basis": Basis.SUBMISSION}, "success_without_attempt"),
        ({"amount_minor": None}, "amount_missing"),
        ({"amount_minor": 99}, "amount_differs"),
        ({"currency": "USD"}, "currency_differs"),
        ({"reference": "X" * 16}, "reference_differs"),
    ],
)
def test_less_than_our_question_answered_to_the_letter_shows_no_lost_permit(changed: dict[str, Any], why: str) -> None:
    case, fact = _after_a_restore()
    assert decide_payment(case, fact.model_copy(update=changed)) == Decision(Step.QUARANTINE, why)


def test_a_collection_whose_permit_a_restore_lost_is_paid_by_the_same_answer_and_no_less() -> None:
    case, fact = _after_a_restore(verdict=Verdict.PAID, provider_tx_id="T1")
    case.job.kind = JobKind.COLLECT
    assert decide_collection(case, fact) == Decision(Step.COLLECT)
    told = fact.model_copy(update={"kind": JobKind.COLLECT})
    assert decide_collection(case, told) == Decision(Step.QUARANTINE, "success_without_attempt")
    case.horizon_starts_at = None
    assert decide_collection(case, fact) == Decision(Step.QUARANTINE, "success_without_attempt")


def test_a_job_of_the_newest_epoch_has_lost_no_permit() -> None:
    case, fact = _after_a_restore()
    case.horizon_starts_at = None
    assert decide_payment(case, fact) == Decision(Step.QUARANTINE, "success_without_attempt")
    back = fact.model_copy(update={"verdict": Verdict.RETURNED})
    assert decide_payment(case, back) == Decision(Step.QUARANTINE, "return_without_attempt")


@pytest.mark.parametrize(
    ("outcome", "after_s", "state", "due"),
    [
        (None, 0, "DISPATCHED", Due.PARK),
        (None, 121, "UNRESOLVED", Due.INQUIRE),
        ("pending", 121, "UNRESOLVED", Due.INQUIRE),
        ("not_found", 119, "UNRESOLVED", Due.INQUIRE),
        ("not_found", 120, "UNRESOLVED", Due.EXPIRE_UNSENT),
    ],
)
def test_what_a_cleared_restore_left_without_a_permit_is_asked_about_before_it_expires(
    outcome: str | None, after_s: int, state: str, due: Due
) -> None:
    case, _ = _after_a_restore()
    case.job.deadline, case.now = NOW, NOW + timedelta(seconds=after_s)
    case.job.outcome, case.intent.state = outcome, state
    assert decide_due(case, waits=False) is due
    assert decide_due(case, waits=True) is Due.WAIT
    mute = replace(case, capabilities=_capabilities(inquiry=False))
    assert decide_due(mute, waits=False) is Due.EXPIRE_UNSENT, "where nobody can be asked, who cleared it has compared"
    young = replace(case, horizon_starts_at=None)
    assert decide_due(young, waits=False) is Due.EXPIRE_UNSENT
