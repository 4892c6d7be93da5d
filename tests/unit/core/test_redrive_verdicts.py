"""Whether a dead letter may be sent again: the table of docs/on-call.md, and the permit protocol as its judge."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain import redrive
from core.domain.jobs import JobRow, JobState
from core.domain.permits import Gates, Grant, decide_permit
from core.domain.redrive import Judgement, Redrive, Source, Standing, allowed_by, failing, judge
from schemas.events import IntentState
from schemas.operations import JobKind, OperationType
from schemas.permits import PermitMode
from schemas.rails import Capabilities, Timing

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DEAD = Standing(Source.JOB, letter_open=True, job_known=True)
SENT = replace(DEAD, permitted=True)


@pytest.mark.parametrize(
    ("standing", "judgement"),
    [
        (replace(DEAD, letter_open=False), redrive.CLOSED),
        (replace(DEAD, decided=True), redrive.DECIDED),
        (Standing(Source.RESULT, letter_open=True, decided=True), redrive.ANSWERED),
        (Standing(Source.RESULT, letter_open=True), redrive.ANSWERED),
        (replace(SENT, source=Source.RESULT, says_paid=True), redrive.ANSWERED),
        (Standing(Source.JOB, letter_open=True), redrive.UNKNOWN_JOB),
        (replace(DEAD, under_way=True), redrive.UNDER_WAY),
        (replace(DEAD, reads_only=True, late=True), redrive.READS),
        (replace(SENT, says_paid=True, all_negative=True), redrive.SAYS_PAID),
        (replace(DEAD, doubted=True, inquires=True), redrive.DOUBTED),
        (replace(DEAD, doubted=True), redrive.DOUBTED_MUTE),
        (DEAD, redrive.NEVER_SENT),
        (replace(DEAD, late=True), redrive.LATE),
        (replace(SENT, all_negative=True), redrive.ALL_NEGATIVE),
        (replace(SENT, all_negative=True, late=True), redrive.LATE),
        (replace(DEAD, tombstoned=True, inquires=True), redrive.MAY_BE_SENT),
        (replace(SENT, inquires=True, late=True), redrive.MAY_BE_SENT),
        (replace(SENT, deduplicates=True), redrive.MAY_BE_SENT),
        (replace(SENT, deduplicates=True, inquires=True, forgotten=True), redrive.FORGOTTEN),
        (SENT, redrive.MUTE),
    ],
)
def test_the_table_is_obeyed(standing: Standing, judgement: Judgement) -> None:
    assert judge(standing) == judgement


@st.composite
def _dead_jobs(draw: st.DrawFn) -> tuple[JobRow, IntentState, Capabilities, Gates, bool, Standing]:
    """A dead job in any state that the protocol knows, and its standing as the database would tell it."""
    fence = draw(st.integers(0, 3))
    granted_ago_s = draw(st.integers(0, 400))
    window_s = draw(st.sampled_from([None, 130, 300]))
    deduplicates, inquires = draw(st.booleans()), draw(st.booleans())
    all_negative = fence == 0 or draw(st.booleans())
    kind = draw(st.sampled_from([JobKind.PAY, JobKind.PAY, JobKind.LOOKUP, JobKind.INQUIRE]))
    says_paid = fence > 0 and draw(st.booleans())
    job = JobRow(
        id=UUID(int=1), tenant_id=UUID(int=2), intent_id=UUID(int=3), kind=kind, operation=OperationType.PAYOUT,
        rail="r", provider="p", provider_account="a", environment="sandbox", reference="R" * 20, amount_minor=1,
        currency="THB", deadline=NOW + timedelta(seconds=draw(st.integers(-100, 100))),
        ledger_epoch=draw(st.integers(1, 2)), state=JobState.DEAD, fence=fence, tombstoned=draw(st.booleans()),
        first_granted_at=NOW - timedelta(seconds=granted_ago_s) if fence else None,
    )  # fmt: skip
    capabilities = Capabilities(
        inquiry=inquires, deduplicates_reference=deduplicates, dedup_window_s=window_s, not_found_horizon_s=120,
        max_amount_minor=10, currencies=["THB"],
    )  # fmt: skip
    gates = Gates(
        NOW, Timing(send_by_s=5, call_total_s=10, claim_idle_s=60), 2, draw(st.booleans()), frozenset(), False
    )
    standing = Standing(
        Source.JOB, letter_open=True, job_known=True, reads_only=not kind.moves_money, permitted=fence > 0,
        all_negative=all_negative, tombstoned=job.tombstoned, says_paid=says_paid,
        late=job.deadline <= NOW + timedelta(seconds=15),
        doubted=job.ledger_epoch < 2 and not gates.epoch_cleared, deduplicates=deduplicates, inquires=inquires,
        forgotten=bool(fence and window_s and granted_ago_s + 30 >= window_s),
    )  # fmt: skip
    state = draw(st.sampled_from([IntentState.AUTHORIZED, IntentState.DISPATCHED]))
    return job, state, capabilities, gates, all_negative and not says_paid, standing


@given(_dead_jobs())
def test_no_verdict_promises_more_than_a_permit_would_give(
    case: tuple[JobRow, IntentState, Capabilities, Gates, bool, Standing],
) -> None:
    """A job that is put back is asked a permit for: what it may do then is what the verdict said."""
    job, state, capabilities, gates, unsent, standing = case
    verdict = judge(standing).verdict
    permit = decide_permit(replace(job, state=JobState.QUEUED), state, capabilities, gates, unsent=unsent)
    if verdict is Redrive.SAFE:
        assert isinstance(permit, Grant)
        if job.kind.moves_money:
            # Sent outright: then nothing was sent before, by the absence of permits or by their negatives.
            assert job.fence == 0 or unsent
    if verdict is Redrive.INQUIRE_FIRST and isinstance(permit, Grant) and permit.mode is PermitMode.SEND:
        assert capabilities.deduplicates_reference
        assert not standing.forgotten
    may_be_paid = job.kind.moves_money and (standing.says_paid or (job.fence > 0 and not standing.all_negative))
    assert not (may_be_paid and verdict is Redrive.SAFE)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 1000), st.integers(0, 600))
def test_a_ramp_never_goes_back_and_never_passes_its_rate(a_ms: int, b_ms: int, rate_per_s: int, ramp_s: int) -> None:
    early, late = sorted((a_ms, b_ms))
    grown = allowed_by(late, rate_per_s, ramp_s) - allowed_by(early, rate_per_s, ramp_s)
    assert 0 <= grown <= rate_per_s * (late - early) // 1000 + 1


def test_the_rate_is_reached_after_the_ramp() -> None:
    assert [allowed_by(ms, 100, 10) for ms in (0, 5_000, 10_000, 11_000)] == [0, 125, 500, 600]
    assert allowed_by(1_000, 100, 0) == 100


@pytest.mark.parametrize(
    ("failed", "succeeded", "canary", "stops"),
    [(0, 0, True, False), (1, 0, True, True), (1, 0, False, False), (1, 4, False, True), (1, 5, False, False)],
)
def test_it_stops_when_the_failures_return(failed: int, succeeded: int, canary: bool, stops: bool) -> None:
    assert failing(failed, succeeded, 20, canary=canary) is stops
