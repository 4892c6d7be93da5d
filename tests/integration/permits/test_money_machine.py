"""Any sequence of payments, refunds, reviews, returns, exchanges and freezes leaves everything where plain sums are."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from core.domain.ledger import AccountChange
from core.services.cancel import cancel
from core.services.exposure import allow_overdraft
from core.services.keys import WALLET_STATES_SCOPE
from core.services.problems import Refusal
from core.services.quotes import make_quote
from core.services.rates import record_rates, set_pair
from core.services.reviews import expire_reviews
from core.services.set_limits import set_limit
from core.services.wallet_states import change_wallet
from fleet.stack.provision import RoleUrls
from schemas.api import IntentRequest, WalletRequest
from schemas.exchange import PairRequest, QuoteRequest, QuoteView, RateRequest
from schemas.limits import LimitRequest
from tests.integration.permits.conftest import World, open_world, pay_job
from tests.integration.permits.test_fees import put
from tests.integration.permits.test_reviews import decide

FUNDS, LIMIT, WALLETS = 300, 400, 3
ON_TRANSFER, ON_PAYOUT = 3, 5
"""Fees on top, which go back with a refund."""
ENDS = ("SUCCEEDED", "DECLINED", "RETURNED", "LATE")
_SUSPENSE = "SELECT coalesce(sum(debits_posted - credits_posted), 0)::bigint FROM fleet.accounts WHERE code = 4"
AMOUNTS, PICKS = st.integers(1, 150), st.integers(0, 1000)


@dataclass
class Wallet:
    """What a wallet must have, and what it must have at its limit; minor units."""

    id: UUID
    posted: int = FUNDS
    held: int = 0
    used: int = 0
    claimed: int = 0
    frozen: bool = False

    def refusal(self, debit: int, counted: int = 0) -> str | None:
        """Return why nothing more can be taken; None where it can. `counted` is what its limit counts."""
        if counted and self.claimed + self.used + counted > LIMIT:
            return "limit_exceeded"
        if self.frozen:
            return "account_frozen"
        return "insufficient_funds" if self.posted - self.held < debit else None


@dataclass(eq=False)
class Paid:
    """A transfer between two wallets, or the refund of one."""

    id: UUID
    payer: Wallet
    payee: Wallet
    request: IntentRequest
    key: str
    state: str
    original: "Paid | None" = None
    back: int = 0
    """The fees that a refund brings."""
    refunds: "list[Paid]" = field(default_factory=list)

    @property
    def amount(self) -> int:
        return self.request.amount_minor

    @property
    def received(self) -> int:
        """What the payee gets: a tenth, half up, is taken out of a transfer and kept."""
        return self.amount + self.back if self.original else self.amount - (self.amount + 5) // 10

    @property
    def debit(self) -> int:
        return self.amount if self.original else self.amount + ON_TRANSFER

    def standing(self) -> "list[Paid]":
        """The refunds that count."""
        return [each for each in self.refunds if each.state in ("REVIEW", "SETTLED")]


class Payments(RuleBasedStateMachine):
    """Draws steps against the real service; `world` and `loop` are set by the test, the wallets are each run's own."""

    world: World
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.wallets = [Wallet(self._run(self.world.wallet(FUNDS))) for _ in range(WALLETS)]
        owned = WalletRequest(owner="anna", currency="USD")
        self.dollars = self._run(self.world.core.wallets.create(self.world.caller, owned))[0].id
        self.bought = 0
        self.transfers: list[Paid] = []
        self.waiting: list[Paid] = []
        self.sent: list[tuple[UUID, Wallet, int]] = []
        """Payouts that the provider has not answered."""
        self.suspense: int = self._run(self.world.admin.fetchval(_SUSPENSE))

    def _run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def _ask(self, **asked: Any) -> tuple[Any, IntentRequest, str]:
        request, key = IntentRequest.model_validate(asked | {"currency": "THB"}), f"m-{next(self.world.numbers)}"
        return self._run(self.world.core.accept.accept(self.world.caller, key, request)), request, key

    @rule(payer=PICKS, payee=PICKS, amount=AMOUNTS, review=st.booleans())
    def transfer(self, payer: int, payee: int, amount: int, review: bool) -> None:
        source = self.wallets[payer % WALLETS]
        target = self.wallets[(payer + 1 + payee % (WALLETS - 1)) % WALLETS]
        accepted, request, key = self._ask(
            operation="INTERNAL_P2P", wallet_id=source.id, counterparty_wallet_id=target.id, amount_minor=amount,
            requires_monitoring=review,
        )  # fmt: skip
        self._placed(Paid(accepted.intent.id, source, target, request, key, ""), accepted.intent, review)

    def _placed(self, paid: Paid, intent: Any, review: bool) -> None:
        """Judge by the sums what must have become of a payment, and count it."""
        payer = paid.payer
        code = payer.refusal(paid.debit, 0 if paid.original else paid.amount)
        paid.state = "FAILED" if code else "REVIEW"
        if code is None:
            payer.held += paid.debit
            payer.claimed += 0 if paid.original else paid.amount
            (self.transfers if paid.original is None else paid.original.refunds).append(paid)
            if review:
                self.waiting.append(paid)
            else:
                self._settled(paid)
        assert (intent.state, intent.failure_code) == (paid.state, code)

    def _settled(self, paid: Paid) -> None:
        paid.state = "SETTLED"
        paid.payer.held -= paid.debit
        paid.payer.posted -= paid.debit
        paid.payee.posted += paid.received
        if paid.original is None:
            paid.payer.claimed -= paid.amount
            paid.payer.used += paid.amount
        else:
            paid.payee.used -= paid.amount

    def _ended(self, paid: Paid, state: str) -> None:
        paid.state = state
        paid.payer.held -= paid.debit
        paid.payer.claimed -= 0 if paid.original else paid.amount

    @rule(pick=PICKS, amount=AMOUNTS, aim=st.sampled_from(["part", "rest", "one too much"]), review=st.booleans())
    def refund(self, pick: int, amount: int, aim: str, review: bool) -> None:
        if not self.transfers:
            return
        original = self.transfers[pick % len(self.transfers)]
        if aim != "part":
            left = original.received - sum(each.amount for each in original.standing())
            amount = max(1, left + (aim == "one too much"))
        asked = {
            "operation": "REFUND", "original_intent_id": original.id, "wallet_id": original.payee.id,
            "amount_minor": amount, "requires_monitoring": review,
        }  # fmt: skip
        standing = original.standing()
        before = sum(each.amount for each in standing)
        if original.state != "SETTLED" or before + amount > original.received:
            with pytest.raises(Refusal) as caught:
                self._ask(**asked)
            settled = original.state == "SETTLED"
            assert caught.value.code == ("refund_exceeds_original" if settled else "original_not_settled")
            return
        earned = ON_TRANSFER * (before + amount) // original.received
        back = max(0, earned - sum(each.back for each in standing))
        accepted, request, key = self._ask(**asked)
        refund = Paid(accepted.intent.id, original.payee, original.payer, request, key, "", original, back)
        self._placed(refund, accepted.intent, review)

    @rule(pick=PICKS, how=st.sampled_from(["APPROVE", "APPROVE", "REJECT", "cancel", "expire"]))
    def end_a_wait(self, pick: int, how: str) -> None:
        if not self.waiting:
            return
        paid = self.waiting[pick % len(self.waiting)]
        if how == "APPROVE" and paid.payer.frozen:
            with pytest.raises(Refusal) as caught:
                self._run(decide(self.world, paid.id, how))
            assert caught.value.code == "account_frozen"
            return
        self.waiting.remove(paid)
        if how == "APPROVE":
            assert self._run(decide(self.world, paid.id, how)).state == "SETTLED"
            self._settled(paid)
        elif how == "REJECT":
            assert self._run(decide(self.world, paid.id, how)).state == "FAILED"
            self._ended(paid, "FAILED")
        elif how == "cancel":
            assert self._run(cancel(self.world.core.ports, self.world.caller, paid.id)).state == "CANCELLED"
            self._ended(paid, "CANCELLED")
        else:
            text = "UPDATE fleet.intents SET review_until = now() WHERE id = $1"
            self._run(self.world.admin.execute(text, paid.id))
            assert self._run(expire_reviews(self.world.core.worker_ports, self.world.uow, 10)) == 1
            self._ended(paid, "EXPIRED")

    @rule(pick=PICKS, amount=AMOUNTS, end=st.sampled_from([*ENDS, "OPEN", "OPEN"]), part=PICKS)
    def payout(self, pick: int, amount: int, end: str, part: int) -> None:
        wallet = self.wallets[pick % WALLETS]
        intent = self._run(self.world.pay(wallet.id, amount))
        state = self._run(self.world.state(intent))
        if code := wallet.refusal(amount + ON_PAYOUT, amount):
            assert state == ("FAILED", code)
            return
        self._run(self.world.sent(intent))
        wallet.held += amount + ON_PAYOUT
        wallet.claimed += amount
        self.sent.append((intent, wallet, amount))
        if end != "OPEN":
            self._answered(len(self.sent) - 1, end, part)

    @rule(pick=PICKS, end=st.sampled_from(ENDS), part=PICKS)
    def answer(self, pick: int, end: str, part: int) -> None:
        if self.sent:
            self._answered(pick % len(self.sent), end, part)

    def _answered(self, place: int, end: str, part: int) -> None:
        """Let the provider answer twice: the second time changes nothing. LATE is a refusal that was paid after all."""
        intent, wallet, amount = self.sent.pop(place)
        back = 1 + part % amount if end == "RETURNED" else amount
        paid = {"amount_minor": back, "currency": "THB", "provider_tx_id": "T"}
        for verdict in {"LATE": ("DECLINED", "SUCCEEDED")}.get(end, (end,)):
            for _ in range(2):
                self._run(self.world.tell(pay_job(intent), verdict, **({} if verdict == "DECLINED" else paid)))
        wallet.held -= amount + ON_PAYOUT
        wallet.claimed -= amount
        ended = "FAILED" if end in ("DECLINED", "LATE") else "SETTLED"
        assert self._run(self.world.state(intent))[0] == ended
        if end == "LATE":
            self.suspense += amount
        if ended == "FAILED":
            return
        wallet.posted -= amount + ON_PAYOUT
        wallet.used += amount
        if end == "RETURNED":
            wallet.posted += back + ON_PAYOUT * back // amount
            wallet.used -= back

    @rule(pick=PICKS, amount=AMOUNTS, debit=st.booleans())
    def adjust(self, pick: int, amount: int, debit: bool) -> None:
        wallet = self.wallets[pick % WALLETS]
        accepted, _, _ = self._ask(
            operation="MANUAL_ADJUSTMENT", wallet_id=wallet.id, amount_minor=amount,
            direction="DEBIT" if debit else "CREDIT",
        )  # fmt: skip
        code = wallet.refusal(amount) if debit else None
        assert (accepted.intent.state, accepted.intent.failure_code) == ("FAILED" if code else "SETTLED", code)
        if code is None:
            wallet.posted += -amount if debit else amount

    @rule(pick=PICKS, amount=AMOUNTS)
    def exchange(self, pick: int, amount: int) -> None:
        wallet = self.wallets[pick % WALLETS]
        # A dollar is three baht, and the house keeps a hundredth of what is bought and every fraction.
        bought = amount * 99 // 300
        asked = QuoteRequest(
            wallet_id=wallet.id, counterparty_wallet_id=self.dollars, from_currency="THB", to_currency="USD",
            amount_minor=amount,
        )  # fmt: skip
        if bought == 0:
            with pytest.raises(Refusal) as caught:
                self._run(self._quote(asked))
            assert caught.value.code == "exchange_amount_out_of_bounds"
            return
        use = {
            "operation": "EXCHANGE", "wallet_id": wallet.id, "counterparty_wallet_id": self.dollars,
            "amount_minor": amount, "quote_id": self._run(self._quote(asked)).id,
        }  # fmt: skip
        accepted, _, _ = self._ask(**use)
        code = wallet.refusal(amount, amount)
        assert (accepted.intent.state, accepted.intent.failure_code) == ("FAILED" if code else "SETTLED", code)
        if code is None:
            wallet.posted -= amount
            wallet.used += amount
            self.bought += bought
        with pytest.raises(Refusal) as caught:
            self._ask(**use)
        assert caught.value.code == "quote_used"

    async def _quote(self, asked: QuoteRequest) -> QuoteView:
        ports, caller = self.world.core.ports, self.world.caller
        async with ports.unit_of_work(caller.context()) as uow:
            return await make_quote(uow, ports, caller, asked)

    @rule(pick=PICKS)
    def freeze_or_unfreeze(self, pick: int) -> None:
        wallet = self.wallets[pick % WALLETS]
        wallet.frozen = not wallet.frozen
        change = AccountChange.FREEZE if wallet.frozen else AccountChange.UNFREEZE
        caller = replace(self.world.caller, operations=frozenset({WALLET_STATES_SCOPE}))
        self._run(change_wallet(self.world.core.ports, caller, wallet.id, change, "drawn"))

    @rule(pick=PICKS)
    def repeat(self, pick: int) -> None:
        known = [each for paid in self.transfers for each in (paid, *paid.refunds)]
        if known:
            paid = known[pick % len(known)]
            again = self._run(self.world.core.accept.accept(self.world.caller, paid.key, paid.request))
            assert (again.replayed, again.intent.id) == (True, paid.id)

    @invariant()
    def money_and_limits_are_where_the_sums_are(self) -> None:
        usage = "SELECT held_minor, used_minor FROM fleet.limit_usage WHERE subject = $1"
        for wallet in self.wallets:
            assert self._run(self.world.money(wallet.id)) == (wallet.posted, wallet.held)
            row = self._run(self.world.admin.fetchrow(usage, str(wallet.id))) or (0, 0)
            assert tuple(row) == (wallet.claimed, wallet.used)
        assert self._run(self.world.money(self.dollars)) == (self.bought, 0)

    @invariant()
    def ledgers_balance_holds_are_pending_and_what_failed_is_unpaid_or_in_suspense(self) -> None:
        self._run(self.world.prove())  # I1, I6
        assert self._run(self.world.admin.fetchval(_SUSPENSE)) == self.suspense  # I3


