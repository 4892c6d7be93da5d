"""Cut-off times, value dates and reports within the day, against mock-bank at a time of its day."""

import re
from datetime import date

import pytest

from adapters.bank.client import BankClient
from adapters.testkit.files import FilesInMemory
from schemas.results import Verdict
from tests.integration.bank.conftest import RailAt, debit, order, paid
from tests.support.bank import running_bank

CUT_OFF = "15:30"
HOLIDAYS = [date(2026, 11, 24)]


def asked_for(files: FilesInMemory) -> list[str]:
    """Return the day that each file asks for."""
    texts = [file.body.decode() for file in files.files.values()]
    return [found for text in texts for found in re.findall(r"<Reqd(?:Exctn|Colltn)Dt>(?:<Dt>)?([0-9-]+)<", text)]


@pytest.mark.parametrize(
    ("moment", "day", "verdict"),
    [
        ("2026-11-23T15:20", "2026-11-23", Verdict.SUCCEEDED),
        ("2026-11-23T15:31", "2026-11-25", Verdict.PENDING),  # Tuesday is a holiday
        ("2026-11-27T15:31", "2026-11-30", Verdict.PENDING),  # a Friday
    ],
    ids=["before_the_cut_off", "after_it_before_a_holiday", "after_it_before_a_weekend"],
)
async def test_a_file_asks_for_the_day_that_the_bank_books_it_on_and_is_paid_no_sooner(
    moment: str, day: str, verdict: Verdict, rail_at: RailAt
) -> None:
    with running_bank("--cutoff", CUT_OFF, clock=moment) as bank:
        bank.close_on("2026-11-24")
        files, payment = FilesInMemory(), order()
        rail = rail_at(bank, files, holidays=HOLIDAYS)
        [answer] = await paid(rail, payment)
        assert (answer.verdict, asked_for(files)) == (verdict, [day])
        bank.ask("POST", f"/_mock/advance?to={day}")
        assert (await rail.inquire(payment)).verdict is Verdict.SUCCEEDED
        known = rail.mailbox.known(payment.reference)
        assert known is not None
        assert [(entry.value_date, entry.booked_on) for entry in known.debits.values()] == [(day, day)]


async def test_a_direct_debit_asks_for_the_day_after_and_is_booked_with_that_value_date(rail_at: RailAt) -> None:
    with running_bank("--cutoff", CUT_OFF, clock="2026-11-27T15:31") as bank:
        files, asked = FilesInMemory(), debit()
        rail = rail_at(bank, files, holidays=HOLIDAYS)
        assert (await rail.collect(asked)).verdict is Verdict.PENDING
        # Too late on a Friday: handed in for Monday, drawn on Tuesday.
        assert asked_for(files) == ["2026-12-01"]
        bank.ask("POST", "/_mock/advance?to=2026-11-30")
        assert (await rail.check_collection(asked)).verdict is Verdict.PENDING
        bank.ask("POST", "/_mock/advance?to=2026-12-01")
        assert (await rail.check_collection(asked)).verdict is Verdict.PAID
        known = rail.mailbox.known(asked.reference)
        assert known is not None
        assert [entry.value_date for entry in known.credits.values()] == ["2026-12-01"]


class LosesNotices(BankClient):
    """A bank whose notices of single entries never come."""

    async def message(self, number: int) -> bytes | None:
        told = await super().message(number)
        return b"<lost/>" if told is not None and b"camt.054" in told else told


async def test_a_report_within_the_day_proves_a_payment_and_the_statement_after_it_adds_none(rail_at: RailAt) -> None:
    with running_bank() as bank:
        rail = rail_at(bank, FilesInMemory(), LosesNotices)
        payment = order()
        [answer] = await paid(rail, payment)
        assert answer.verdict is Verdict.PENDING, "the notice is lost"
        bank.ask("POST", "/_mock/accounts/FLEET/report")
        shown = await rail.inquire(payment)
        assert (shown.verdict, shown.amount_minor) == (Verdict.SUCCEEDED, payment.amount_minor)
        known = rail.mailbox.known(payment.reference)
        assert known is not None
        assert [entry.source.startswith("camt.052") for entry in known.debits.values()] == [True]
        bank.ask("POST", "/_mock/accounts/FLEET/report")  # the day so far, once more
        bank.advance(1)
        again = await rail.inquire(payment)
        assert (again.verdict, again.provider_tx_id) == (Verdict.SUCCEEDED, shown.provider_tx_id)
        assert len(known.debits) == 1
        assert rail.mailbox.gaps == [], "a report is no statement that one could follow"
