"""Refunds of one payment, in any number and order: never more than it moved, and no fee more than was taken."""

from collections import Counter
from dataclasses import replace
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from core.domain.fee_legs import FeeAccount, FeeLeg, sum_minor
from core.domain.intents import IntentRow
from core.domain.operations import legs_of
from core.domain.refunds import Refundable
from schemas.fees import FeePhase

PAYER, RECIPIENT, INCOME = UUID(int=2), UUID(int=3), FeeAccount("FEE_INCOME")
KEEPING, RETURNING = (UUID(int=8), 1), (UUID(int=9), 3)


def payment(amount_minor: int, *fees: tuple[FeePhase, int, tuple[UUID, int]]) -> IntentRow:
    """A settled transfer with these fees."""
    legs = tuple(
        FeeLeg(f"fee:{n}", phase, INCOME, amount, *rule) for n, (phase, amount, rule) in enumerate(fees, start=1)
    )
    return IntentRow(
        UUID(int=5), UUID(int=1), "key", "INTERNAL_P2P", "SETTLED", PAYER, amount_minor, "THB", "SETTLED",
        counterparty_wallet_id=RECIPIENT, fee_legs=legs, fee_minor=sum_minor(legs, FeePhase.PRE),
    )  # fmt: skip


def refund_of(original: IntentRow, amount_minor: int, legs: tuple[FeeLeg, ...]) -> IntentRow:
    """The refund as acceptance makes it."""
    return replace(
        original, id=UUID(int=6), operation="REFUND", original_intent_id=original.id, amount_minor=amount_minor,
        wallet_id=RECIPIENT, counterparty_wallet_id=PAYER, fee_legs=legs, fee_minor=0,
    )  # fmt: skip


@st.composite
def payments(draw: st.DrawFn) -> IntentRow:
    amount_minor = draw(st.integers(1, 10**9))
    rules = st.sampled_from([KEEPING, RETURNING])
    fees = [(FeePhase.PRE, draw(st.integers(1, 10**6)), draw(rules)) for _ in range(draw(st.integers(0, 3)))]
    if amount_minor > 1:
        fees.append((FeePhase.POST, draw(st.integers(1, amount_minor - 1)), draw(rules)))
    return payment(amount_minor, *fees)


@given(payments(), st.lists(st.tuples(st.integers(1, 10**9), st.booleans()), max_size=12))
@example(payment(3, (FeePhase.PRE, 10, RETURNING)), [(1, False), (1, True), (1, False), (1, False)])
def test_a_chain_of_refunds_never_moves_more_than_its_original(
    original: IntentRow, asked: list[tuple[int, bool]]
) -> None:
    taken = {leg.name: leg.amount_minor for leg in original.fee_legs}
    received_minor = original.received_minor
    standing: list[IntentRow] = []
    for amount_minor, fails in asked:
        # Counted anew from what is stored, as each transaction does; one that fails later counts no more.
        left = Refundable(original, frozenset({RETURNING}))
        left.count(standing)
        legs = left.take(amount_minor)
        assert (legs is None) == (amount_minor > received_minor - sum(each.amount_minor for each in standing))
        if legs is not None:
            standing = [] if fails else standing
            standing.append(refund_of(original, amount_minor, legs))
    changes: Counter[UUID] = Counter()
    back: Counter[str] = Counter()
    for refund in standing:
        for leg in legs_of(refund):
            changes[leg.debit_account_id] -= leg.amount_minor
            changes[leg.credit_account_id] += leg.amount_minor
        back.update({leg.name: leg.amount_minor for leg in refund.fee_legs})
    assert sum(changes.values()) == 0
    assert -changes[RECIPIENT] <= received_minor
    assert changes[PAYER] <= original.amount_minor + original.fee_minor
    assert all(back[name] <= taken[name] for name in back)
    assert not [leg for refund in standing for leg in refund.fee_legs if (leg.rule_id, leg.rule_version) == KEEPING]


@given(payments(), st.data())
def test_refunding_all_of_it_in_parts_brings_each_returned_fee_back_to_the_last_unit(
    original: IntentRow, data: st.DataObject
) -> None:
    left = Refundable(original, frozenset({RETURNING}))
    for _ in range(5):
        if left.left_minor:
            assert left.take(data.draw(st.integers(1, left.left_minor))) is not None
    if left.left_minor:
        assert left.take(left.left_minor) is not None
    assert left.take(1) is None
    expected = {
        leg.name: leg.amount_minor
        for leg in original.fee_legs
        if (leg.rule_id, leg.rule_version) == RETURNING
    }  # fmt: skip
    assert dict(+left.returned) == expected


def test_a_part_brings_its_proportion_of_the_fee_rounded_down() -> None:
    left = Refundable(payment(1000, (FeePhase.PRE, 99, RETURNING), (FeePhase.PRE, 7, KEEPING)), frozenset({RETURNING}))
    assert [leg.amount_minor for leg in left.take(333) or ()] == [32]
    assert [leg.amount_minor for leg in left.take(333) or ()] == [33]
    assert [leg.amount_minor for leg in left.take(334) or ()] == [34]