async def _proven(world: World) -> None:
    await world.prove()
    async with world.uow() as uow:
        assert await world.core.worker_ports.limit_store.verify(uow) == []


async def _opened(stack: AsyncExitStack, urls: RoleUrls) -> World:
    admin = await asyncpg.connect(urls.admin)
    stack.push_async_callback(admin.close)
    world = await stack.enter_async_context(open_world(urls, admin))
    world.caller = replace(world.caller, operations=world.caller.operations | {"ADJUSTMENT_DEBIT"})
    await world.register()
    fee = {"kind": "RATE", "fixed_minor": ON_TRANSFER}
    await put(world, operation="INTERNAL_P2P", fee=fee, on_refund="RETURNED")
    tenth = {"kind": "RATE", "basis_points": 1000}
    await put(world, operation="INTERNAL_P2P", name="tenth", phase="POST", fee=tenth)
    await put(world, name="out", fee={"kind": "RATE", "fixed_minor": ON_PAYOUT}, on_refund="RETURNED")
    body = {"name": "monthly", "kind": "MONTH", "currency": "THB", "max_amount_minor": LIMIT, "refund_gives_back": True}
    async with world.uow() as uow:
        request = LimitRequest.model_validate(body)
        await set_limit(uow, world.core.worker_ports.limit_store, world.caller.tenant_id, "test", request)
        await offer_dollars(uow, world)
    return world


async def offer_dollars(uow: Any, world: World) -> None:
    """Exchange dollars for three baht, out of liquidity that may be overdrawn."""
    ports, tenant = world.core.worker_ports, world.caller.tenant_id
    terms = PairRequest(base="USD", counter="THB", spread_basis_points=100, rate_max_age_s=86_400)
    await set_pair(uow, ports.exchange_rates, tenant, "test", terms)
    rate = RateRequest(base="USD", counter="THB", rate="3", source="test")
    await record_rates(uow, ports.exchange_rates, tenant, "test", [rate])
    await allow_overdraft(uow, ports.liquidity, ports.ledger, tenant, "USD", True)


def test_wallets_and_limits_are_where_plain_sums_are(fresh_database: RoleUrls, request: pytest.FixtureRequest) -> None:
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    try:
        world = loop.run_until_complete(_opened(stack, fresh_database))
        run_state_machine_as_test(
            type("Machine", (Payments,), {"world": world, "loop": loop}),
            settings=settings(
                max_examples=request.config.getoption("--examples") or 8,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )
        # Once, for all runs together: a run that failed would make the proof of each later one fail too.
        loop.run_until_complete(_proven(world))
    finally:
        loop.run_until_complete(stack.aclose())
        loop.close()
