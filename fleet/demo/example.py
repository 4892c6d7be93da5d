"""The payments of the demo: most of them should settle, and one of everything that goes wrong.

`python -m fleet.demo.example > examples/payments.csv` writes the file that is shipped; a test keeps the two equal.
"""

import csv
import sys
from collections.abc import Iterator
from itertools import islice

from adapters.promptpay.simulator.magic import MAGIC
from adapters.sbp.simulator.magic import MAGIC as SBP_MAGIC
from adapters.sbp.simulator.payouts import BANKS
from adapters.testkit.faults import Fault
from fleet.demo.payments_file import COLUMNS, PaymentLine
from schemas.money import currency_of, to_major_text, to_minor

SHIPPED_PAYMENTS = 204
ROUBLE_PAYMENTS = 36
BILLS = 8
_WALLETS = ("alice", "bob", "chai", "dao")
_MESSAGES = ("lunch", "rent", "coffee", "invoice 17", "thank you", "")
_OVER_BALANCE = "1500000.00"
_FAULT_EVERY = 17
_BANK_EVERY = 6
_REFUSED_BY_THE_BANK = {52: "NL84MOCK0000000003", 94: "NL57MOCK0000000004"}
"""Accounts of mock-bank's: one is closed (AC04), the other's bank does not exist (RC01)."""


def payments() -> Iterator[PaymentLine]:
    """Yield payments without end: the same number gives the same payment, always."""
    faults = [f"0{wire[4:]}" for wire in sorted(MAGIC)]
    line = 1
    while True:
        line += 1
        number = line - 2
        amount = to_major_text(100 + (number * 7919) % 250_000, currency_of("THB"))
        kind, payee = _payee(number)
        position, fault = divmod(number, _FAULT_EVERY)
        if fault == _FAULT_EVERY - 1 and number < SHIPPED_PAYMENTS:
            kind, payee = "mobile", faults[position % len(faults)]
        if number in _REFUSED_BY_THE_BANK:
            kind, payee = "iban", _REFUSED_BY_THE_BANK[number]
        if number == SHIPPED_PAYMENTS // 2:
            amount = _OVER_BALANCE
        yield PaymentLine(
            line=line,
            reference=f"demo-{number + 1:06d}",
            wallet=_WALLETS[number % len(_WALLETS)],
            payee_type=kind,
            payee=payee,
            amount_minor=to_minor(amount, currency_of("THB")),
            currency="THB",
            message=_MESSAGES[number % len(_MESSAGES)],
        )


def _payee(number: int) -> tuple[str, str]:
    spread = number * 104_729
    if number % _BANK_EVERY == _BANK_EVERY - 2:
        return "bank_account", f"004-{1_000_000_000 + spread:010d}"
    match number % 3:
        case 0:
            return "mobile", f"08{spread % 90_000_000:08d}"
        case 1:
            return "national_id", f"{1_000_000_000_000 + spread}"
        case _:
            return "ewallet", f"{4_999_000_000_000 + spread:015d}"


def rouble_payments() -> Iterator[PaymentLine]:
    """Yield the shipped payments over SBP: to phones at banks, each of its faults that the demo need not wait out.

    Left out is what fails before it is paid: QP has no cancel, so the proof takes until its check has run out.
    """
    waits = (Fault.TIMEOUT_BEFORE, Fault.ERROR_BEFORE, Fault.RESET_BEFORE)
    faults = [phone for phone, fault in sorted(SBP_MAGIC.items()) if fault not in waits]
    for number in range(ROUBLE_PAYMENTS):
        position, at = divmod(number, 2)
        struck = at == 1 and position < len(faults)
        phone = faults[position] if struck else f"79{number * 104_729 % 900_000_000:09d}"
        bank = BANKS[number % len(BANKS)].member_id if number != ROUBLE_PAYMENTS - 1 else "999999999999"
        yield PaymentLine(
            line=SHIPPED_PAYMENTS + number + 2,
            reference=f"demo-rub-{number + 1:04d}",
            wallet=_WALLETS[number % len(_WALLETS)],
            payee_type="phone_bank",
            payee=f"{phone}@{bank}",
            amount_minor=10_000 + (number * 7919) % 500_000,
            currency="RUB",
            message=_MESSAGES[number % len(_MESSAGES)],
        )


