"""Steps of the money machine that bring money in through a rail and pay it back in parts, held against plain sums."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from core.services.money_in.suspense import list_items
from core.services.problems import Refusal
from schemas.suspense import SuspenseState
from tests.integration.permits.conftest import World
from tests.integration.permits.plain_sums import ON_TOP_UP, Wallet
from tests.integration.permits.test_collections import reference, shown, told
from tests.integration.permits.test_refunds_by_rail import answered
from tests.integration.permits.test_reviews import decide
from tests.integration.permits.test_suspense import decider

AMOUNTS, PICKS = st.integers(5, 150), st.integers(0, 1000)


@dataclass(eq=False)
class Collected:
    """What a payer outside paid in for an amount, and its refunds; minor units."""

    id: UUID
    wallet: Wallet
    amount: int
    paid: int
    name: str
    """Its provider's."""
    refunds: "list[PaidBack]" = field(default_factory=list)
    taken: int = 0
    """What its provider took back."""

    @property
    def gone(self) -> int:
        """What is refunded, or taken back, or on its way."""
        return self.taken + sum(each.amount for each in self.standing())

    def counted(self, part: int) -> int:
        """What of a part of it the limit counted: without the fee on top."""
        return part * self.amount // self.paid

    def standing(self) -> "list[PaidBack]":
        """The refunds that count."""
        return [each for each in self.refunds if each.state != "FAILED"]


@dataclass(eq=False)
class PaidBack:
    """A refund of a payment in; `back` is what of it the returned fee pays."""

    id: UUID
    original: Collected
    amount: int
    back: int
    state: str

    @property
    def debit(self) -> int:
        return self.amount - self.back


