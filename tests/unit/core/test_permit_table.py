"""Every job in every situation, permitted twice: by the code, and by the protocol's sentences read one by one."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import product
from uuid import UUID

import pytest

from core.domain.ids import mint_id
from core.domain.jobs import JobRow, JobState
from core.domain.permits import ONE_PAUSED_S, RAIL_PAUSED_S, Gates, Refused, decide_permit
from schemas.events import IntentState
from schemas.operations import JobKind, OperationType
from schemas.rails import Capabilities, Timing

NOW = datetime(2026, 11, 21, tzinfo=UTC)
S_S, T_PSP_S = 5, 10
TIMING = Timing(send_by_s=S_S, call_total_s=T_PSP_S, claim_idle_s=60)
JOB = mint_id(1_000)
OPEN_AND_ENDED = (IntentState.AUTHORIZED, IntentState.DISPATCHED, IntentState.UNRESOLVED, IntentState.CANCELLED)
WINDOW_S = 3600
AGES_S = {"young": 0, "last moment": WINDOW_S - 2 * (S_S + T_PSP_S) - 1, "margin": WINDOW_S - 2 * (S_S + T_PSP_S)}


@dataclass(frozen=True)
class Rail:
    """What the provider remembers, for how long, and how long ago it was first asked to pay."""

    deduplicates: bool
    forgets: bool
    first_permit: str


RAILS = [Rail(*each) for each in product((False, True), (False, True), AGES_S)]


@dataclass(frozen=True)
class Past:
    """What was done with the job so far."""

    fence: int
    tombstoned: bool
    unsent: bool
    busy: bool


PASTS = [Past(*each) for each in product((0, 2), (False, True), (False, True), (False, True))]


@dataclass(frozen=True)
class Shut:
    """What holds the rail back."""

    older_epoch: bool
    cleared: bool
    paused: bool
    throttled: bool


SHUTS = [Shut(*each) for each in product((False, True), repeat=4)]


@cache
def _capabilities(rail: Rail) -> Capabilities:
    return Capabilities(
        not_found_horizon_s=120, max_amount_minor=10**9, currencies=["THB"], deduplicates_reference=rail.deduplicates,
        dedup_window_s=WINDOW_S if rail.forgets else None,
    )  # fmt: skip


def _job(kind: JobKind, state: JobState, rail: Rail, past: Past) -> JobRow:
    return JobRow(
        JOB, UUID(int=1), UUID(int=2), kind, OperationType.PAYOUT, "testrail", "p", "a", "s", "R" * 16, 100,
        "THB", NOW + timedelta(hours=1), state=state, fence=past.fence, tombstoned=past.tombstoned, ledger_epoch=1,
        first_granted_at=NOW - timedelta(seconds=AGES_S[rail.first_permit]) if past.fence else None,
        busy_until=NOW + timedelta(seconds=1 if past.busy else 0),
    )  # fmt: skip


def _told(kind: JobKind, intent: IntentState, state: JobState, rail: Rail, past: Past, shut: Shut) -> str:
    """The protocol, section 3 "Permit to send", and decision 9, sentence by sentence."""
    money = kind is JobKind.PAY
    decided = intent.is_terminal and kind is not JobKind.INQUIRE  # what has ended may still be asked about
    if decided or state in (JobState.DEAD, JobState.WAITING):
        return "CLOSED"  # "the intent is decided"; what is the resolver's or a dead letter is nobody's to send
    if shut.throttled:
        return "THROTTLED"  # "above its high-water, permits answer THROTTLED"
    if kind is JobKind.INQUIRE:
        return "READ"  # "inquiries, cancels, results and callbacks go on"
    doubted = shut.older_epoch and not shut.cleared
    if past.fence == 0 and (shut.paused or (money and doubted)):
        return "PAUSED"  # "refuses new first permits only"; "first permits stay shut until reconciliation clears"
    if past.busy:
        return "BUSY"  # "BUSY also until the previous permit's S + T_psp has passed"
    if not money:
        return "READ"
    if past.tombstoned:
        return "INQUIRE_ONLY"  # a reference that was asked to be buried is never sent
    if past.fence == 0:
        return "SEND" if shut.older_epoch else "SEND first"
    if intent is IntentState.UNRESOLVED or doubted:
        return "INQUIRE_ONLY"  # a person decides; "every open job counts as possibly sent"
    if past.unsent and not shut.older_epoch:
        return "SEND"  # decision 9: every permit before has its definite negative
    remembered = rail.deduplicates and (not rail.forgets or rail.first_permit != "margin")
    return "SEND" if remembered else "INQUIRE_ONLY"


@pytest.mark.parametrize("kind", [JobKind.PAY, JobKind.LOOKUP, JobKind.INQUIRE])
@pytest.mark.parametrize("intent", OPEN_AND_ENDED)
def test_every_job_is_permitted_exactly_what_the_protocol_allows(kind: JobKind, intent: IntentState) -> None:
    states = (JobState.READY, JobState.QUEUED, JobState.WAITING, JobState.DEAD)
    for state, rail, past, shut in product(states, RAILS, PASTS, SHUTS):
        gates = Gates(NOW, TIMING, 1 + shut.older_epoch, shut.cleared, frozenset("*" if shut.paused else ""),
                      throttled=shut.throttled)  # fmt: skip
        decision = decide_permit(_job(kind, state, rail, past), intent, _capabilities(rail), gates, past.unsent)
        if isinstance(decision, Refused):
            answer = decision.answer.value
        else:
            answer = f"{decision.mode}{' first' if decision.first else ''}"
        assert answer == _told(kind, intent, state, rail, past, shut), (state, rail, past, shut)


@pytest.mark.parametrize(
    ("paused", "after_s"),
    [({"PAYOUT"}, ONE_PAUSED_S), ({"*"}, RAIL_PAUSED_S), ({"*", "PAYOUT"}, RAIL_PAUSED_S), ({"TOPUP"}, None)],
)
def test_a_pause_of_one_operation_holds_back_no_other_and_those_behind_it_for_a_second_alone(
    paused: set[str], after_s: int | None
) -> None:
    gates = Gates(NOW, TIMING, 1, epoch_cleared=True, paused=frozenset(paused), throttled=False)
    rail, past = RAILS[0], Past(fence=0, tombstoned=False, unsent=False, busy=False)
    job = _job(JobKind.PAY, JobState.QUEUED, rail, past)
    decision = decide_permit(job, IntentState.DISPATCHED, _capabilities(rail), gates)
    assert (decision.after_s if isinstance(decision, Refused) else None) == after_s
