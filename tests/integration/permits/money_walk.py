"""A walk that takes each rule of the money machine to what it is there for, once."""

from typing import Any


def walk(machine: Any) -> None:
    """Take every step of a machine that has just begun."""
    _walk_payments(machine)
    _walk_suspense(machine)
    _walk_collected(machine)
    for currency in ("USD", "JPY"):
        machine.exchange(1, 60, currency)
        machine.exchange_back(1, 10, currency)
    machine.repeat(0)
    _walk_refusals(machine)
    _walk_closed(machine)


def _walk_payments(machine: Any) -> None:
    for review in (False, True):
        machine.transfer(0, 0, 100, review)
    machine.refund(0, 20, "part", False)
    machine.refund(0, 20, "part", True)
    machine.end_a_wait(1, "APPROVE")
    for how in ("REJECT", "cancel", "expire"):
        machine.end_a_wait(0, how)
        machine.transfer(1, 0, 10, True)
    machine.end_a_wait(0, "REJECT")
    for end in ("SUCCEEDED", "DECLINED", "RETURNED", "LATE", "OPEN"):
        machine.payout(2, 20, end, 4)
    for debit in (True, False):
        for alone in (True, False):
            machine.adjust(1, 30, debit, alone)
            machine.decide_an_adjustment(0, True)


def _walk_suspense(machine: Any) -> None:
    for back in (True, False):
        for alone in (True, False):
            machine.park(0, 40, alone, back)
            machine.decide_about_suspense(0, True)
    machine.park(0, 40, False, True)
    machine.decide_about_suspense(0, False)


def _walk_collected(machine: Any) -> None:
    machine.top_up(0, 60, 0, "")
    machine.top_up(0, 20, 1, "")
    for answer in ("APPROVE", "REJECT"):
        machine.top_up(1, 10, 0, answer)
    machine.pay_back(0, 20, "part", False)
    machine.go_on_paying_back(0, False)
    for review in (False, True):
        machine.pay_back(0, 20, "part", review)
        machine.go_on_paying_back(0, True)
    machine.go_on_paying_back(0, True)
    machine.pay_back(0, 0, "one too much", False)
    machine.pay_back(0, 0, "rest", False)
    machine.go_on_paying_back(0, True)
    machine.take_back(0, 1)
    for _ in range(2):
        machine.take_back(1, 4)
    machine.top_up(1, 20, 0, "")
    machine.freeze_or_unfreeze(1)
    machine.take_back(2, 1)
    machine.freeze_or_unfreeze(1)


def _walk_refusals(machine: Any) -> None:
    machine.freeze_or_unfreeze(0)
    machine.transfer(0, 0, 5, False)
    machine.freeze_or_unfreeze(0)
    for payer in (2, 2, 2):
        machine.transfer(payer, 0, 150, False)
    machine.adjust(1, 150, False, True)
    machine.adjust(1, 150, False, True)
    machine.transfer(1, 0, 150, False)
    machine.transfer(1, 0, 150, False)
    machine.transfer(1, 0, 150, False)
    machine.park(1, 150, False, False)


def _walk_closed(machine: Any) -> None:
    machine.close(0, False)
    machine.close(0, True)
    closed = 3  # the wallets that are open come first
    machine.transfer(closed, 0, 5, False)
    machine.transfer(0, 2, 5, False)
    machine.payout(closed, 5, "SUCCEEDED", 0)
    machine.park(closed, 5, True, False)
    machine.top_up(closed, 5, 0, "")
    machine.exchange(closed, 60, "JPY")
    machine.exchange_back(closed, 5, "JPY")
    machine.adjust(closed, 5, False, True)
