"""Paid after it lapsed: a code of SBP, a virtual reference at the bank. A person decides about the money."""

import asyncio
from pathlib import Path
from uuid import UUID

import httpx

from adapters.bank.adapter import BankRail
from adapters.bank.client import BankClient
from adapters.runtime.callbacks import CallbackReceiver, CallbackSettings
from adapters.runtime.http import provider_client
from adapters.testkit.files import FilesInMemory
from core.domain.ids import derive_id
from core.domain.operations import AccountCode, system_account
from fleet.stack.processes import free_port
from schemas.api import IntentRequest, WalletRequest
from schemas.operations import JobKind
from schemas.rails import Timing
from tests.integration.permits.conftest import World
from tests.support import qp
from tests.support.bank import running_bank
from tests.support.rails_at_work import AtWork, DirectCore
from tests.support.waiting import PATIENCE_S

ASKED_MINOR = 2_000


async def asked(world: World, at_work: AtWork, operation: str, currency: str) -> tuple[UUID, UUID, str]:
    """Ask for money in and let the adapter show what to pay; return wallet, intent and the provider's reference."""
    await at_work.begin(operation, currency=currency)
    view, _ = await world.core.wallets.create(world.caller, WalletRequest(owner="anna", currency=currency))
    body = {"operation": operation, "wallet_id": view.id, "amount_minor": ASKED_MINOR, "currency": currency}
    intent = (await world.core.accept.accept(world.caller, "lapses", IntentRequest.model_validate(body))).intent.id
    job = derive_id(intent, "job", JobKind.COLLECT)
    await at_work.work(job)
    return view.id, intent, str((await world.job(job))["reference"])


async def rests(world: World, wallet: UUID, intent: UUID, currency: str) -> None:
    """The wallet has nothing of it, the intent stays as it ended, and suspense has all, once, on the work list."""
    assert (await world.state(intent), await world.money(wallet)) == (("EXPIRED", "payment_not_received"), (0, 0))
    account = system_account(world.caller.tenant_id, currency, AccountCode.SUSPENSE).id
    assert (await world.balance(account)).posted_minor == ASKED_MINOR
    told = await world.admin.fetch("SELECT kind, state, reason FROM fleet.provider_payments")
    assert [tuple(row) for row in told] == [("PAYMENT", "SUSPENDED", "late_payment")]
    assert await world.alerts() == [("ticket", "suspense_late_payment")]
    await world.prove()


async def test_a_lapsed_code_of_sbp_that_is_paid_after_all_credits_nobody_and_rests_in_suspense(
    world: World, tmp_path: Path
) -> None:
    port = free_port()
    options = ("--callback-url", f"http://127.0.0.1:{port}/callbacks", "--callback-delay-s", "0")
    with qp.running_qp(tmp_path / "qp.sqlite", *options) as provider:
        rail = qp.rail_at(provider.url, qr_lives_s=8)  # a permit is given only where a call ends before
        core = DirectCore(world, "sbp")
        at_work = AtWork(core, rail)
        receiver = CallbackReceiver(rail, core, CallbackSettings("sbp"))
        await receiver.start("127.0.0.1", port)
        wallet, intent, reference = await asked(world, at_work, "TOPUP", "RUB")
        async with asyncio.timeout(PATIENCE_S):
            while (await world.state(intent))[0] != "EXPIRED":
                await asyncio.sleep(0.2)
                await at_work.poll()
        async with httpx.AsyncClient(base_url=provider.url) as payer:
            assert (await payer.post(f"/_control/orders/{reference}/pay", json={})).is_success
        async with asyncio.timeout(PATIENCE_S):
            while not await world.admin.fetchval("SELECT count(*) FROM fleet.provider_payments"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await rests(world, wallet, intent, "RUB")
        await receiver.stop()
        await rail.close()


async def test_a_lapsed_virtual_reference_that_is_paid_after_all_credits_nobody_and_rests_in_suspense(
    world: World,
) -> None:
    with running_bank() as bank:
        http = provider_client(bank.url, call_total_s=2, connect_s=1, max_connections=5)
        timing = Timing(send_by_s=1, call_total_s=2, claim_idle_s=4)
        rail = BankRail(BankClient(http), FilesInMemory(), bank.settings(), timing)
        core = DirectCore(world, "bank")
        at_work = AtWork(core, rail)
        wallet, intent, reference = await asked(world, at_work, "DEPOSIT", "THB")
        await world.pass_time(10 * 86_400)
        await at_work.poll()
        assert (await world.state(intent))[0] == "EXPIRED"
        payer = {"name": "Anong P.", "iban": "NL14MOCK0000000002"}
        bank.ask("POST", "/_mock/credits", account="FLEET", amount=ASKED_MINOR, debtor=payer, reference=reference)
        for _ in range(2):
            await rail.mailbox.read()
            await rail._watcher.tell(core)
            bank.advance(1)  # the day's statement shows it again
        await rests(world, wallet, intent, "THB")
        await rail.close()