class CollectedSteps(RuleBasedStateMachine):
    """A payer is asked for a fee on top of each top-up, which goes back with its refund."""

    world: World
    transactions: Any = count()
    suspense: int

    def __init__(self) -> None:
        super().__init__()
        self.collections: list[Collected] = []
        self.paying_back: list[PaidBack] = []

    def _run(self, work: Any) -> Any:
        raise NotImplementedError

    def _ask(self, **asked: Any) -> tuple[Any, Any, str]:
        raise NotImplementedError

    def _reach(self, what: str) -> None:
        raise NotImplementedError

    def _wallet(self, pick: int) -> Wallet:
        raise NotImplementedError

    def _give(self, item: UUID, wallet: Wallet, amount: int) -> None:
        raise NotImplementedError

    @rule(
        pick=PICKS,
        amount=AMOUNTS,
        more=st.sampled_from([0, 0, 0, 1]),
        review=st.sampled_from(["", "", "APPROVE", "REJECT"]),
    )
    def top_up(self, pick: int, amount: int, more: int, review: str) -> None:
        """Let a payer be shown what to pay, and pay that, or one more than was asked for; a person may look at it."""
        wallet = self._wallet(pick)
        code = "limit_exceeded" if wallet.fills_its_limit(amount) else "account_closed" if wallet.closed else None
        if code is not None:
            accepted, _, _ = self._ask(operation="TOPUP", wallet_id=wallet.id, amount_minor=amount)
            assert (accepted.intent.state, accepted.intent.failure_code) == ("FAILED", code)
            return
        intent = self._run(shown(self.world, wallet.id, amount, requires_monitoring=bool(review)))
        paid = amount + ON_TOP_UP
        name = f"C{next(self.transactions)}"
        fact = {"transaction_id": name, "amount_minor": paid + more}
        fact["reference"] = self._run(reference(self.world, intent))
        # A frozen wallet gives nothing, and so not the fee of what it gets.
        rests = bool(more) or wallet.frozen
        assert self._run(told(self.world, fact)) == ["SUSPENDED" if rests or review else "CREDITED"]
        assert self._run(told(self.world, fact)) == ["KNOWN"]
        if review and not rests:
            ended = self._run(decide(self.world, intent, review)).state
            assert ended == ("SETTLED" if review == "APPROVE" else "FAILED")
            self._reach("top-up approved" if review == "APPROVE" else "top-up rejected")
        if rests or review == "REJECT":
            (item,) = self._run(self._items(intent))
            self.suspense -= paid + more
            self._give(item.id, wallet, paid + more)
            self._reach("top-up out of suspense")
            return
        wallet.posted += amount
        wallet.used += amount
        self.collections.append(Collected(intent, wallet, amount, paid, name))
        self._reach("top-up credited")

    async def _items(self, intent: UUID) -> Any:
        desk = decider(self.world)
        page = await list_items(
            self.world.core.ports, desk, state=SuspenseState.OPEN, intent_id=intent, cursor=None, limit=2
        )
        return page.items

    @rule(pick=PICKS, amount=AMOUNTS, aim=st.sampled_from(["part", "rest", "one too much"]), review=st.booleans())
    def pay_back(self, pick: int, amount: int, aim: str, review: bool) -> None:
        """Ask the rail to pay back what it collected, or a part of it."""
        if not self.collections:
            return
        original = self.collections[pick % len(self.collections)]
        standing, wallet = original.standing(), original.wallet
        before = original.gone
        if aim != "part":
            amount = max(1, original.paid - before + (aim == "one too much"))
        asked: dict[str, Any] = {
            "operation": "REFUND", "original_intent_id": original.id, "wallet_id": wallet.id, "amount_minor": amount,
            "requires_monitoring": review,
        }  # fmt: skip
        if before + amount > original.paid:
            with pytest.raises(Refusal) as caught:
                self._ask(**asked)
            assert caught.value.code == "refund_exceeds_original"
            return
        earned = ON_TOP_UP * (before + amount) // original.paid
        back = min(max(0, earned - sum(each.back for each in standing)), amount - 1)
        accepted, _, _ = self._ask(**asked)
        refund = PaidBack(accepted.intent.id, original, amount, back, "REVIEW" if review else "AUTHORIZED")
        code = wallet.refusal(refund.debit)
        assert (accepted.intent.state, accepted.intent.failure_code) == ("FAILED" if code else refund.state, code)
        if code is None:
            wallet.held += refund.debit
            original.refunds.append(refund)
            self.paying_back.append(refund)
            if standing:
                self._reach("a part paid back after another")

    @rule(pick=PICKS, paid=st.booleans())
    def go_on_paying_back(self, pick: int, paid: bool) -> None:
        """Decide about a refund that waits for a decision, or let the provider answer."""
        if not self.paying_back:
            return
        refund = self.paying_back[pick % len(self.paying_back)]
        wallet = refund.original.wallet
        if refund.state == "REVIEW" and paid:
            if wallet.frozen:
                with pytest.raises(Refusal) as caught:
                    self._run(decide(self.world, refund.id, "APPROVE"))
                assert caught.value.code == "account_frozen"
                return
            refund.state = self._run(decide(self.world, refund.id, "APPROVE")).state
            assert refund.state == "AUTHORIZED"
            return
        self.paying_back.remove(refund)
        wallet.held -= refund.debit
        if refund.state == "REVIEW":
            refund.state = self._run(decide(self.world, refund.id, "REJECT")).state
            assert refund.state == "FAILED"
            return
        money = {"amount_minor": refund.amount, "currency": "THB", "provider_tx_id": f"B{next(self.transactions)}"}
        verdict, more = ("SUCCEEDED", money) if paid else ("DECLINED", {})
        self._run(answered(self.world, refund.id, verdict, **more))
        refund.state = self._run(self.world.state(refund.id))[0]
        assert refund.state == ("SETTLED" if paid else "FAILED")
        self._reach("paid back" if paid else "not paid back")
        if paid:
            wallet.posted -= refund.debit
            # The month of the payment gets back what left it; a rule of fees says what of them.
            wallet.used -= refund.original.counted(refund.amount)

    @rule(pick=PICKS, part=PICKS)
    def take_back(self, pick: int, part: int) -> None:
        """Let the provider take a payment back, whole or in part, once: what the wallet has no more is receivable."""
        if not self.collections:
            return
        paid = self.collections[pick % len(self.collections)]
        wallet, amount = paid.wallet, paid.paid if part % 2 else 1 + part % paid.paid
        fact = {"transaction_id": paid.name, "kind": "RETURN", "amount_minor": paid.taken or amount}
        if paid.taken:
            assert self._run(told(self.world, fact)) == ["KNOWN"]
            return
        left = min(amount, paid.paid - paid.gone)
        assert self._run(told(self.world, fact)) == ["REVERSED"]
        has = 0 if wallet.frozen or wallet.closed else wallet.posted - wallet.held
        wallet.posted -= min(left, has)
        wallet.used -= paid.counted(left)
        # What was refunded before left twice: the second time out of suspense.
        self.suspense += amount - left
        if left > has:
            self._reach("taken back from who has it no more")
        if left < amount:
            self._reach("taken back beside a refund")
        paid.taken = amount
        self._reach("taken back" if amount == paid.paid else "taken back in part")
