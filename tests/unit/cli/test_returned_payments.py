"""`fleet intents` says what came back of a payment, and why, and of what nothing can."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from fleet.cli.app import main
from fleet.cli.intents import show_intent
from fleet.cli.output import ExitCode
from schemas.announced_returns import ReturnedView
from schemas.api import IntentView
from schemas.events import IntentState
from schemas.operations import OperationType

AT = datetime(2026, 11, 23, tzinfo=UTC)


def view(returned: ReturnedView | None) -> IntentView:
    return IntentView(
        id=uuid4(), operation=OperationType.WITHDRAWAL, state=IntentState.SETTLED, wallet_id=uuid4(),
        amount_minor=2_500, currency="THB", fee_minor=0, received_minor=2_500, fees=[], payee_type=None,
        payee_masked=None, reference="", rail="bank", provider_reference="B-1", lookup=None, failure=None,
        created_at=AT, updated_at=AT, deadline=None, returned=returned,
    )  # fmt: skip


def back(announced_minor: int, booked_minor: int, reason: str, provider_reason: str) -> ReturnedView:
    return ReturnedView(
        announced_minor=announced_minor, booked_minor=booked_minor, reason=reason, provider_reason=provider_reason,
        evidence_id=None, announced_at=AT, booked_at=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("returned", "line"),
    [
        (back(2_500, 0, "account_closed", "AC04"), "0.00 THB of 25.00 THB announced account_closed (AC04)"),
        (back(2_500, 2_500, "", "NARR"), "25.00 THB of 25.00 THB announced (NARR)"),
        (back(0, 1_000, "account_blocked", ""), "10.00 THB account_blocked"),
    ],
    ids=["announced", "booked", "booked_unannounced"],
)
def test_a_payment_that_comes_back_is_shown_with_both_amounts_and_the_reason(
    capsys: pytest.CaptureFixture[str], returned: ReturnedView, line: str
) -> None:
    show_intent(view(returned), as_json=False)
    assert line in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("more", [[], ["--yes"]])
def test_what_no_wallet_received_is_not_refunded_and_no_dry_run_says_it_can_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.setattr("fleet.cli.intents.with_client", lambda _: view(None))
    assert main(["intents", "refund", str(uuid4()), *more]) == ExitCode.REFUSED
    said = "original_not_refundable: WITHDRAWAL went to no wallet of ours, and only what a wallet received is refunded"
    assert capsys.readouterr() == ("", f"fleet: {said}\n")


def test_a_payment_of_which_nothing_came_back_says_nothing_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    show_intent(view(None), as_json=False)
    assert "returned" not in capsys.readouterr().out
