"""The core is killed between the steps of payments that need no rail: all of one happens or nothing, and it is told."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from core.bootstrap import open_core
from core.domain.context import Context
from core.services.terms.exposure import allow_overdraft
from core.services.terms.rates import record_rates, set_pair
from core.settings import Settings
from fleet.client import FleetClient
from fleet.proof import prove
from fleet.stack.stack import Stack, StackPlan, running
from schemas.api import BatchItem, IntentRequest, IntentView, ReviewDecision, ReviewRequest, WalletRequest
from schemas.exchange import PairRequest, QuoteRequest, RateRequest
from schemas.tenants import TenantRequest
from tests.support.selection import mostly_long

SCOPES = ("*", "MANUAL_ADJUSTMENT", "ADJUSTMENT_ALONE", "REVIEW")
FUNDS, AMOUNT = 10_000, 300
OPERATIONS = ["INTERNAL_P2P", "REFUND", "EXCHANGE", "MANUAL_ADJUSTMENT"]


REVIEWED = ["INTERNAL_P2P", "REFUND", "EXCHANGE", "INTERNAL_P2P"]
DECISIONS = [ReviewDecision.APPROVE] * 3 + [ReviewDecision.REJECT]


def request_of(operation: str, wallet: UUID, **more: Any) -> IntentRequest:
    """Return a request in baht."""
    asked = {"operation": operation, "wallet_id": wallet, "amount_minor": AMOUNT, "currency": "THB"}
    return IntentRequest.model_validate(asked | more)


@dataclass
class Bank:
    """A running core without rails, two keys of one tenant, and the wallets of one payment at a time."""

    stack: Stack
    client: FleetClient
    reviewer: FleetClient
    admin: asyncpg.Connection
    numbers: "count[int]" = field(default_factory=count)

    async def wallet(self, currency: str = "THB") -> UUID:
        """Open a wallet of Anna's, with money where it is in baht."""
        wallet = await self.client.create_wallet(WalletRequest(owner="anna", currency=currency))
        if currency == "THB":
            await self.ask("MANUAL_ADJUSTMENT", wallet.id, amount_minor=FUNDS)
        return wallet.id

    async def ask(self, operation: str, wallet: UUID, **more: Any) -> IntentView:
        """Ask for a payment."""
        request = request_of(operation, wallet, **more)
        return await self.client.create_intent(request, idempotency_key=f"k{next(self.numbers)}")

    async def prepared(self, operation: str) -> tuple[UUID, dict[str, Any], UUID]:
        """Make what a payment needs; return the wallet that pays, the rest of the request, and the wallet that gets."""
        wallet = await self.wallet()
        if operation == "MANUAL_ADJUSTMENT":
            return wallet, {}, wallet
        if operation == "EXCHANGE":
            dollars = await self.wallet("USD")
            quote = await self.client.create_quote(QuoteRequest(
                wallet_id=wallet, counterparty_wallet_id=dollars, from_currency="THB", to_currency="USD",
                amount_minor=AMOUNT,
            ))  # fmt: skip
            return wallet, {"counterparty_wallet_id": dollars, "quote_id": quote.id}, dollars
        other = await self.wallet()
        if operation == "REFUND":
            paid = await self.ask("INTERNAL_P2P", other, amount_minor=AMOUNT, counterparty_wallet_id=wallet)
            return wallet, {"original_intent_id": paid.id}, other
        return wallet, {"counterparty_wallet_id": other}, other

    async def posted(self, *wallets: UUID) -> list[tuple[int, int]]:
        """Return what each wallet owns and what of it is held."""
        found = [await self.client.get_wallet(wallet) for wallet in wallets]
        return [(each.posted_minor, each.held_minor) for each in found]

    async def check(self) -> None:
        """Hold the whole ledger to I1 and I6."""
        async with open_core(settings_of(self.stack)) as core:
            proof = await prove(core.worker_database, [])
        assert proof.holds, proof


def settings_of(stack: Stack) -> Settings:
    """Return the settings of a core on the stack's own database."""
    info = stack.info
    return Settings(
        DATABASE_URL=info.database_url,
        DATABASE_WORKER_URL=info.database_url,
        REDIS_URL=info.redis_url,
        master_key=info.master_key,
    )


