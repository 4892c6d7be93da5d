"""The bank of the one-machine stack: mock-bank, as a process of its own, with an account of ours at it."""

import asyncio
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from adapters.bank.calendar import BankCalendar
from fleet.proof import BookPayment
from fleet.stack.profile import Profile
from fleet.stack.supervisor import ChildSpec

BANK: Final = "mock-bank"
OWN_ACCOUNT: Final = "TH69MOCK1234567890"
OWN_ACCOUNT_ID: Final = "FLEET"
"""How mock-bank names our account."""
_BALANCE_MINOR: Final = 10**14
_UP_WITHIN_S: Final = 30
_DAYS_OF_A_DEBIT: Final = 7
"""After so many days a debit that was handed in is booked, whatever holidays there are."""
_PAYER: Final = {"name": "Anong P.", "iban": "NL14MOCK0000000002"}


def bank_process(port: int, home: Path, now: datetime | None = None) -> ChildSpec:
    """Return the bank's process.

    Its clock stands in the morning of the business day after the one that files ask for: whenever the stack is started,
    on a Sunday or at midnight, what is handed in is booked at once.
    """
    calendar = BankCalendar()
    day = calendar.after(calendar.value_date(now or datetime.now(UTC)))
    argv = (
        sys.executable,
        "-m",
        "fleet.stack.scripted_bank",
        "-q",
        "--port",
        str(port),
        "--db",
        str(home / "bank-book.sqlite"),
    )
    times = ("--timezone", calendar.timezone, "--cutoff", "23:59", "--clock", f"{day.isoformat()}T09:00")
    return ChildSpec(BANK, (*argv, *times))


def bank_settings(url: str, profile: Profile) -> Mapping[str, str]:
    """Return what the rail's adapters are told of it."""
    return {
        "BANK_BASE_URL": url,
        "BANK_ACCOUNT": OWN_ACCOUNT,
        "BANK_SETTLEMENT_S": str(profile.settlement_s),
        "BANK_RESEND_AFTER_S": str(profile.claim_idle_s),
        "BANK_WATCH_EVERY_S": str(profile.inquiry_first_s),
    }


async def open_account(url: str) -> None:
    """Wait for the bank and open our account where it is not open yet. Raises TimeoutError."""
    own = {"id": OWN_ACCOUNT_ID, "name": "psp-fleet", "iban": OWN_ACCOUNT, "currency": "THB", "balance": _BALANCE_MINOR}
    deadline = time.monotonic() + _UP_WITHIN_S
    async with httpx.AsyncClient(base_url=url, timeout=5, trust_env=False) as http:
        while time.monotonic() < deadline:
            try:
                known: list[dict[str, Any]] = (await http.get("/_mock/accounts")).json()
                if all(account["id"] != own["id"] for account in known):
                    (await http.post("/_mock/accounts", json=own)).raise_for_status()
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            return
    raise TimeoutError(f"the bank did not answer within {_UP_WITHIN_S} s")


async def pay_in(url: str, reference: str, amount_minor: int) -> None:
    """Play a payer who transfers to our account and names the reference; what was handed in as a debit has its day."""
    async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as http:
        debits: list[dict[str, Any]] = (await http.get("/_mock/collections")).raise_for_status().json()
        if all(each["end_to_end_id"] != reference for each in debits):
            await transfer_in(url, reference, amount_minor)
        if any(each["end_to_end_id"] == reference and not each["booked_at"] for each in debits):
            (await http.post("/_mock/advance", params={"days": _DAYS_OF_A_DEBIT})).raise_for_status()


async def transfer_in(url: str, reference: str, amount_minor: int) -> None:
    """Play a payer who transfers to our account and names the reference."""
    pays = {"account": "FLEET", "amount": amount_minor, "debtor": _PAYER, "reference": reference}
    async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as http:
        (await http.post("/_mock/credits", json=pays)).raise_for_status()


async def read_bank_book(url: str) -> list[BookPayment]:
    """Return what the bank's own book shows as paid."""
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
        rows: list[dict[str, Any]] = (await http.get("/_mock/payments")).raise_for_status().json()
    return [BookPayment(row["end_to_end_id"], row["amount"], "bank") for row in rows if row["booked_at"]]


async def read_bank_received(url: str) -> list[BookPayment]:
    """Return what came in by the bank's own book: transfers to our account, and direct debits that it collected."""
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
        transfers: list[dict[str, Any]] = (await http.get("/_mock/credits")).raise_for_status().json()
        debits: list[dict[str, Any]] = (await http.get("/_mock/collections")).raise_for_status().json()
    came = [(row["reference"], row) for row in transfers] + [(row["end_to_end_id"], row) for row in debits]
    return [BookPayment(reference, row["amount"], "bank") for reference, row in came if row["booked_at"]]
