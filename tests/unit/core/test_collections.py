"""What becomes of one fact about a payment in: the rule alone, for any fact and any state."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.collections import EXACT, FURTHER, Payment, Tolerance, judge, judge_return
from core.domain.fee_legs import FeeAccount, FeeLeg
from core.domain.intents import IntentRow
from schemas.collections import PaymentFate, PaymentSource, PaymentStatus, ProviderPayment
from schemas.events import IntentState
from schemas.fees import FeePhase

_OPEN = [IntentState.AUTHORIZED, IntentState.DISPATCHED, IntentState.UNRESOLVED]
_ENDED = [IntentState.SETTLED, IntentState.FAILED, IntentState.CANCELLED, IntentState.EXPIRED]


def collection(state: IntentState) -> IntentRow:
    decision = "POST" if state is IntentState.SETTLED else None
    return IntentRow(UUID(int=5), UUID(int=1), "key", "TOPUP", state, UUID(int=2), 2_000, "THB", "AUTHORIZED",
                     decision=decision)  # fmt: skip


def on_top(state: IntentState, asked_minor: int | None, confirmed_minor: int | None) -> IntentRow:
    """Return a DEPOSIT of 2000 with 30 on top, as its payer was asked, and with the note of what came."""
    intent = collection(state)
    intent.operation, intent.fee_legs = (
        "DEPOSIT",
        (FeeLeg("fee:0", FeePhase.PRE, FeeAccount("FEE_INCOME"), 30, UUID(int=7), 1),),
    )
    intent.fee_minor, intent.asked_minor, intent.confirmed_minor = 30, asked_minor, confirmed_minor
    return intent


collections = st.one_of(st.none(), st.sampled_from(_OPEN + _ENDED).map(collection))
facts = st.builds(
    ProviderPayment,
    provider_account=st.just("main"),
    environment=st.just("sandbox"),
    transaction_id=st.just("T1"),
    also_known_as=st.just(()),
    recycled_on=st.none(),
    status=st.sampled_from(PaymentStatus),
    amount_minor=st.sampled_from([1, 1_900, 1_999, 2_000, 2_001, 2_100]),
    currency=st.sampled_from(["THB", "RUB"]),
    reference=st.just("REF"),
    source=st.sampled_from(PaymentSource),
    confirmed=st.booleans(),
    occurred_at=st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    evidence_id=st.none(),
)
rows = st.one_of(
    st.none(),
    st.builds(
        Payment,
        st.just(UUID(int=9)),
        st.just(UUID(int=1)),
        st.sampled_from(["NOTED", "CREDITED", "SUSPENDED", "REVERSED"]),
        st.sampled_from([1_999, 2_000]),
        st.just("THB"),
    ),
)
tolerances = st.builds(Tolerance, st.sampled_from([0, 1, 100]), st.sampled_from([0, 1, 100]))


@given(facts, rows, collections, tolerances)
def test_a_credit_needs_certainty_an_open_collection_and_the_amount(
    fact: ProviderPayment, known: Payment | None, intent: IntentRow | None, tolerance: Tolerance
) -> None:
    judged = judge(fact, known, intent, tolerance)
    if judged.fate is not PaymentFate.CREDITED:
        return
    assert intent is not None
    assert intent.state in _OPEN
    assert fact.status is PaymentStatus.SUCCEEDED
    assert fact.source is PaymentSource.POLL or (fact.source is PaymentSource.CALLBACK and fact.confirmed)
    assert (fact.currency, known is None or known.state == "NOTED") == ("THB", True)
    assert -tolerance.below_minor <= fact.amount_minor - 2_000 <= tolerance.above_minor


@given(facts, rows, collections)
def test_money_that_surely_came_is_credited_or_suspended_and_never_dropped(
    fact: ProviderPayment, known: Payment | None, intent: IntentRow | None
) -> None:
    sure = fact.source is PaymentSource.POLL or (fact.source is PaymentSource.CALLBACK and fact.confirmed)
    if not sure or fact.status is not PaymentStatus.SUCCEEDED:
        return
    judged = judge(fact, known, intent, EXACT)
    accounted = known is not None and known.state != "NOTED"
    differs = known is not None and (known.amount_minor, known.currency) != (fact.amount_minor, fact.currency)
    if differs:
        assert judged.fate is PaymentFate.QUARANTINED
    elif accounted:
        assert judged.fate is PaymentFate.KNOWN
    else:
        assert judged.fate in (PaymentFate.CREDITED, PaymentFate.SUSPENDED)


@given(facts, rows, rows)
def test_nothing_is_reversed_twice_or_beyond_what_was_paid(
    fact: ProviderPayment, known: Payment | None, paid: Payment | None
) -> None:
    judged = judge_return(fact, known, paid)
    if judged.fate is PaymentFate.REVERSED:
        assert known is None or known.state == "NOTED"
        assert paid is not None
        assert paid.state != "NOTED"
        assert (fact.amount_minor <= paid.amount_minor, fact.currency) == (True, paid.currency)


@pytest.mark.parametrize("baht", [1, 2, 18, 19, 21])
def test_odd_small_amounts_against_a_code_of_20_baht_are_never_credited(baht: int) -> None:
    fact = ProviderPayment.model_validate(
        {
            "provider_account": "main",
            "transaction_id": "T1",
            "status": "SUCCEEDED",
            "amount_minor": baht * 100,
            "currency": "THB",
            "source": "POLL",
            "occurred_at": "2026-01-01T00:00:00Z",
        }
    )
    judged = judge(fact, None, collection(IntentState.DISPATCHED), EXACT)
    assert (judged.fate, judged.reason) == (PaymentFate.SUSPENDED, "amount_differs")


@pytest.mark.parametrize(
    ("state", "asked_minor", "confirmed_minor", "principal_minor"),
    [
        (IntentState.AUTHORIZED, 2_030, None, 2_030),
        (IntentState.AUTHORIZED, None, None, 2_000),
        (IntentState.SETTLED, 2_030, 2_030, 2_030),
        (IntentState.SETTLED, 2_030, 1_990, 1_990),
        (IntentState.SETTLED, None, None, 2_000),
        (IntentState.SETTLED, 2_030, None, 2_000),
        (IntentState.REVIEW, 2_030, None, 2_000),
    ],
    ids=["asked", "asked before", "settled", "tolerated", "before", "settled by old code", "waits by old code"],
)
def test_what_came_is_what_was_noted_or_asked_for_whichever_release_asked_and_settled(
    state: IntentState, asked_minor: int | None, confirmed_minor: int | None, principal_minor: int
) -> None:
    assert on_top(state, asked_minor, confirmed_minor).principal_minor == principal_minor


@given(st.integers(1_900, 2_100), st.sampled_from([None, 1_990, 2_000, 2_030]), st.sampled_from([None, 2_030]))
def test_a_further_payment_is_held_to_what_was_asked_for_and_not_to_what_came_first(
    came_minor: int, first_minor: int | None, asked_minor: int | None
) -> None:
    intent, tolerance = on_top(IntentState.SETTLED, asked_minor, first_minor), Tolerance(20, 5)
    fact = ProviderPayment(
        provider_account="main", environment="sandbox", transaction_id="T2", status=PaymentStatus.SUCCEEDED,
        amount_minor=came_minor, currency="THB", reference="REF", source=PaymentSource.POLL, confirmed=True,
        occurred_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    taken = -20 <= came_minor - (asked_minor or 2_000) <= 5
    judged = judge(fact, None, intent, tolerance, reusable=True)
    assert (judged.fate, judged.reason) == (PaymentFate.SUSPENDED, FURTHER if taken else "amount_differs")
