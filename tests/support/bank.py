"""mock-bank, a bank that nobody here wrote, as a process of its own, with an account of ours at it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from unittest.mock import patch
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx

from adapters.bank import sender
from adapters.bank.settings import BankSettings
from adapters.runtime.core_client import CoreUnavailableError
from fleet.stack.processes import free_port
from schemas.announced_returns import AnnouncedReturn, AnnouncedReturns
from schemas.collections import ProviderPayment, ProviderPaymentAnswers, ProviderPaymentBatch
from schemas.rails import EvidenceItem
from schemas.results import Result

OWN_ACCOUNT = "TH69MOCK1234567890"
TIMEZONE = "Asia/Bangkok"
CLOCK = "2026-11-23T09:00"
"""A Monday, before the cut-off."""


@dataclass(slots=True)
class Told:
    """Takes what the rail tells, and is away for as many calls as it is told to be."""

    payments: list[ProviderPayment] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    evidence: dict[UUID, EvidenceItem] = field(default_factory=dict)
    announced: list[AnnouncedReturn] = field(default_factory=list)
    away: int = 0
    takes_announcements: bool = True

    async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
        """Take facts about money."""
        if self.away:
            self.away -= 1
            raise CoreUnavailableError("away")
        self.payments += batch.facts
        return ProviderPaymentAnswers(fates=[])

    async def tell(self, result: Result) -> None:
        """Take a verdict."""
        self.results.append(result)

    async def keep_evidence(self, item: EvidenceItem) -> UUID | None:
        """Take what shows a verdict."""
        self.evidence[item.id] = item
        return item.id

    async def announce(self, told: AnnouncedReturns) -> None:
        """Take announcements."""
        if not self.takes_announcements:
            raise CoreUnavailableError("away")
        self.announced += told.items


@dataclass(frozen=True, slots=True)
class RunningBank:
    """A bank that answers."""

    url: str

    def ask(self, method: str, path: str, **json: Any) -> Any:
        """Use the bank's control plane."""
        answer = httpx.request(method, f"{self.url}{path}", json=json or None, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def behave(self, behaviour: str, account: str = "FLEET", **parameters: Any) -> None:
        """Give an account one of the bank's behaviours."""
        self.ask("PATCH", f"/_mock/accounts/{account}", behaviour=behaviour, parameters=parameters)

    def script(self, fault: str, **rule: Any) -> None:
        """Give one of the behaviours to the payments that a rule is about."""
        self.ask("POST", "/_mock/faults", fault=fault, **rule)

    def advance(self, days: int) -> None:
        """Let the bank's clock run."""
        self.ask("POST", f"/_mock/advance?days={days}")

    def close_on(self, *days: str) -> None:
        """Make days holidays of the bank's, and no others."""
        httpx.put(f"{self.url}/_mock/holidays", json=days, timeout=10).raise_for_status()

    def reset(self) -> None:
        """Make it a new bank, with our account and two that cannot be paid."""
        self.ask("POST", "/_mock/reset")
        self.ask("DELETE", "/_mock/faults")
        accounts = "/_mock/accounts"
        own = {"name": "psp-fleet", "currency": "THB", "balance": 10**11, "account_number": "1234567890"}
        self.ask("POST", accounts, id="FLEET", iban=OWN_ACCOUNT, **own)

    def booked(self, reference: str) -> list[int]:
        """Return the amounts that the bank's own book shows as paid under a reference."""
        answer = httpx.get(f"{self.url}/_mock/payments/{reference}?all", timeout=10)
        rows = answer.json() if answer.is_success else []
        return [row["amount"] for row in rows if row["booked_at"]]

    def received(self) -> int:
        """Return how many files were handed in."""
        requests = self.ask("GET", "/_mock/requests?path=/payments")
        return len(requests)

    def settings(self, **others: Any) -> BankSettings:
        """Return the rail's settings for this bank."""
        given = {"base_url": self.url, "account": OWN_ACCOUNT, "settlement_s": 60, "watch_every_s": 0.05}
        return BankSettings.model_validate({**given, **others})


def clock_at(moment: str) -> type[datetime]:
    """Return a clock that stands at a moment of the bank's day."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(TIMEZONE)).astimezone(tz)

    return Clock


@contextmanager
def running_bank(*options: str, clock: str = CLOCK) -> Iterator[RunningBank]:
    """Run a bank whose Monday it is, or another moment; the files that this process makes meanwhile are made then, too.

    By the real clock they would soon ask for a day that the bank's clock never comes to.
    """
    port = free_port()
    argv = [sys.executable, "-m", "fleet.stack.scripted_bank", "--port", str(port), "-q", "--timezone", TIMEZONE]
    process = subprocess.Popen([*argv, "--clock", clock, *options])
    try:
        bank = RunningBank(f"http://127.0.0.1:{port}")
        for _ in range(400):
            try:
                bank.reset()
                break
            except httpx.TransportError:
                time.sleep(0.05)
        with patch.object(sender, "datetime", clock_at(clock)):
            yield bank
    finally:
        process.terminate()
        process.wait(10)
