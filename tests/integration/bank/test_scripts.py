"""What befalls payments by payee, amount, reference or chance at the bank of the stack, over real sockets."""

import httpx
import pytest

from adapters.bank.adapter import BankRail
from adapters.testkit.files import FilesInMemory
from schemas.permits import Payee
from schemas.results import Verdict
from tests.integration.bank.conftest import RailAt, debit, order, paid
from tests.support.bank import RunningBank, running_bank

CHANCE = 0.5


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("closed-account", "account_closed"),
        ("bad-bank-id", "bank_unknown"),
        ("insufficient-funds", "insufficient_provider_funds"),
    ],
)
async def test_a_script_declines_by_amount_by_reference_and_by_payee_and_so_often_as_it_says(
    bank: RunningBank, rail: BankRail, fault: str, reason: str
) -> None:
    others = Payee(type="iban", value="NL30MOCK0000000005")
    asked = [order(100), order(200), order(300), order(400)._replace(payee=others), order(400)._replace(payee=others)]
    bank.script(fault, amount_minor=100)
    bank.script(fault, reference=asked[1].reference)
    bank.script(fault, payee=others.value, times=1)
    answers = await paid(rail, *asked)
    expected = [Verdict.DECLINED, Verdict.DECLINED, Verdict.SUCCEEDED, Verdict.DECLINED, Verdict.SUCCEEDED]
    assert [each.verdict for each in answers] == expected
    assert {each.reason for each in answers if each.verdict is Verdict.DECLINED} == {reason}
    assert [bank.booked(each.reference) for each in asked] == [[], [], [300], [], [400]]


async def test_a_scripted_return_comes_back_alone(bank: RunningBank, rail: BankRail) -> None:
    back, stays = order(100), order(200)
    bank.script("return-later", amount_minor=100)
    assert [each.verdict for each in await paid(rail, back, stays)] == [Verdict.SUCCEEDED] * 2
    bank.advance(4)
    told = await rail.inquire(back)
    assert (told.verdict, told.amount_minor, told.reason) == (Verdict.RETURNED, 100, "account_closed")
    assert (await rail.inquire(stays)).verdict is Verdict.SUCCEEDED


async def test_a_script_refuses_the_file_or_leaves_it_unreported(bank: RunningBank, rail: BankRail) -> None:
    bank.script("reject-file", amount_minor=100)
    refused = [order(100), order(200)]
    assert [each.reason for each in await paid(rail, *refused)] == ["file_invalid"] * 2
    bank.script("silent", amount_minor=300)
    bank.ask("POST", "/_mock/advance?to=2026-11-28")  # a Saturday: nothing is booked before Monday
    [answer] = await paid(rail, order(300))
    assert (answer.verdict, answer.reason) == (Verdict.PENDING, "no_report_yet")


@pytest.mark.parametrize("rule", ["amount_minor", "reference", "payee"])
async def test_a_script_declines_a_direct_debit_by_amount_reference_or_the_account_that_pays(
    bank: RunningBank, rail: BankRail, rule: str
) -> None:
    struck, spared = debit("004-0123456789"), debit("004-0000000001")._replace(amount_minor=777)
    by = {"amount_minor": struck.amount_minor, "reference": struck.reference, "payee": "0123456789"}
    bank.script("insufficient-funds", **{rule: by[rule]})
    assert [(await rail.collect(each)).verdict for each in (struck, spared)] == [Verdict.DECLINED, Verdict.PENDING]
    bank.advance(1)
    assert [(await rail.check_collection(each)).verdict for each in (struck, spared)] == [
        Verdict.DECLINED,
        Verdict.PAID,
    ]


async def test_a_scripted_return_takes_one_direct_debit_back(bank: RunningBank, rail: BankRail) -> None:
    back, stays = debit(), debit()._replace(amount_minor=777)
    bank.script("return-later", amount_minor=back.amount_minor)
    for each in (back, stays):
        await rail.collect(each)
    bank.advance(1)
    assert [(await rail.check_collection(each)).verdict for each in (back, stays)] == [Verdict.PAID] * 2
    bank.advance(5)
    told = await rail.check_collection(back)
    assert (told.verdict, told.amount_minor) == (Verdict.RETURNED, back.amount_minor)
    assert (await rail.check_collection(stays)).verdict is Verdict.PAID


async def test_the_same_seed_draws_the_same_payments_and_another_seed_others(rail_at: RailAt) -> None:
    async def declined(seed: str) -> list[bool]:
        with running_bank("--seed", seed) as bank:
            bank.script("closed-account", probability=CHANCE)
            rail = rail_at(bank, FilesInMemory())
            answers = await paid(rail, *(order(100 + number) for number in range(40)))
        return [each.verdict is Verdict.DECLINED for each in answers]

    first = await declined("7")
    assert first == await declined("7") != await declined("8")
    assert 5 < sum(first) < 35


def test_a_script_that_is_none_is_refused(bank: RunningBank) -> None:
    for wrong in ({"fault": "no-such"}, {"fault": "silent", "probability": 2}, {"fault": "silent", "unknown": 1}, {}):
        assert httpx.post(f"{bank.url}/_mock/faults", json=wrong).status_code == 422
    assert bank.ask("GET", "/_mock/faults") == {"scripts": []}


async def test_a_walk_submit_settle_decline_return_twice_late_and_read_again_from_the_start(
    bank: RunningBank, rail_at: RailAt
) -> None:
    """The bank calls nobody back: what is repeated is a file or a message, and nothing forged can come in."""
    files = FilesInMemory()
    rail = rail_at(bank, files)
    settled, declined, returned = order(100), order(200), order(300)
    bank.script("closed-account", reference=declined.reference)
    bank.script("return-later", reference=returned.reference)
    answers = await paid(rail, settled, declined, returned)
    assert [each.verdict for each in answers] == [Verdict.SUCCEEDED, Verdict.DECLINED, Verdict.SUCCEEDED]
    again = await paid(rail, settled, declined, returned)  # the same file, handed in twice
    assert [each.verdict for each in again] == [each.verdict for each in answers]
    assert [bank.booked(each.reference) for each in (settled, declined, returned)] == [[100], [], [300]]
    bank.advance(4)
    assert (await rail.inquire(returned)).verdict is Verdict.RETURNED
    # Late: nothing is told when it is taken, and the booking alone tells of it days after.
    bank.ask("POST", "/_mock/advance?to=2026-12-05")  # a Saturday
    late = order(400)
    bank.script("silent", reference=late.reference)
    assert (await paid(rail, late))[0].verdict is Verdict.PENDING
    assert (await rail.inquire(late)).reason == "no_report_yet"
    bank.advance(2)
    assert (await rail.inquire(late)).verdict is Verdict.SUCCEEDED
    assert bank.booked(late.reference) == [400]
    # Whoever reads the whole mailbox from its start afterwards finds the same ends.
    fresh = rail_at(bank, files)
    ends = [(await fresh.inquire(each)).verdict for each in (late, returned, declined, settled)]
    assert ends == [Verdict.SUCCEEDED, Verdict.RETURNED, Verdict.DECLINED, Verdict.SUCCEEDED]
