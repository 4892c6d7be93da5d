"""What the bank's words mean: no word that is not in a table ever ends a payment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.bank.answers import DUPLICATES, REASONS, STATUSES, TIME_OUTS, Known, outcome_of
from adapters.bank.reports import Entry, FileStatus, PaymentStatus
from adapters.runtime.errors import ProtocolViolation
from adapters.runtime.port import Outcome
from schemas.results import Verdict

OPEN = {Verdict.PENDING, Verdict.UNKNOWN}
words = st.text(st.characters(categories=("Lu", "Nd", "Ll")), max_size=6)


def reported(status: str, reason: str = "") -> Outcome:
    found = outcome_of(Known(PaymentStatus("PF-1", "A1", status, reason, "<raw/>")), None)
    assert found is not None
    return found


def entry(reference: str, amount_minor: int = 1_050, *, back: bool = False) -> Entry:
    return Entry(
        "TH69", back, True, back, amount_minor, "THB", reference, "A1", "", (), "2026-11-23", "AC04" if back else "",
        "camt.054", "<raw/>",
    )  # fmt: skip


@given(words.filter(lambda word: word not in STATUSES), words | st.sampled_from(sorted(REASONS)))
def test_no_status_that_is_not_listed_ends_a_payment(status: str, reason: str) -> None:
    assert reported(status, reason).verdict is Verdict.UNKNOWN


@given(words.filter(lambda word: word not in REASONS))
def test_no_reason_that_is_not_listed_makes_a_rejection_final(reason: str) -> None:
    assert reported("RJCT", reason).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("reason", sorted(TIME_OUTS | DUPLICATES))
def test_a_time_out_and_a_duplicate_say_nothing_final(reason: str) -> None:
    assert reported("RJCT", reason).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("status", ["RCVD", "ACTC", "ACCP", "ACSP", "ACWC", "PDNG"])
def test_an_accepted_payment_is_not_a_paid_one(status: str) -> None:
    assert reported(status).verdict is Verdict.PENDING


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_rejection_for_a_listed_reason_is_final_and_has_our_code(reason: str) -> None:
    found = reported("RJCT", reason)
    assert (found.verdict, found.reason) == (Verdict.DECLINED, REASONS[reason])


@pytest.mark.parametrize("status", ["ACSC", "ACCC", "ACCP", "PART"])
def test_what_is_said_of_a_file_pays_none_of_its_payments(status: str) -> None:
    found = outcome_of(None, FileStatus("PF-1", status, "", "<raw/>"))
    assert found is not None
    assert found.verdict in OPEN


def test_a_booked_debit_is_a_success_whatever_was_reported_before() -> None:
    known = Known(PaymentStatus("PF-1", "A1", "RJCT", "AC04", ""), debits={"MB-1": entry("MB-1")})
    found = outcome_of(known, None)
    assert found is not None
    assert (found.verdict, found.amount_minor, found.provider_tx_id) == (Verdict.SUCCEEDED, 1_050, "MB-1")


def test_a_booked_return_is_told_with_what_came_back() -> None:
    known = Known(debits={"MB-1": entry("MB-1")}, returned={"MB-2": entry("MB-2", 1_000, back=True)})
    found = outcome_of(known, None)
    assert found is not None
    assert (found.verdict, found.amount_minor, found.reason) == (Verdict.RETURNED, 1_000, "account_closed")


def test_one_reference_booked_twice_is_for_people() -> None:
    with pytest.raises(ProtocolViolation):
        outcome_of(Known(debits={"MB-1": entry("MB-1"), "MB-2": entry("MB-2")}), None)


def test_what_nobody_reported_is_not_answered() -> None:
    assert outcome_of(None, None) is None
    assert outcome_of(Known(), None) is None
