"""What every action learns from every error, and which timings are refused."""

import pytest

from adapters.noop.adapter import NoopRail, NoopSettings
from adapters.runtime import errors, verdicts
from adapters.runtime.port import Inquires, LooksUp, Outcome
from adapters.runtime.timing import TimingRefusedError, check_timing
from adapters.runtime.verdicts import Action
from schemas.operations import JobKind
from schemas.permits import PermitMode
from schemas.rails import Timing
from schemas.results import Verdict

ALL = [
    errors.Rejected("payee_not_found"),
    errors.NotSent("no connection"),
    errors.Throttled("slow down", after_s=7),
    errors.Indeterminate("reset"),
    errors.ProtocolViolation("nonsense"),
    errors.Misconfigured("wrong key"),
    TimeoutError(),
    ValueError("a bug"),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("action", [Action.INQUIRE, Action.CANCEL])
def test_a_question_that_failed_says_nothing_about_the_money(action: Action, error: Exception) -> None:
    assert verdicts.of_error(action, error).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ALL[0], "DECLINED"),
        (ALL[1], "NOT_SENT"),
        (ALL[2], "NOT_SENT"),
        (ALL[3], "UNKNOWN"),
        (ALL[4], "UNKNOWN"),
        (ALL[5], "NOT_SENT"),
        (ALL[6], "UNKNOWN"),
        (ALL[7], "UNKNOWN"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_submission_is_negative_only_where_that_is_proven(error: Exception, verdict: str) -> None:
    assert verdicts.of_error(Action.SUBMIT, error).verdict == verdict


@pytest.mark.parametrize("error", ALL[1:], ids=lambda error: type(error).__name__)
def test_a_lookup_that_failed_is_repeated(error: Exception) -> None:
    learned = verdicts.of_error(Action.LOOKUP, error)
    assert learned.verdict is Verdict.NOT_SENT
    assert learned.retry_after_s


def test_the_providers_wait_is_kept() -> None:
    assert verdicts.of_error(Action.SUBMIT, errors.Throttled("slow down", after_s=7)).retry_after_s == 7


def test_a_permit_that_is_not_send_never_submits() -> None:
    assert verdicts.action_of(JobKind.PAY, PermitMode.INQUIRE_ONLY) is Action.INQUIRE
    assert verdicts.action_of(JobKind.PAY, PermitMode.READ) is Action.INQUIRE
    assert verdicts.action_of(JobKind.PAY, PermitMode.SEND) is Action.SUBMIT


@pytest.mark.parametrize(
    ("action", "verdict"),
    [
        (Action.SUBMIT, "FOUND"),
        (Action.SUBMIT, "NOT_FOUND"),
        (Action.LOOKUP, "SUCCEEDED"),
        (Action.INQUIRE, "NOT_SENT"),
    ],
)
def test_an_outcome_that_the_action_cannot_have_is_a_violation(action: Action, verdict: str) -> None:
    with pytest.raises(errors.ProtocolViolation):
        verdicts.checked(action, Outcome(Verdict(verdict)))


def _noop(send_by_s: float, call_total_s: float, claim_idle_s: float) -> NoopRail:
    timing = Timing(send_by_s=send_by_s, call_total_s=call_total_s, claim_idle_s=claim_idle_s)
    return NoopRail(timing, NoopSettings())


def test_a_safe_timing_is_taken() -> None:
    check_timing(_noop(5, 10, 60).registration(), batch=100, concurrency=100)


def test_a_claim_time_within_a_call_is_refused_with_the_numbers() -> None:
    with pytest.raises(TimingRefusedError, match=r"5\.?0? s \+ 10\.?0? s is not below 15"):
        check_timing(_noop(5, 10, 15).registration(), batch=1, concurrency=1)


def test_a_batch_that_outlasts_the_claim_time_is_refused() -> None:
    with pytest.raises(TimingRefusedError, match="FLEET_BATCH"):
        check_timing(_noop(5, 10, 60).registration(), batch=60, concurrency=10)
    check_timing(_noop(5, 10, 60).registration(), batch=50, concurrency=10)


def test_a_rail_has_the_capabilities_that_it_has_methods_for() -> None:
    rail = _noop(5, 10, 60)
    assert isinstance(rail, Inquires)
    assert not isinstance(rail, LooksUp)
