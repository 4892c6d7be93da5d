"""The text that a result is written as: two ways to write it, one contract."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters.runtime.execution import Executed
from adapters.runtime.messages import plain_result, result_of
from adapters.runtime.port import Outcome
from adapters.runtime.verdicts import Action
from schemas.collections import TRANSACTION_LENGTH_MAX, NextAction, NextActionKind, Received
from schemas.money import MAX_AMOUNT_MINOR
from schemas.operations import JobKind
from schemas.permits import Granted, Instruction, LookupBinding, PermitMode
from schemas.results import Basis, Verdict

INCARNATION, EVIDENCE = UUID(int=7), UUID(int=8)

_anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.none()))
_fair = st.builds(
    Outcome,
    verdict=st.sampled_from(Verdict),
    amount_minor=st.one_of(st.none(), st.integers(1, MAX_AMOUNT_MINOR)),
    currency=st.sampled_from([None, "THB", "RUB"]),
    provider_tx_id=st.one_of(st.none(), st.text(max_size=TRANSACTION_LENGTH_MAX)),
    reason=st.sampled_from(["", "payee_not_found"]),
    basis=st.one_of(st.none(), st.sampled_from(Basis)),
    retry_after_s=st.none(),
    lookup=st.none(),
    payee_name=st.none(),
    evidence=st.just(""),
    next_action=st.one_of(
        st.none(), st.builds(NextAction, kind=st.sampled_from(NextActionKind), payload=st.text(min_size=1, max_size=9))
    ),
    further=st.just(()),
)
_odd: dict[str, st.SearchStrategy[Any]] = {
    "verdict": st.one_of(st.sampled_from([str(each) for each in Verdict]), _anything),
    "amount_minor": st.one_of(st.sampled_from([-1, 0, MAX_AMOUNT_MINOR + 1, True, 1.0, "1"]), _anything),
    "currency": st.one_of(st.sampled_from(["thb", "THBX", "THB\n"]), _anything),
    "provider_tx_id": st.one_of(st.sampled_from(["a" * (TRANSACTION_LENGTH_MAX + 1), "\ud800", b"tx"]), _anything),
    "reason": st.one_of(st.sampled_from(["Payee", "a" * 61, "a\n"]), _anything),
    "retry_after_s": st.one_of(st.sampled_from([1.5, 0, -1]), _anything),
    "lookup": st.just(LookupBinding(lookup_id="x")),
    "payee_name": st.just("Somchai Jaidee"),
    "further": st.just((Received(transaction_id="T2", amount_minor=1, currency="THB"),)),
    "basis": _anything,
}


@st.composite
def _outcomes(draw: st.DrawFn) -> Outcome:
    outcome = draw(_fair)
    for name in draw(st.lists(st.sampled_from(sorted(_odd)), max_size=2)):
        outcome = outcome._replace(**{name: draw(_odd[name])})
    return outcome


_moments = st.one_of(
    st.datetimes(timezones=st.just(UTC)),
    st.just(datetime(2026, 11, 21, 8, 30, tzinfo=UTC)),
)


def _granted(reference: str = "R" * 24, target: str | None = None) -> Granted:
    return Granted(
        job_id=UUID(int=1), kind=JobKind.PAY, mode=PermitMode.SEND, fence=3, first=True, send_by_s=5,
        reference=reference, amount_minor=100, currency="THB", provider_account="one", environment="sandbox",
        instruction=Instruction(target_reference=target),
    )  # fmt: skip


@given(
    outcome=_outcomes(),
    action=st.sampled_from(Action),
    evidence_id=st.one_of(st.none(), st.just(EVIDENCE)),
    reference=st.text(max_size=12),
    moment=_moments,
)
def test_a_result_that_is_written_directly_is_byte_for_byte_what_the_contract_writes(
    outcome: Outcome, action: Action, evidence_id: UUID | None, reference: str, moment: datetime
) -> None:
    arguments: Any = ("noop", _granted(reference), Executed(action, outcome), evidence_id, INCARNATION, moment)
    written = plain_result(*arguments)
    try:
        by_contract = result_of(*arguments).model_dump_json(exclude_none=True)
    except (ValidationError, AttributeError):
        assert written is None, "what the contract refuses is not written"
        return
    assert written in (None, by_contract)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Verdict.SUCCEEDED, amount_minor=12_500, currency="THB", provider_tx_id="tx-1"),
        Outcome(Verdict.DECLINED, reason="payee_not_found"),
        Outcome(Verdict.UNKNOWN, reason="call_timed_out"),
        Outcome(Verdict.SUCCEEDED, amount_minor=MAX_AMOUNT_MINOR, currency="RUB", provider_tx_id="ก" * 64),
        Outcome(Verdict.PENDING, basis=Basis.REFERENCE_STATUS),
    ],
)
def test_the_common_outcomes_are_written_directly(outcome: Outcome) -> None:
    moment = datetime(2026, 11, 21, 8, 30, 1, 500, tzinfo=UTC)
    arguments: Any = ("noop", _granted(), Executed(Action.SUBMIT, outcome), EVIDENCE, INCARNATION, moment)
    assert plain_result(*arguments) == result_of(*arguments).model_dump_json(exclude_none=True)


@pytest.mark.parametrize(
    "odd",
    [
        {"amount_minor": MAX_AMOUNT_MINOR + 1},
        {"amount_minor": 0},
        {"amount_minor": True},
        {"provider_tx_id": "a" * (TRANSACTION_LENGTH_MAX + 1)},
        {"provider_tx_id": "\ud800"},
        {"currency": "thb"},
        {"reason": "Payee"},
        {"reason": ["a"]},
    ],
)
def test_what_the_contract_refuses_is_not_written_directly(odd: dict[str, Any]) -> None:
    outcome = Outcome(Verdict.SUCCEEDED, amount_minor=1, currency="THB")._replace(**odd)
    arguments: Any = ("noop", _granted(), Executed(Action.SUBMIT, outcome), None, INCARNATION, datetime.now(UTC))
    assert plain_result(*arguments) is None
    with pytest.raises(ValidationError):
        result_of(*arguments)
