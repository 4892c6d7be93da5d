"""A page of facts in which the core refuses some is taken but for those; a refusal of the teller is nobody's fact's."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from adapters.runtime.core_client import CoreRefusedError
from adapters.runtime.execution import Executed
from adapters.runtime.further import told_apart
from adapters.runtime.port import Outcome
from adapters.runtime.telling import tell_facts
from adapters.runtime.verdicts import Action
from schemas.collections import (
    PaymentSource,
    PaymentStatus,
    ProviderPayment,
    ProviderPaymentAnswers,
    ProviderPaymentBatch,
    Received,
)
from schemas.operations import JobKind
from schemas.permits import Granted, Instruction, PermitMode
from schemas.results import Verdict

NOW = datetime(2026, 11, 20, tzinfo=UTC)


class Core:
    """Refuses a page that has one of these transactions in it."""

    def __init__(self, *refused: str, status: int = 422) -> None:
        self.refused, self.status, self.names, self.asked = set(refused), status, list[str](), 0

    async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
        self.asked += 1
        told = [fact.transaction_id for fact in batch.facts]
        if self.refused & set(told):
            raise CoreRefusedError(self.status, "no")
        self.names += told
        return ProviderPaymentAnswers(fates=[])


def fact(name: str) -> ProviderPayment:
    return ProviderPayment(
        provider_account="main",
        transaction_id=name,
        status=PaymentStatus.SUCCEEDED,
        amount_minor=100,
        currency="THB",
        source=PaymentSource.STATEMENT,
        occurred_at=NOW,
    )


PAGE = [fact(f"T{number}") for number in range(200)]


@pytest.mark.parametrize("status", [400, 403, 413, 422])
async def test_those_that_are_refused_are_returned_and_all_others_taken_in_their_order(status: int) -> None:
    core = Core("T0", "T77", status=status)
    refused = await tell_facts(core, PAGE)
    assert [each.transaction_id for each in refused] == ["T0", "T77"]
    assert core.names == [each.transaction_id for each in PAGE if each not in refused]
    assert core.asked <= 2 * 2 * 8 + 1


@pytest.mark.parametrize("status", [401, 404, 409])
async def test_where_no_fact_is_the_cause_the_page_is_told_once_and_the_refusal_raised(status: int) -> None:
    core = Core("T0", status=status)
    with pytest.raises(CoreRefusedError):
        await tell_facts(core, PAGE)
    assert core.asked == 1


def executed(payments: int) -> tuple[Granted, Executed]:
    """Return a collection that so many payments came for."""
    granted = Granted(
        job_id=UUID(int=1), kind=JobKind.INQUIRE, mode=PermitMode.INQUIRE_ONLY, fence=1, first=True, send_by_s=5,
        reference="R1", instruction=Instruction(), provider_account="main", environment="sandbox",
        amount_minor=100, currency="THB",
    )  # fmt: skip
    further = [Received(transaction_id=f"T{each}", amount_minor=100, currency="THB") for each in range(1, payments)]
    outcome = Outcome(Verdict.PAID, amount_minor=100, currency="THB", provider_tx_id="T0", further=further)
    return granted, Executed(Action.INQUIRE, outcome)


async def test_of_many_payments_for_one_code_one_that_is_refused_hides_none_and_is_asked_about_again() -> None:
    granted, made = executed(50)
    core = Core("T30")
    assert (await told_apart(core, granted, made)).outcome.verdict is Verdict.UNKNOWN
    assert set(core.names) == {f"T{each}" for each in range(50)} - {"T30"}
    core.refused.clear()
    assert (await told_apart(core, granted, made)).outcome.verdict is Verdict.PAID


async def test_no_further_payment_takes_the_place_of_the_first_one_that_is_refused() -> None:
    granted, made = executed(50)
    core = Core("T0")
    assert (await told_apart(core, granted, made)).outcome.verdict is Verdict.UNKNOWN
    assert core.names == []