def bills() -> Iterator[PaymentLine]:
    """Yield the shipped bills: three that are paid, and one for each thing that a biller says no to."""
    payees = [
        "099400000000017:INV2026001:CUST7",
        "099400000000025:WATER17",
        "099999990000104:PHONE2026",
        *(f"0999999900001{number:02d}:INV2026001" for number in (1, 2, 3, 5, 6)),
    ]
    for number, payee in enumerate(payees):
        yield PaymentLine(
            line=SHIPPED_PAYMENTS + ROUBLE_PAYMENTS + number + 2,
            reference=f"demo-bill-{number + 1:04d}",
            wallet=_WALLETS[number % len(_WALLETS)],
            payee_type="bill",
            payee=payee,
            amount_minor=50_000,
            currency="THB",
            message="light",
        )


def money_in() -> Iterator[PaymentLine]:
    """Yield the shipped payments in over every rail, then a refund in part of one of each rail that pays back."""
    lines = [
        *(("topup", "a payer", "THB", 10_000 + 4_321 * n) for n in range(3)),
        *(("topup", "a payer", "RUB", 20_000 + 1_234 * n) for n in range(2)),
        ("deposit", "a payer", "THB", 55_555),
        ("direct_debit", "004-0123456789;Somchai Jaidee", "THB", 77_700),
        ("direct_debit", "014-9876543210;Malee Srisai", "THB", 12_345),
        ("deposit", "a payer", "RUB", 66_600),
        ("refund", "demo-in-0001", "THB", 2_500),
        ("refund", "demo-in-0004", "RUB", 20_000),
        ("refund", "demo-in-0006", "THB", 5_555),
    ]
    for number, (kind, payee, currency, amount_minor) in enumerate(lines):
        yield PaymentLine(
            line=SHIPPED_PAYMENTS + ROUBLE_PAYMENTS + BILLS + number + 2,
            reference=f"demo-in-{number + 1:04d}",
            wallet=_WALLETS[number % len(_WALLETS)],
            payee_type=kind,
            payee=payee,
            amount_minor=amount_minor,
            currency=currency,
            message="not wanted" if kind == "refund" else "",
        )


def rows() -> Iterator[tuple[str, ...]]:
    """Yield the shipped file's rows: the payments, a duplicate, a malformed line, and amounts that are refused."""
    yield COLUMNS
    shipped = [_row(payment) for payment in islice(payments(), SHIPPED_PAYMENTS)]
    yield from shipped
    yield from (_row(payment) for payment in rouble_payments())
    yield from (_row(payment) for payment in bills())
    yield from (_row(payment) for payment in money_in())
    yield shipped[4]
    yield ("demo-malformed", "alice", "mobile")
    yield ("demo-precise", "alice", "mobile", "0812345678", "10.005", "THB", "three decimals")
    yield ("demo-negative", "alice", "mobile", "0812345678", "-5.00", "THB", "")
    yield ("demo-currency", "alice", "mobile", "0812345678", "5.00", "XTS", "")
    yield ("demo-payee", "alice", "mobile", "081234", "5.00", "THB", "four digits short")
    yield ("demo-bank", "alice", "phone_bank", "79161234567", "5.00", "RUB", "no bank")


def _row(payment: PaymentLine) -> tuple[str, ...]:
    return (
        payment.reference,
        payment.wallet,
        payment.payee_type,
        payment.payee,
        to_major_text(payment.amount_minor, currency_of(payment.currency)),
        payment.currency,
        payment.message,
    )


if __name__ == "__main__":
    csv.writer(sys.stdout, lineterminator="\n").writerows(rows())
