"""Every behaviour of mock-bank, by its own name, against the rail over real sockets."""

from typing import Any

import pytest

from adapters.bank.adapter import BankRail
from adapters.bank.client import BankClient
from adapters.runtime.core_client import CoreUnavailableError
from adapters.runtime.errors import Indeterminate, NotSent
from adapters.testkit.files import FilesInMemory
from schemas.permits import Payee
from schemas.results import Verdict
from tests.integration.bank.conftest import RailAt, order, paid
from tests.support.bank import RunningBank


async def test_accept(bank: RunningBank, rail: BankRail) -> None:
    orders = [order(2_500), order(100), order(123_456)]
    answers = await paid(rail, *orders)
    assert [each.verdict for each in answers] == [Verdict.SUCCEEDED] * 3
    assert [each.amount_minor for each in answers] == [2_500, 100, 123_456]
    assert len({each.provider_tx_id for each in answers}) == 3
    assert bank.received() == 1


async def test_accept_on_a_day_that_comes_is_no_success_before_it(bank: RunningBank, rail: BankRail) -> None:
    bank.ask("POST", "/_mock/advance?to=2026-11-28")  # a Saturday
    asked = order()
    [answer] = await paid(rail, asked)
    assert answer.verdict is Verdict.PENDING
    bank.advance(2)
    assert (await rail.inquire(asked)).verdict is Verdict.SUCCEEDED


@pytest.mark.parametrize(
    ("behaviour", "reason"), [("closed-account", "account_closed"), ("bad-bank-id", "bank_unknown")]
)
async def test_AC04_and_RC01_decline_their_payment_alone(  # noqa: N802 - the bank's own codes
    bank: RunningBank, rail: BankRail, behaviour: str, reason: str
) -> None:
    details = {"iban": "NL30MOCK0000000005", "currency": "THB", "behaviour": behaviour}
    bank.ask("POST", "/_mock/accounts", id="OTHER", name="Other", **details)
    good, bad = order(), order()
    bad = bad._replace(payee=Payee(type="iban", value="NL30MOCK0000000005"))
    first, second = await paid(rail, good, bad)
    assert first.verdict is Verdict.SUCCEEDED
    assert (second.verdict, second.reason) == (Verdict.DECLINED, reason)
    assert bank.booked(bad.reference) == []


async def test_AM04_declines_what_our_account_does_not_cover(  # noqa: N802 - the bank's own code
    bank: RunningBank, rail: BankRail
) -> None:
    bank.behave("insufficient-funds")
    bank.ask("PATCH", "/_mock/accounts/FLEET", balance=3_000)
    small, large = order(1_000), order(2_500)
    first, second = await paid(rail, small, large)
    assert first.verdict is Verdict.SUCCEEDED
    assert (second.verdict, second.reason) == (Verdict.DECLINED, "insufficient_provider_funds")


async def test_return_later(bank: RunningBank, rail: BankRail) -> None:
    bank.behave("return-later", days=2, reason="AC04")
    asked = order()
    [answer] = await paid(rail, asked)
    assert answer.verdict is Verdict.SUCCEEDED
    bank.advance(3)
    back = await rail.inquire(asked)
    assert (back.verdict, back.amount_minor, back.reason) == (Verdict.RETURNED, 2_500, "account_closed")
    assert back.provider_tx_id == answer.provider_tx_id
    # The booking and what announced it are both what shows it.
    assert "RtrInf>" in back.evidence
    assert "RtrdIntrBkSttlmAmt" in back.evidence


async def test_reject_file(bank: RunningBank, rail: BankRail) -> None:
    bank.behave("reject-file")
    orders = [order(), order()]
    answers = await paid(rail, *orders)
    assert [(each.verdict, each.reason) for each in answers] == [(Verdict.DECLINED, "file_invalid")] * 2
    # The report is found again by whoever asks later.
    assert (await rail.inquire(orders[0])).verdict is Verdict.DECLINED


async def test_duplicate_file(bank: RunningBank, rail_at: RailAt) -> None:
    bank.behave("duplicate-file")
    files, asked = FilesInMemory(), [order(), order()]
    for _ in range(2):  # the second is another process, after the first one died
        rail = rail_at(bank, files)
        assert [each.verdict for each in await paid(rail, *asked)] == [Verdict.SUCCEEDED] * 2
    assert bank.received() == 2
    assert [bank.booked(each.reference) for each in asked] == [[2_500], [2_500]]


