"""mock-bank with scripts: `python -m fleet.stack.scripted_bank --seed 7 …`, whatever else mock-bank takes behind it.

mock-bank's behaviours are an account's. A script gives one of them to the payments of a payee, an amount or a
reference, or to a part of them that the seed draws. Scripts end with the process, as every simulator's do.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from mockbank import accounts, direct_debit
from mockbank.__main__ import main as run_bank
from mockbank.clock import WEEKEND, timezone
from mockbank.routes import json_body, route

DECLINES: Final = {"closed-account": "AC04", "bad-bank-id": "RC01", "insufficient-funds": "AM04"}
"""Behaviours that decline a payment, and the bank's code for it."""
SCRIPTED: Final = (*DECLINES, "return-later", "reject-file", "silent")
"""Behaviours that a script can give; those of a statement or a clock are an account's alone."""
_RETURN: Final = accounts.RETURN_LATER
_OPENS: Final = "09:00"


@dataclass(slots=True)
class BankScript:
    """One rule: what is given has to match, `probability` draws, `times` counts down to nothing."""

    fault: str
    payee: str | None = None
    reference: str | None = None
    amount_minor: int | None = None
    probability: float = 1.0
    times: int | None = None

    def __post_init__(self) -> None:
        if self.fault not in SCRIPTED:
            raise ValueError(f"no such fault; there are: {', '.join(SCRIPTED)}")
        if not 0 <= self.probability <= 1:
            raise ValueError("a probability is between 0 and 1")


class BankScripts:
    """The rules in force, the last one first. The same seed and the same payments in the same order meet the same."""

    def __init__(self, seed: int = 0) -> None:
        self.scripts: list[BankScript] = []
        self.returning: set[str] = set()
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def due(self, payee: str, reference: str, amount_minor: int) -> str | None:
        """Return what befalls this payment, if anything, and count it."""
        for script in self.scripts:
            asked = (script.payee, payee), (script.reference, reference), (script.amount_minor, amount_minor)
            if script.times == 0 or any(wanted not in (None, given) for wanted, given in asked):
                continue
            if script.probability < 1 and self._random.random() >= script.probability:
                continue
            if script.times is not None:
                script.times -= 1
            return script.fault
        return None

    def apply(self, decision: Any) -> Any:
        """Return the bank's decision of a file as the scripts change it: only what it would have paid."""
        for each in decision.accepted:
            fault = self.due(_other_side(each.payment), each.payment.end_to_end_id, each.payment.amount)
            if fault == "reject-file":
                return accounts.Decision(decision.payment_file, "RJCT", "FF01", "a script refuses the file")
            if fault == "silent":
                decision.reported = False
            elif fault == "return-later":
                self.returning.add(each.payment.end_to_end_id)
            elif fault is not None:
                each.outcome, each.reason, each.reason_text = accounts.REJECTED, DECLINES[fault], "by a script"
                each.settlement_date = None
        if decision.rejected and not decision.rejected_outright:
            decision.status = "PART" if decision.accepted else "RJCT"
        return decision

    def schedule(self, connection: Any, booked: Sequence[Any], clock: Any, table: str = "payment") -> list[int]:
        """Give what was just booked the day on which it comes back, where a script says so; return the rows' ids.

        `table` is the bank's own of what was booked: payments, or collections.
        """
        found = [row for row in booked if row["end_to_end_id"] in self.returning]
        for row in found:
            self.returning.discard(row["end_to_end_id"])
            booked_on = date.fromisoformat(row["settlement_date"])
            due = clock.business_days_after(booked_on, _RETURN["days"]).isoformat()
            update = f"UPDATE {table} SET return_due = ?, return_reason = ? WHERE id = ?"  # noqa: S608 - of our words
            connection.execute(update, (due, _RETURN["reason"], row["id"]))
        return [row["id"] for row in found]


def _other_side(payment: Any) -> str:
    """Return the account that is paid, or of a direct debit the one that pays."""
    return getattr(payment, "creditor_account", None) or getattr(payment, "debtor_account", None) or ""


def install(scripts: BankScripts) -> None:
    """Put the scripts behind mock-bank's own decision, and their control beside its own, under /_mock/faults."""
    decide, schedule_returns = accounts.decide, accounts.schedule_returns
    decide_debits, book_debits = direct_debit.decide, direct_debit.book_due

    def book(connection: Any, today: date, clock: Any, now: datetime) -> Any:
        booked = book_debits(connection, today, clock, now)
        scripts.schedule(connection, booked, clock, "collection")
        return booked

    accounts.decide = lambda *given, **named: scripts.apply(decide(*given, **named))
    accounts.schedule_returns = lambda connection, booked, clock: [
        *schedule_returns(connection, booked, clock),
        *scripts.schedule(connection, booked, clock),
    ]

    direct_debit.decide = lambda *given, **named: scripts.apply(decide_debits(*given, **named))
    direct_debit.book_due = book

    def show(handler: Any) -> None:
        handler.json(200, {"scripts": [asdict(script) for script in scripts.scripts]})

    def add(handler: Any) -> None:
        try:
            scripts.scripts.insert(0, BankScript(**(json_body(handler.body) or {})))
        except (TypeError, ValueError) as error:
            handler.json(422, {"error": str(error)})
            return
        show(handler)

    def clear(handler: Any) -> None:
        scripts.scripts.clear()
        show(handler)

    for method, answer in (("GET", show), ("POST", add), ("DELETE", clear)):
        route(method, "/_mock/faults")(answer)


def morning_ahead(now: datetime, days: int) -> str:
    """Return the morning so many business days after `now`, as mock-bank's `--clock` takes it."""
    day = now.date()
    for _ in range(days):
        day += timedelta(days=1)
        while day.weekday() in WEEKEND:
            day += timedelta(days=1)
    return f"{day.isoformat()}T{_OPENS}"


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="scripted-bank", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of scripts with a probability")
    parser.add_argument("--timezone", default="UTC", help="of the bank")
    parser.add_argument("--ahead", type=int, default=0, metavar="DAYS",
                        help="the bank's clock stands in the morning so many business days ahead: what is handed in"
                        " with a date of before is booked at once")  # fmt: skip
    chosen, others = parser.parse_known_args()
    if chosen.ahead:
        others += ["--clock", morning_ahead(datetime.now(timezone(chosen.timezone)), chosen.ahead)]
    install(BankScripts(chosen.seed))
    return int(run_bank([*others, "--timezone", chosen.timezone]))


if __name__ == "__main__":
    sys.exit(main())
