"""`fleet simulate` reaches the providers of a running stack, and says in one line where it cannot."""

from uuid import uuid4

from fleet.stack.bank import OWN_ACCOUNT
from fleet.stack.stack import Stack
from tests.support.commands import Fleet


async def test_a_fault_is_scripted_listed_and_cleared_for_each_provider(fleet: Fleet) -> None:
    reference = uuid4().hex[:20].upper()
    for provider in ("promptpay", "sbp"):
        before = (await fleet("simulate", provider, "faults")).document["scripts"]
        rule = ("--reference", reference, "--amount-minor", "1050", "--times", "1", "--probability", "0.5")
        added = (await fleet("simulate", provider, "fault", "error_after", *rule)).document["scripts"]
        assert added[1:] == before
        assert (added[0]["fault"], added[0]["reference"], added[0]["amount_minor"]) == ("error_after", reference, 1050)
        assert (added[0]["times"], added[0]["probability"]) == (1, 0.5)
        assert "executed" in (await fleet("simulate", provider, "book")).document


async def test_a_wrong_call_is_one_line_with_a_code(fleet: Fleet, stack: Stack) -> None:
    (await fleet("simulate", "sbp", "control", "orders/NEVER/pay")).must_fail(3, "simulator_refused")
    (await fleet("simulate", "sbp", "control", "no-such-path")).must_fail(3, "simulator_refused")
    (await fleet("simulate", "sbp", "control", "orders/X/pay", "--send", "{")).must_fail(2, "malformed_json")
    (await fleet("simulate", "sbp", "book", "--url", "http://127.0.0.1:9")).must_fail(4, "simulator_unreachable")
    (await fleet("simulate", "sbp", "book", "--url", "nonsense")).must_fail(4, "simulator_unreachable")
    (await fleet("simulate", "sbp", "fault", "no_such")).must_fail(2, "usage")


async def test_the_banks_accounts_behave_as_they_are_told_and_its_book_and_days_are_reached(fleet: Fleet) -> None:
    iban = "NL41MOCK0000000001"  # an account that mock-bank has from its start
    for behaviour in ("closed-account", "return-later"):
        assert (await fleet("simulate", "bank", "fault", behaviour, "--payee", iban)).code == 0
        told = (await fleet("simulate", "bank", "faults")).document["accounts"]
        accounts = {each["iban"]: each["behaviour"] for each in told}
        assert (accounts[iban], accounts[OWN_ACCOUNT]) == (behaviour, "accept")
    assert (await fleet("simulate", "bank", "fault", "silent")).document["behaviour"] == "silent"
    rule = ("--amount-minor", "1050", "--probability", "0.5", "--times", "1", "--reference", "R1")
    added = (await fleet("simulate", "bank", "fault", "return-later", "--payee", iban, *rule)).document["scripts"]
    assert added == [
        {
            "fault": "return-later",
            "payee": iban,
            "amount_minor": 1050,
            "probability": 0.5,
            "times": 1,
            "reference": "R1",
        }
    ]
    cleared = (await fleet("simulate", "bank", "faults", "--clear")).document
    assert {each["behaviour"] for each in cleared["accounts"]} == {"accept"}
    assert cleared["scripts"] == []
    assert isinstance((await fleet("simulate", "bank", "book")).document, list)
    later = (await fleet("simulate", "bank", "control", "advance?days=1")).document
    assert isinstance(later, dict)
    (await fleet("simulate", "bank", "fault", "no-such")).must_fail(3, "simulator_refused")
    (await fleet("simulate", "bank", "fault", "no-such", "--times", "1")).must_fail(3, "simulator_refused")
