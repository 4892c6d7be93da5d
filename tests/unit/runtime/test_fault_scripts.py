"""A seed makes a run of a simulator repeatable: the same requests in the same order meet the same faults."""

from adapters.testkit.faults import MEANS, Fault, FaultScripts, Script

REFERENCES = [f"R{number}" for number in range(200)]


def struck(seed: int) -> list[str]:
    scripts = FaultScripts(seed, [Script(Fault.TIMEOUT_AFTER, probability=0.3)])
    among = frozenset({Fault.TIMEOUT_AFTER})
    return [reference for reference in REFERENCES if scripts.due("anybody", reference, among)]


def test_the_same_seed_strikes_the_same_payments_and_another_seed_others() -> None:
    assert struck(7) == struck(7) != struck(8)
    assert 30 < len(struck(7)) < 90


def test_a_script_strikes_by_payee_amount_and_reference_and_so_often_as_it_says() -> None:
    among = frozenset({Fault.DECLINED})
    scripts = FaultScripts(0, [Script(Fault.DECLINED, payee="P", reference="R1", amount_minor=5, times=1)])
    asked = [("P", "R2", 5), ("Q", "R1", 5), ("P", "R1", 6), ("P", "R1", 5), ("P", "R1", 5)]
    assert [scripts.due(payee, reference, among, amount) for payee, reference, amount in asked] == [
        None, None, None, Fault.DECLINED, None,
    ]  # fmt: skip


def test_clearing_forgets_what_was_added_and_keeps_whose_fate_is_fixed() -> None:
    scripts = FaultScripts(0, [Script(Fault.DECLINED, payee="P", times=1)])
    assert scripts.due("P", "R1", frozenset(Fault)) is Fault.DECLINED
    scripts.scripts.insert(0, Script(Fault.THROTTLED))
    scripts.clear()
    assert scripts.scripts == [Script(Fault.DECLINED, payee="P", times=1)]


def test_every_fault_says_what_it_does() -> None:
    assert MEANS.keys() == set(Fault)
    assert len(set(MEANS.values())) == len(Fault)
