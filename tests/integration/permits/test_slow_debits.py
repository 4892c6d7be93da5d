"""Slow debit, on each rail that can have it: the provider takes the payment now and pays, or is paid, later.

The money is held from the start, so that a slow provider finds it there; and nothing is credited before it came.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from adapters.bank.adapter import BankRail
from adapters.bank.client import BankClient
from adapters.runtime.http import provider_client
from adapters.testkit.files import FilesInMemory
from core.domain.ids import derive_id
from core.services.payments.keep_mandates import register_mandate
from schemas.api import IntentRequest, WalletRequest
from schemas.mandates import MandateRequest
from schemas.operations import JobKind
from schemas.rails import Timing
from tests.integration.permits.conftest import World, lookup_job, pay_job
from tests.support import ipps, qp
from tests.support.bank import RunningBank, running_bank
from tests.support.rails_at_work import AtWork, DirectCore
from tests.support.waiting import PATIENCE_S

MONEY_MINOR, ASKED_MINOR = 10_000, 6_000


@dataclass(slots=True)
class Slow:
    """A wallet, and a rail whose provider is slow about one payee."""

    world: World
    at_work: AtWork
    currency: str
    payee: dict[str, str]
    looks_up: bool
    go_on: Callable[[], None]
    """Lets the provider's time pass, where it does not pass by itself."""
    url: str
    wallet: UUID = field(init=False)

    async def open(self, *operations: str, amount_minor: int) -> None:
        await self.at_work.begin(*operations, currency=self.currency)
        view, _ = await self.world.core.wallets.create(
            self.world.caller, WalletRequest(owner="anna", currency=self.currency)
        )
        self.wallet = view.id
        if amount_minor:
            await self.ask("MANUAL_ADJUSTMENT", amount_minor)

    async def ask(self, operation: str, amount_minor: int, **more: Any) -> UUID:
        body = {"operation": operation, "wallet_id": self.wallet, "amount_minor": amount_minor}
        request = IntentRequest.model_validate(body | {"currency": self.currency} | more)
        return (await self.world.core.accept.accept(self.world.caller, str(uuid4()), request)).intent.id

    async def pay_out(self) -> UUID:
        more = {"auto_confirm": {"max_fee_minor": 10_000}} if self.looks_up else {}
        intent = await self.ask("PAYOUT", ASKED_MINOR, payee=self.payee, **more)
        if self.looks_up:
            await self.at_work.work(lookup_job(intent))
        await self.at_work.work(pay_job(intent))
        return intent

    async def until_settled(self, intent: UUID) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (await self.world.state(intent))[0] != "SETTLED":
                await self.at_work.poll()
                await asyncio.sleep(0.1)