async def offer_dollars(stack: Stack) -> tuple[Any, Any]:
    """Make a tenant with two keys that exchanges a dollar for three baht; return the keys."""
    async with open_core(settings_of(stack)) as core:
        made = await core.tenants.create("test", TenantRequest(name="bank", operations=(*SCOPES, "RATES", "LIQUIDITY")))
        other = await core.keys.create(
            Context(None, "test"), tenant_id=made.tenant.id, name="reviewer", operations=list(SCOPES)
        )
        ports = core.worker_ports
        async with core.worker_database.unit_of_work(Context(None, "test")) as uow:
            terms = PairRequest(base="USD", counter="THB", spread_basis_points=0, rate_max_age_s=86_400)
            await set_pair(uow, ports.exchange_rates, made.tenant.id, "test", terms)
            rate = RateRequest(base="USD", counter="THB", rate="3", source="test")
            await record_rates(uow, ports.exchange_rates, made.tenant.id, "test", [rate])
            await allow_overdraft(uow, ports.liquidity, ports.ledger, made.tenant.id, "USD", True)
    return made, other


@pytest.fixture(scope="module")
async def bank() -> AsyncIterator[Bank]:
    with tempfile.TemporaryDirectory(prefix="fleet-kills-") as home:
        async with running(StackPlan(Path(home), rails={}, failpoints=True)) as stack:
            made, other = await offer_dollars(stack)
            url = stack.info.public_url
            async with (
                FleetClient(url, made.key_id, made.secret, attempts=60, give_up_after_s=90) as client,
                FleetClient(url, other.id, other.secret, attempts=60, give_up_after_s=90) as reviewer,
            ):
                admin = await asyncpg.connect(stack.info.database_url)
                yield Bank(stack, client, reviewer, admin)
                await admin.close()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("step", mostly_long(["api.before_commit", "api.after_commit"], "api.after_commit"))
async def test_payments_whose_core_was_killed_happened_once_and_are_told_the_same(bank: Bank, step: str) -> None:
    prepared = [await bank.prepared(operation) for operation in OPERATIONS]
    before = [await bank.posted(payer, payee) for payer, _, payee in prepared]
    items = [
        BatchItem(idempotency_key=f"{operation}-{step}", intent=request_of(operation, payer, **more))
        for operation, (payer, more, _) in zip(OPERATIONS, prepared, strict=True)
    ]
    bank.stack.arm(step)
    # One transaction has all four: a kill within it is a kill between the steps of each.
    first = [each.intent for each in await bank.client.create_intents(items)]
    assert not (bank.stack.failpoints_dir / step).exists(), "the core was not killed: this would prove nothing"
    assert [each.state for each in first if each] == ["SETTLED"] * 4
    again = await bank.client.create_intents(items)
    assert ([each.intent for each in again], [each.replayed for each in again]) == (first, [True] * 4)
    assert [await bank.posted(payer, payee) for payer, _, payee in prepared] == moved(before)
    await bank.check()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("step", mostly_long(["review.before_commit", "review.after_commit"], "review.before_commit"))
async def test_a_decision_whose_core_was_killed_counts_once_and_is_told_the_same(bank: Bank, step: str) -> None:
    prepared = [await bank.prepared(operation) for operation in REVIEWED]
    before = [await bank.posted(payer, payee) for payer, _, payee in prepared]
    held = [
        await bank.ask(operation, payer, requires_monitoring=True, **more)
        for operation, (payer, more, _) in zip(REVIEWED, prepared, strict=True)
    ]
    assert [each.state for each in held] == ["REVIEW"] * 4
    bank.stack.arm(step)
    asked = [ReviewRequest(decision=decision, reason="seen") for decision in DECISIONS]
    decided = await asyncio.gather(*map(bank.reviewer.review_intent, (each.id for each in held), asked))
    assert not (bank.stack.failpoints_dir / step).exists(), "the core was not killed: this would prove nothing"
    assert [each.state for each in decided] == ["SETTLED", "SETTLED", "SETTLED", "FAILED"]
    for intent, request, told in zip(held, asked, decided, strict=True):
        assert await bank.reviewer.review_intent(intent.id, request) == told
        events = await bank.admin.fetch("SELECT type FROM fleet.intent_events WHERE intent_id = $1", intent.id)
        assert sum(row["type"].startswith("review_") for row in events) == 1, events
    after = [await bank.posted(payer, payee) for payer, _, payee in prepared]
    # I3: what failed moved nothing, and holds nothing.
    assert after == [*moved(before[:3]), before[3]]
    await bank.check()


def moved(before: list[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """Return what payer and payee of each operation, in their order, have once it is settled."""
    found = []
    for operation, (payer, payee) in zip(OPERATIONS, before, strict=False):
        got = AMOUNT // 3 if operation == "EXCHANGE" else AMOUNT
        paid = -AMOUNT if operation != "MANUAL_ADJUSTMENT" else AMOUNT
        found.append([(payer[0] + paid, 0), (payee[0] + got, 0)])
    return found