async def test_silent(bank: RunningBank, rail: BankRail) -> None:
    bank.behave("silent")
    bank.ask("POST", "/_mock/advance?to=2026-11-28")
    asked = order()
    [answer] = await paid(rail, asked)
    assert (answer.verdict, answer.reason) == (Verdict.PENDING, "no_report_yet")
    assert (await rail.inquire(asked)).verdict is Verdict.PENDING
    bank.advance(2)
    assert (await rail.inquire(asked)).verdict is Verdict.SUCCEEDED
    assert bank.received() == 1


async def test_a_file_that_stays_unanswered_is_handed_in_again_as_the_same_bytes(
    bank: RunningBank, rail_at: RailAt
) -> None:
    bank.behave("silent")
    bank.ask("POST", "/_mock/advance?to=2026-11-28")
    files = FilesInMemory()
    rail = rail_at(bank, files, resend_after_s=60)
    asked = order()
    await paid(rail, asked)
    [file] = files.files.values()
    file.age_s = 61
    for _ in range(2):  # the bank had it: what became of the first one is what counts
        told = await rail.inquire(asked)
        assert (told.verdict, told.reason) == (Verdict.UNKNOWN, "duplicate")
    assert (bank.received(), file.resends) == (2, 1)
    bank.advance(2)
    assert (await rail.inquire(asked)).verdict is Verdict.SUCCEEDED
    assert bank.booked(asked.reference) == [2_500]


async def test_statement_gap(bank: RunningBank, rail: BankRail) -> None:
    bank.behave("statement-gap")
    orders = [order(2_500), order(2_600)]
    assert [each.verdict for each in await paid(rail, *orders)] == [Verdict.SUCCEEDED] * 2
    bank.advance(1)
    await rail.mailbox.read()
    assert [gap.kind for gap in rail.mailbox.gaps] == ["entries_do_not_explain_the_balance"]
    # The notice told of both: nothing is lost by the hole in the statement.
    assert [(await rail.inquire(each)).verdict for each in orders] == [Verdict.SUCCEEDED] * 2


async def test_a_statement_that_never_came_is_a_gap_by_its_number(bank: RunningBank, rail_at: RailAt) -> None:
    class LosesTheSecondStatement(BankClient):
        async def message(self, number: int) -> bytes | None:
            told = await super().message(number)
            return b"<lost/>" if told is not None and b"MB-C053-FLEET-2<" in told else told

    rail = rail_at(bank, FilesInMemory(), LosesTheSecondStatement)
    bank.advance(3)
    await rail.mailbox.read()
    assert [(gap.kind, gap.statement_id) for gap in rail.mailbox.gaps] == [
        ("a_statement_is_missing", "MB-C053-FLEET-3")
    ]


async def test_a_bank_that_cannot_be_reached_was_sent_nothing_and_its_members_go_into_another_file(
    bank: RunningBank, rail_at: RailAt
) -> None:
    files, asked = FilesInMemory(), order()
    unreachable = rail_at(bank, files, base_url="http://127.0.0.1:9")
    [answer] = await unreachable.pay_many([asked])
    assert isinstance(answer, NotSent)
    rail = rail_at(bank, files)
    [paid_now] = await paid(rail, asked)
    assert paid_now.verdict is Verdict.SUCCEEDED
    assert len({file.message_id for file in files.files.values()}) == 2
    assert bank.booked(asked.reference) == [2_500]


async def test_a_payment_that_is_in_a_file_goes_by_that_file_and_the_others_by_a_new_one(
    bank: RunningBank, rail_at: RailAt
) -> None:
    files = FilesInMemory()
    rail = rail_at(bank, files)
    first, second = order(), order()
    await paid(rail, first)
    answers = await paid(rail, first, second)
    assert [each.verdict for each in answers] == [Verdict.SUCCEEDED] * 2
    assert [bank.booked(each.reference) for each in (first, second)] == [[2_500], [2_500]]
    assert len(files.files) == 2


async def test_a_file_that_may_be_stored_was_perhaps_sent_until_its_payment_is_buried(
    bank: RunningBank, rail_at: RailAt
) -> None:
    class LosesItsAnswer(FilesInMemory):
        async def place(self, *_: Any) -> bool:
            raise CoreUnavailableError("no answer")

    asked = order()
    rail = rail_at(bank, LosesItsAnswer())
    [answer] = await rail.pay_many([asked])
    assert isinstance(answer, Indeterminate)
    assert (await rail.inquire(asked)).verdict is Verdict.NOT_FOUND
    # Another process, and the same core: nothing can be sent any more once it is buried.
    files = FilesInMemory()
    rail = rail_at(bank, files)
    assert (await rail.cancel(asked)).verdict is Verdict.CANCELLED
    assert [each.verdict for each in await paid(rail, asked)] == [Verdict.CANCELLED]
    assert bank.booked(asked.reference) == []