@pytest.fixture
async def slow(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> AsyncIterator[Slow]:
    with ExitStack() as servers:
        made = {"promptpay": _promptpay, "sbp": _sbp, "bank": _bank}[request.param](world, servers, tmp_path)
        yield made
        await made.at_work.adapter.close()


def _promptpay(world: World, servers: ExitStack, home: Path) -> Slow:
    url = servers.enter_context(ipps.running_ipps(home / "ipps.sqlite")).url
    at_work = AtWork(DirectCore(world, "promptpay"), ipps.rail_at(url, call_total_s=3))
    return Slow(world, at_work, "THB", {"type": "mobile", "value": "0899990007"}, True, lambda: None, url)


def _sbp(world: World, servers: ExitStack, home: Path) -> Slow:
    url = servers.enter_context(qp.running_qp(home / "qp.sqlite")).url
    payee = {"type": "phone_bank", "value": f"79990000007@{qp.BANK}"}
    return Slow(world, AtWork(DirectCore(world, "sbp"), qp.rail_at(url)), "RUB", payee, True, lambda: None, url)


def _bank(world: World, servers: ExitStack, home: Path) -> Slow:
    bank: RunningBank = servers.enter_context(running_bank())
    bank.ask("POST", "/_mock/advance?to=2026-11-28")  # a Saturday: what is accepted is booked on Monday
    http = provider_client(bank.url, call_total_s=2, connect_s=1, max_connections=5)
    timing = Timing(send_by_s=1, call_total_s=2, claim_idle_s=4)
    rail = BankRail(BankClient(http), FilesInMemory(), bank.settings(), timing)
    payee = {"type": "bank_account", "value": "004-0123456789"}
    at_work = AtWork(DirectCore(world, "bank"), rail)
    return Slow(world, at_work, "THB", payee, False, lambda: bank.advance(3), bank.url)


@pytest.mark.parametrize("slow", ["promptpay", "sbp", "bank"], indirect=True)
async def test_slow_debit_of_a_payout_finds_its_money_held_and_takes_it_once(slow: Slow) -> None:
    await slow.open("PAYOUT", amount_minor=MONEY_MINOR)
    intent = await slow.pay_out()
    # Taken and not yet paid: what is held can be spent by nothing else.
    assert (await slow.world.job(pay_job(intent)))["outcome"] == "pending"
    assert (await slow.world.state(intent))[0] in ("AUTHORIZED", "DISPATCHED")
    assert await slow.world.money(slow.wallet) == (MONEY_MINOR, ASKED_MINOR)
    assert (await slow.world.balance(slow.wallet)).available_minor == MONEY_MINOR - ASKED_MINOR
    slow.go_on()
    await slow.until_settled(intent)
    for _ in range(2):
        await slow.at_work.poll()
    assert await slow.world.money(slow.wallet) == (MONEY_MINOR - ASKED_MINOR, 0)
    assert await slow.world.alerts() == []
    await slow.world.prove()


@pytest.mark.parametrize("slow", ["sbp"], indirect=True)
async def test_slow_debit_of_a_payer_credits_a_top_up_when_it_is_done_and_not_before(slow: Slow) -> None:
    await slow.open("TOPUP", amount_minor=0)
    intent = await slow.ask("TOPUP", ASKED_MINOR)
    await slow.at_work.work(collect_job(intent))
    reference = (await slow.world.job(collect_job(intent)))["reference"]
    async with httpx.AsyncClient(base_url=slow.url) as payer:
        for status in ("IN_PROGRESS", "SUCCESS"):
            assert (await slow.world.money(slow.wallet), (await slow.world.state(intent))[0] == "SETTLED") == (
                (0, 0),
                False,
            )
            told = {"transaction_id": "T1", "status": status}
            assert (await payer.post(f"/_control/orders/{reference}/pay", json=told)).is_success
            await slow.at_work.poll()
    assert (await slow.world.state(intent), await slow.world.money(slow.wallet)) == (
        ("SETTLED", None),
        (ASKED_MINOR, 0),
    )


@pytest.mark.parametrize("slow", ["bank"], indirect=True)
async def test_slow_debit_under_a_mandate_credits_when_the_account_shows_it_and_not_before(slow: Slow) -> None:
    await slow.open("DIRECT_DEBIT", amount_minor=0)
    signed = {"mandate_id": "M-1", "wallet_id": slow.wallet, "signed_on": date(2026, 1, 5)}
    debtor = {"debtor_account": "004-0123456789", "debtor_name": "Somchai Jaidee"}
    await register_mandate(slow.world.core.ports, slow.world.caller, MandateRequest.model_validate(signed | debtor))
    intent = await slow.ask("DIRECT_DEBIT", ASKED_MINOR, payee={"type": "mandate", "value": "M-1"})
    await slow.at_work.work(collect_job(intent))
    for _ in range(2):
        await slow.at_work.poll()
        assert (await slow.world.state(intent))[0] in ("AUTHORIZED", "DISPATCHED")
        assert await slow.world.money(slow.wallet) == (0, 0)
    slow.go_on()
    await slow.until_settled(intent)
    assert await slow.world.money(slow.wallet) == (ASKED_MINOR, 0)
    await slow.world.prove()


def collect_job(intent: UUID) -> UUID:
    return derive_id(intent, "job", JobKind.COLLECT)
