"""Any sequence of payments, refunds, reviews, returns, exchanges and closings leaves all where plain sums are."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, event, settings, target
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from core.domain.ledger import AccountChange
from core.services.access.keys import WALLET_STATES_SCOPE, Caller
from core.services.money_in.suspense import assign_item, return_item, show_item
from core.services.payments.cancel import cancel
from core.services.payments.reviews import expire_reviews
from core.services.problems import Refusal
from core.services.wallets.wallet_states import change_wallet
from fleet.stack.provision import RoleUrls
from schemas.api import IntentRequest
from schemas.suspense import AssignRequest, ReturnRequest
from tests.integration.permits.collected_steps import CollectedSteps
from tests.integration.permits.conftest import World, pay_job
from tests.integration.permits.exchange_steps import ExchangeSteps
from tests.integration.permits.money_terms import open_terms
from tests.integration.permits.money_walk import walk
from tests.integration.permits.plain_sums import (
    ENDS,
    FUNDS,
    ON_PAYOUT,
    ON_TRANSFER,
    REACHED,
    WALLETS,
    Paid,
    Wallet,
)
from tests.integration.permits.test_reviews import decide
from tests.integration.permits.test_suspense import answer_refund, by_two, decider, parked

_SUSPENSE = "SELECT coalesce(sum(debits_posted - credits_posted), 0)::bigint FROM fleet.accounts WHERE code = 4"
AMOUNTS, PICKS = st.integers(1, 150), st.integers(0, 1000)
OFTEN_NOT = st.sampled_from([False, False, False, True])


class Payments(CollectedSteps, ExchangeSteps):
    """Draws steps against the real service; `world` and `loop` are set by the test, the wallets are each run's own."""

    world: World
    loop: asyncio.AbstractEventLoop
    reached: Counter[str]
    """What all runs came to."""

    def __init__(self) -> None:
        super().__init__()
        self.wallets = [self._opened() for _ in range(WALLETS)]
        self.closed: list[Wallet] = []
        self.transfers: list[Paid] = []
        self.waiting: list[Paid] = []
        self.sent: list[tuple[UUID, Wallet, int]] = []
        """Payouts that the provider has not answered."""
        self.adjusted: list[tuple[UUID, Wallet, int, bool]] = []
        """Adjustments that wait for a second key."""
        self.decided: list[tuple[UUID, Wallet | None, int]] = []
        """Items of suspense and for which wallet they wait for a second key; None goes back to who paid it."""
        self.seen: set[str] = set()
        self.suspense: int = self._run(self.world.admin.fetchval(_SUSPENSE))

    def _run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def _opened(self) -> Wallet:
        return Wallet(self._run(self.world.wallet(FUNDS)))

    def _wallet(self, pick: int) -> Wallet:
        """Draw one of the wallets, of which the one that was closed last is one."""
        drawn = self.wallets + self.closed[-1:]
        return drawn[pick % len(drawn)]

    def _ask(self, by: Caller | None = None, **asked: Any) -> tuple[Any, IntentRequest, str]:
        request, key = IntentRequest.model_validate({"currency": "THB"} | asked), f"m-{next(self.world.numbers)}"
        return self._run(self.world.core.accept.accept(by or self.world.caller, key, request)), request, key

    def _reach(self, what: str) -> None:
        self.seen.add(what)
        self.reached[what] += 1

    def teardown(self) -> None:
        for what in sorted(self.seen):
            event(what)
        target(float(len(self.seen)), label="what one run came to")

    @rule(payer=PICKS, payee=PICKS, amount=AMOUNTS, review=OFTEN_NOT)
    def transfer(self, payer: int, payee: int, amount: int, review: bool) -> None:
        source = self._wallet(payer)
        others = [each for each in self.wallets + self.closed[-1:] if each is not source]
        target = others[payee % len(others)]
        accepted, request, key = self._ask(
            operation="INTERNAL_P2P", wallet_id=source.id, counterparty_wallet_id=target.id, amount_minor=amount,
            requires_monitoring=review,
        )  # fmt: skip
        self._placed(Paid(accepted.intent.id, source, target, request, key, ""), accepted.intent, review)

    def _placed(self, paid: Paid, intent: Any, review: bool) -> None:
        """Judge by the sums what must have become of a payment, and count it."""
        payer = paid.payer
        code = payer.refusal(paid.debit, 0 if paid.original else paid.amount, paid.payee)
        named = "refund" if paid.original else "transfer"
        self._reach(code or f"{named} {'held' if review else 'settled'}")
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

    @rule(pick=PICKS, amount=AMOUNTS, aim=st.sampled_from(["part", "rest", "one too much"]), review=OFTEN_NOT)
    def refund(self, pick: int, amount: int, aim: str, review: bool) -> None:
        if not self.transfers:
            return
        original = self.transfers[pick % len(self.transfers)]
        if aim != "part":
            left = original.received - sum(each.amount for each in original.standing())
            amount = max(1, left + (aim == "one too much"))
        asked: dict[str, Any] = {
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
        if standing:
            self._reach("refund of a part after another")
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
        self._reach({"APPROVE": "approved", "REJECT": "rejected", "cancel": "cancelled"}.get(how, "expired"))
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
        wallet = self._wallet(pick)
        intent = self._run(self.world.pay(wallet.id, amount))
        state = self._run(self.world.state(intent))
        if code := wallet.refusal(amount + ON_PAYOUT, amount):
            assert state == ("FAILED", code)
            self._reach(code)
            return
        self._run(self.world.sent(intent))
        wallet.held += amount + ON_PAYOUT
        wallet.claimed += amount
        self.sent.append((intent, wallet, amount))
        if end == "OPEN":
            self._reach("payout held")
        else:
            self._answered(len(self.sent) - 1, end, part)

    @rule(pick=PICKS, end=st.sampled_from(ENDS), part=PICKS)
    def answer(self, pick: int, end: str, part: int) -> None:
        if self.sent:
            self._answered(pick % len(self.sent), end, part)

    def _answered(self, place: int, end: str, part: int) -> None:
        """Let the provider answer twice: the second time changes nothing. LATE is a refusal that was paid after all."""
        intent, wallet, amount = self.sent.pop(place)
        back = 1 + part % amount if end == "RETURNED" else amount
        paid = {"amount_minor": back, "currency": "THB", "provider_tx_id": f"P{next(self.transactions)}"}
        for verdict in {"LATE": ("DECLINED", "SUCCEEDED")}.get(end, (end,)):
            for _ in range(2):
                self._run(self.world.tell(pay_job(intent), verdict, **({} if verdict == "DECLINED" else paid)))
        self._reach(f"payout {end}")
        if end == "RETURNED" and back < amount:
            self._reach("returned in part")
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

    @rule(pick=PICKS, amount=AMOUNTS, debit=st.booleans(), alone=st.booleans())
    def adjust(self, pick: int, amount: int, debit: bool, alone: bool) -> None:
        wallet = self._wallet(pick)
        accepted, _, _ = self._ask(
            None if alone else by_two(self.world.caller), operation="MANUAL_ADJUSTMENT", wallet_id=wallet.id,
            amount_minor=amount, direction="DEBIT" if debit else "CREDIT",
        )  # fmt: skip
        code = wallet.refusal(amount) if debit else "account_closed" if wallet.closed else None
        state = "FAILED" if code else "SETTLED" if alone else "REVIEW"
        assert (accepted.intent.state, accepted.intent.failure_code) == (state, code)
        if code is not None:
            self._reach(code)
        elif alone:
            self._adjusted(wallet, amount, debit)
        else:
            wallet.held += amount if debit else 0
            self.adjusted.append((accepted.intent.id, wallet, amount, debit))
            self._reach("by hand held")

    def _adjusted(self, wallet: Wallet, amount: int, debit: bool) -> None:
        wallet.posted += -amount if debit else amount
        self._reach("debit by hand" if debit else "credit by hand")

    @rule(pick=PICKS, agree=st.booleans())
    def decide_an_adjustment(self, pick: int, agree: bool) -> None:
        if not self.adjusted:
            return
        intent, wallet, amount, debit = self.adjusted[pick % len(self.adjusted)]
        if agree and debit and wallet.frozen:
            with pytest.raises(Refusal) as caught:
                self._run(decide(self.world, intent, "APPROVE"))
            assert caught.value.code == "account_frozen"
            return
        self.adjusted.pop(pick % len(self.adjusted))
        wallet.held -= amount if debit else 0
        ended = self._run(decide(self.world, intent, "APPROVE" if agree else "REJECT"))
        assert ended.state == ("SETTLED" if agree else "FAILED")
        if agree:
            self._adjusted(wallet, amount, debit)

    @rule(pick=PICKS, amount=AMOUNTS, alone=st.booleans(), back=st.booleans())
    def park(self, pick: int, amount: int, alone: bool, back: bool) -> None:
        """Let money that nobody knows come in, and decide about it."""
        item = self._run(parked(self.world, amount))
        self.suspense -= amount
        wallet = None if back else self._wallet(pick)
        if alone:
            if wallet is None:
                self._pay_back(item, amount)
            else:
                self._give(item, wallet, amount)
            return
        if wallet is None:
            ports, desk = self.world.core.ports, by_two(decider(self.world))
            self._run(return_item(ports, desk, item, ReturnRequest(reason="drawn")))
        elif not self._assigned(by_two(decider(self.world)), item, wallet, amount):
            return
        else:
            wallet.claimed += amount
        self.decided.append((item, wallet, amount))
        self._reach("suspense held")

    def _assigned(self, desk: Caller, item: UUID, wallet: Wallet, amount: int) -> bool:
        """Assign an item; what its wallet may not have is paid back, and False returned."""
        code = "limit_exceeded" if wallet.fills_its_limit(amount) else "account_closed" if wallet.closed else None
        work = assign_item(self.world.core.ports, desk, item, AssignRequest(wallet_id=wallet.id, reason="drawn"))
        if code is None:
            self._run(work)
            return True
        with pytest.raises(Refusal) as caught:
            self._run(work)
        assert caught.value.code == code
        self._reach("rests for want of a limit" if code == "limit_exceeded" else "rests, the wallet closed")
        self._pay_back(item, amount)
        return False

    def _give(self, item: UUID, wallet: Wallet, amount: int) -> None:
        if self._assigned(decider(self.world), item, wallet, amount):
            self._given(wallet, amount)

    def _given(self, wallet: Wallet, amount: int) -> None:
        wallet.posted += amount
        wallet.used += amount
        self.suspense += amount
        self._reach("given out of suspense")

    def _pay_back(self, item: UUID, amount: int) -> None:
        self._run(return_item(self.world.core.ports, decider(self.world), item, ReturnRequest(reason="drawn")))
        self._paid_back(item, amount)

    def _paid_back(self, item: UUID, amount: int) -> None:
        waiting = self._run(show_item(self.world.core.ports, decider(self.world), item))
        paid = {"amount_minor": amount, "currency": "THB", "provider_tx_id": f"R{next(self.transactions)}"}
        self._run(answer_refund(self.world, waiting, "SUCCEEDED", **paid))
        self.suspense += amount
        self._reach("paid back out of suspense")

    @rule(pick=PICKS, agree=st.booleans())
    def decide_about_suspense(self, pick: int, agree: bool) -> None:
        if not self.decided:
            return
        item, wallet, amount = self.decided.pop(pick % len(self.decided))
        waiting = self._run(show_item(self.world.core.ports, decider(self.world), item))
        assert waiting.state == "IN_REVIEW"
        self._run(decide(self.world, waiting.taken_by, "APPROVE" if agree else "REJECT"))
        if wallet is not None:
            wallet.claimed -= amount
        if not agree:
            # It is open again: one key alone decides otherwise.
            self._give(item, self._wallet(pick), amount)
        elif wallet is not None:
            self._given(wallet, amount)
        else:
            self._paid_back(item, amount)

    @rule(pick=PICKS)
    def freeze_or_unfreeze(self, pick: int) -> None:
        wallet = self.wallets[pick % WALLETS]
        wallet.frozen = not wallet.frozen
        change = AccountChange.FREEZE if wallet.frozen else AccountChange.UNFREEZE
        caller = replace(self.world.caller, operations=frozenset({WALLET_STATES_SCOPE}))
        self._run(change_wallet(self.world.core.ports, caller, wallet.id, change, "drawn"))
        self._reach("frozen" if wallet.frozen else "unfrozen")

    @rule(pick=PICKS, emptied=st.booleans())
    def close(self, pick: int, emptied: bool) -> None:
        """Close a wallet, which only an empty one lets happen; another one takes its place."""
        wallet = self.wallets[pick % WALLETS]
        left = wallet.posted - wallet.held
        if emptied and left and not wallet.frozen:
            self.adjust(pick % WALLETS, left, True, True)
        comes = [paid.payee for paid in self.waiting] + [each for _, each, _ in self.decided]
        comes += [each for _, each, _, debit in self.adjusted if not debit]
        caller = replace(self.world.caller, operations=frozenset({WALLET_STATES_SCOPE}))
        work = change_wallet(self.world.core.ports, caller, wallet.id, AccountChange.CLOSE, "drawn")
        if wallet.posted or wallet.held or wallet in comes:
            with pytest.raises(Refusal) as caught:
                self._run(work)
            assert caught.value.code == "account_not_empty"
            return
        self._run(work)
        wallet.closed = True
        self.closed.append(wallet)
        self.wallets[pick % WALLETS] = self._opened()
        self._reach("closed")

    @rule(pick=PICKS)
    def repeat(self, pick: int) -> None:
        known = [each for paid in self.transfers for each in (paid, *paid.refunds)]
        if known:
            paid = known[pick % len(known)]
            again = self._run(self.world.core.accept.accept(self.world.caller, paid.key, paid.request))
            assert (again.replayed, again.intent.id) == (True, paid.id)
            self._reach("repeated")

    @invariant()
    def money_and_limits_are_where_the_sums_are(self) -> None:
        usage = "SELECT held_minor, used_minor FROM fleet.limit_usage WHERE subject = $1"
        for wallet in self.wallets + self.closed:
            assert self._run(self.world.money(wallet.id)) == (wallet.posted, wallet.held)
            row = self._run(self.world.admin.fetchrow(usage, str(wallet.id))) or (0, 0)
            assert tuple(row) == (wallet.claimed, wallet.used)
        self.purses_are_where_the_sums_are()

    @invariant()
    def ledgers_balance_holds_are_pending_and_what_failed_is_unpaid_or_in_suspense(self) -> None:
        self._run(self.world.prove())  # I1, I6
        assert self._run(self.world.admin.fetchval(_SUSPENSE)) == self.suspense  # I3


async def _proven(world: World) -> None:
    await world.prove()
    async with world.uow() as uow:
        assert await world.core.worker_ports.limit_store.verify(uow) == []


@pytest.fixture
def drawn(fresh_database: RoleUrls) -> Iterator[type[Payments]]:
    """The machine over a world of its own."""
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    try:
        world = loop.run_until_complete(open_terms(stack, fresh_database))
        yield type("Machine", (Payments,), {"world": world, "loop": loop, "reached": Counter()})
        # Once, for all runs together: a run that failed would make the proof of each later one fail too.
        loop.run_until_complete(_proven(world))
    finally:
        loop.run_until_complete(stack.aclose())
        loop.close()


def test_each_rule_comes_to_what_it_is_there_for(drawn: type[Payments]) -> None:
    machine = drawn()
    walk(machine)
    machine.money_and_limits_are_where_the_sums_are()
    machine.ledgers_balance_holds_are_pending_and_what_failed_is_unpaid_or_in_suspense()
    assert REACHED - machine.seen == set()


def test_wallets_and_limits_are_where_plain_sums_are(drawn: type[Payments], request: pytest.FixtureRequest) -> None:
    examples = request.config.getoption("--examples") or 8
    run_state_machine_as_test(
        drawn,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
    if examples >= 100:
        # The walk above comes to every one; draws to most, each run with some of the rules only.
        missed = REACHED - drawn.reached.keys()
        assert len(missed) <= len(REACHED) // 4, missed
