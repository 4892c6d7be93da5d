"""Any order of payments in, returns, decisions and refunds ends with the provider's book, whatever is told first."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from core.domain.operations import AccountCode
from core.services.money_in.provider_payments import tell_again
from core.services.money_in.suspense import list_items
from fleet.stack.provision import RoleUrls
from schemas.suspense import SuspenseDetail, SuspenseItem, SuspenseState
from tests.integration.permits.conftest import World, open_world
from tests.integration.permits.test_collections import opened, reference, shown, suspense, told
from tests.integration.permits.test_suspense import answer_refund, assign, decider, give_back

ASKED = 200
PICKS = st.integers(0, 1000)
SOURCES = st.sampled_from(["CALLBACK", "POLL", "STATEMENT", "REGISTER", "RUMOUR"])


@dataclass(eq=False)
class Transaction:
    """What the provider's book says of one payment in; minor units."""

    name: str
    reference: str
    amount: int
    returned: int = 0
    refunded: int = 0
    was_told: bool = False
    """For sure: by what credits. Then nobody tells it again by himself."""
    return_was_told: bool = False

    @property
    def lost(self) -> int:
        """What left more than once: somebody owes it."""
        return max(0, self.returned + self.refunded - self.amount)


class MoneyIn(RuleBasedStateMachine):
    """Draws what a provider books and tells, and what people decide; `world`, `loop`, `wallet` are set by the test."""

    world: World
    loop: asyncio.AbstractEventLoop
    wallet: UUID
    numbers: Any = count()

    def __init__(self) -> None:
        super().__init__()
        self.run_name = f"M{next(self.numbers)}-"
        self.book: list[Transaction] = []
        self.intents: list[tuple[UUID, str]] = []
        self.refunds: list[SuspenseDetail] = []
        self.before = self._run(self._balances())

    def _run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def _balances(self) -> tuple[int, int, int]:
        owed = -await suspense(self.world, AccountCode.RECEIVABLE)
        return (await self.world.money(self.wallet))[0], await suspense(self.world), owed

    @rule()
    def collect(self) -> None:
        intent = self._run(shown(self.world, self.wallet, ASKED))
        self.intents.append((intent, self._run(reference(self.world, intent))))

    @rule(whose=PICKS, amount=st.sampled_from([ASKED, ASKED, 1, ASKED + 1]), source=SOURCES, silent=st.booleans())
    def pay(self, whose: int, amount: int, source: str, silent: bool) -> None:
        names = ["", "NOBODYS", *(ref for _, ref in self.intents), *(ref for _, ref in self.intents)]
        paid = Transaction(f"{self.run_name}{len(self.book)}", names[whose % len(names)], amount)
        self.book.append(paid)
        if not silent:
            self._tell(paid, source)

    def _tell(self, paid: Transaction, source: str) -> None:
        rumour = source == "RUMOUR"
        fact = {"transaction_id": paid.name, "also_known_as": [f"{paid.name}-bank"], "amount_minor": paid.amount}
        fact |= {"reference": paid.reference, "source": "CALLBACK" if rumour else source, "confirmed": not rumour}
        self._run(told(self.world, fact))
        paid.was_told |= source in ("CALLBACK", "POLL")

    @precondition(lambda self: self.book)
    @rule(which=PICKS, source=SOURCES)
    def tell(self, which: int, source: str) -> None:
        self._tell(self.book[which % len(self.book)], source)

    @precondition(lambda self: self.book)
    @rule(which=PICKS, part=st.booleans(), silent=st.booleans())
    def take_back(self, which: int, part: bool, silent: bool) -> None:
        paid = self.book[which % len(self.book)]
        if not paid.returned:
            paid.returned = max(1, paid.amount // 2) if part else paid.amount
        if not silent:
            self._tell_return(paid)

    def _tell_return(self, paid: Transaction) -> None:
        fact = {"transaction_id": paid.name, "kind": "RETURN", "source": "STATEMENT", "amount_minor": paid.returned}
        self._run(told(self.world, fact))
        paid.return_was_told = True

    @precondition(lambda self: self.intents)
    @rule(which=PICKS, verdict=st.sampled_from(["EXPIRED", "CANCELLED"]))
    def end(self, which: int, verdict: str) -> None:
        intent, _ = self.intents[which % len(self.intents)]
        self._run(self.world.check_now())
        self._run(self.world.resolve())
        asked = "SELECT id FROM fleet.jobs WHERE intent_id = $1 AND kind = 'inquire' AND closed_at IS NULL LIMIT 1"
        if question := self._run(self.world.admin.fetchval(asked, intent)):
            self._run(self.world.tell(question, verdict, kind="inquire", fence=0, basis="REFERENCE_STATUS"))

    @rule(which=PICKS)
    def give_to_the_wallet(self, which: int) -> None:
        if items := self._items():
            self._run(assign(self.world, items[which % len(items)].id, self.wallet))

    @rule(which=PICKS)
    def pay_back(self, which: int) -> None:
        if items := self._items():
            self.refunds.append(self._run(give_back(self.world, items[which % len(items)].id)))

    @precondition(lambda self: self.refunds)
    @rule(which=PICKS, paid=st.booleans())
    def answer(self, which: int, paid: bool) -> None:
        self._answer(self.refunds.pop(which % len(self.refunds)), paid=paid)

    def _answer(self, item: SuspenseDetail, *, paid: bool) -> None:
        money: dict[str, Any] = {
            "amount_minor": item.amount_minor,
            "currency": "THB",
            "provider_tx_id": f"R{item.id.hex}",
        }
        told_so = ("SUCCEEDED", money) if paid else ("DECLINED", {"reason": "payment_not_found"})
        self._run(answer_refund(self.world, item, told_so[0], **told_so[1]))
        if paid:
            next(each for each in self.book if each.name == item.transaction_id).refunded += item.amount_minor

    @rule()
    def judge_anew(self) -> None:
        self._run(tell_again(self.world.core.worker_ports, self.world.uow, 100))

    def _items(self) -> list[SuspenseItem]:
        page = list_items(
            self.world.core.ports, decider(self.world), state=SuspenseState.OPEN, intent_id=None, cursor=None, limit=500
        )
        return [each for each in self._run(page).items if each.transaction_id.startswith(self.run_name)]

    def teardown(self) -> None:
        """Tell what nobody was told yet, and compare: a book is the same whatever was told when."""
        while self.refunds:
            self._answer(self.refunds.pop(), paid=False)
        for paid in self.book:
            if not paid.was_told:
                self._tell(paid, "POLL")
            if paid.returned and not paid.return_was_told:
                self._tell_return(paid)
        self.judge_anew()
        after = self._run(self._balances())
        in_wallet, resting, owed = (now - then for now, then in zip(after, self.before, strict=True))
        assert resting == sum(each.amount_minor for each in self._items())
        assert owed == sum(each.lost for each in self.book)
        assert in_wallet + resting - owed == sum(each.amount - each.returned - each.refunded for each in self.book)
        dropped = "SELECT count(*) FROM fleet.provider_payments WHERE state = 'NOTED' AND transaction_id LIKE $1 || '%'"
        assert self._run(self.world.admin.fetchval(dropped, self.run_name)) == 0
        kept = "SELECT count(*) FROM fleet.provider_payments WHERE kind = 'PAYMENT' AND transaction_id LIKE $1 || '%'"
        assert self._run(self.world.admin.fetchval(kept, self.run_name)) == len(self.book)


async def _opened(stack: AsyncExitStack, urls: RoleUrls) -> tuple[World, UUID]:
    admin = await asyncpg.connect(urls.admin)
    stack.push_async_callback(admin.close)
    world = await stack.enter_async_context(open_world(urls, admin))
    return world, await opened(world)


def test_whatever_is_told_in_whatever_order_the_books_are_the_providers(
    fresh_database: RoleUrls, request: pytest.FixtureRequest
) -> None:
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()
    try:
        world, wallet = loop.run_until_complete(_opened(stack, fresh_database))
        run_state_machine_as_test(
            type("Machine", (MoneyIn,), {"world": world, "loop": loop, "wallet": wallet}),
            settings=settings(
                max_examples=request.config.getoption("--examples") or 4,
                stateful_step_count=18,
                deadline=None,
                # A shorter run is not worth the minutes that a real database takes to find it.
                phases=[Phase.explicit, Phase.reuse, Phase.generate],
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )
        loop.run_until_complete(world.prove())
    finally:
        loop.run_until_complete(stack.aclose())
        loop.close()
