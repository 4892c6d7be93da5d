"""Any sequence of batches, time-outs and repeats leaves the engine where a plain-Python reference ledger is."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from core.domain.ledger import AccountChange, Transfer, TransferFlags
from fleet.stack.provision import RoleUrls
from tests.support.ledger_engines import PostgresUnderTest
from tests.support.ledger_world import EURO, LedgerWorld, fresh_id, open_world
from tests.support.reference_ledger import Balances, ReferenceLedger

ROUTES = (
    ("bank", "wallet"),
    ("bank", "purse"),
    ("wallet", "purse"),
    ("purse", "wallet"),
    ("wallet", "clearing"),
    ("purse", "clearing"),
    ("debtor", "bank"),
    ("clearing", "debtor"),
    ("wallet", "shut"),
    ("shut", "bank"),
    ("bank", "euros"),
)
TWISTS: tuple[dict[str, Any], ...] = (
    {"amount_minor": 0},
    {"amount_minor": 2**63 - 1},
    {"code": 8},
    {"code": 0},
    {"ledger": EURO},
    {"ledger": 0},
    # Differs from every other time-out, and outlives each sequence: time ends a hold by `let_holds_expire` alone.
    {"timeout_s": 7200},
    {"timeout_s": 0},
    {"flags": TransferFlags.PENDING | TransferFlags.VOID_PENDING},
    {"flags": TransferFlags.POST_PENDING, "pending_id": None},
    {"user_data": uuid4()},
    {"debit_account_id": fresh_id()},
    {"credit_account_id": fresh_id()},
)
CHANGES = (AccountChange.FREEZE, AccountChange.UNFREEZE, AccountChange.UNFREEZE, AccountChange.CLOSE)
STEPS = st.tuples(
    st.sampled_from(["move", "move", "hold", "hold", "post", "post", "void", "again", "twisted", "again_twisted"]),
    st.sampled_from(ROUTES),
    st.integers(1, 30),
    st.integers(0, 40),
    st.sampled_from(TWISTS),
    st.booleans() | st.just(False),
    st.booleans(),
)


class LedgerMachine(RuleBasedStateMachine):
    """Interprets drawn steps against what happened so far; `urls`, `joins` and `loop` are set by the test."""

    urls: RoleUrls
    joins: bool
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.stack = AsyncExitStack()
        self.asked: list[Transfer] = []
        self.run(self._open())

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    async def _open(self) -> None:
        opening = PostgresUnderTest.opened(uuid4(), self.urls, joins=self.joins, connections=1)
        self.ledger = await self.stack.enter_async_context(opening)
        self.world = await open_world(self.ledger)
        self.reference = ReferenceLedger({account.id: account for account in self.world.accounts()})
        funding = [self.world.move(self.world.bank, wallet, 60) for wallet in (self.world.wallet, self.world.purse)]
        assert list(await self.ledger.apply(funding)) == self.reference.apply(funding)
        self.asked += funding

    @rule(steps=st.lists(STEPS, min_size=1, max_size=9))
    def apply_a_batch(self, steps: list[tuple[Any, ...]]) -> None:
        batch: list[Transfer] = []
        for step in steps:
            transfer = self._transfer(*step)
            batch.append(transfer)
            self.asked.append(transfer)
        assert list(self.run(self.ledger.apply(batch))) == self.reference.apply(batch)

    @rule(picks=st.sets(st.integers(0, 40), min_size=1, max_size=4))
    def let_holds_expire(self, picks: set[int]) -> None:
        holds = [t.id for t in self.reference.accepted.values() if t.flags & 2 and t.timeout_s]
        chosen = {holds[pick % len(holds)] for pick in picks} if holds else set()
        self.run(self.ledger.let_expire(chosen))
        assert self.run(self.ledger.expire(1000)) == len(self.reference.expire(chosen))

    @rule(name=st.sampled_from(("wallet", "purse", "debtor")), change=st.sampled_from(CHANGES))
    def change_an_account(self, name: str, change: AccountChange) -> None:
        account_id = getattr(self.world, name)
        assert self.run(self.ledger.change_account(account_id, change)) == self.reference.change(account_id, change)

    @invariant()
    def balances_are_the_same(self) -> None:
        stored = self.run(self.ledger.lookup_accounts(list(self.reference.accounts)))
        for account_id in self.reference.accounts:
            own = stored[account_id]
            assert self.reference.balances(account_id) == Balances(
                own.debits_pending_minor,
                own.debits_posted_minor,
                own.credits_pending_minor,
                own.credits_posted_minor,
            )

    def teardown(self) -> None:
        try:
            report = self.run(self.ledger.verify())
            assert report.holds, report.discrepancies
            assert report.transfers == len(self.reference.accepted)
            assert self.run(self.ledger.lookup_transfers([t.id for t in self.asked])) == self.reference.accepted
            self.run(self._compare_history(self.world))
        finally:
            self.run(self.stack.aclose())

    async def _compare_history(self, world: LedgerWorld) -> None:
        for account_id in (world.wallet, world.clearing):
            seen, cursor = [], None
            while True:
                page = await self.ledger.account_history(account_id, cursor, 3)
                seen += [(entry.transfer.id, entry.delta_minor, entry.balance_minor) for entry in page.entries]
                cursor = page.next_cursor
                if cursor is None:
                    break
            balance, wanted = 0, []
            for transfer_id, delta in reversed(self.reference.history(account_id)):
                balance += delta
                wanted.append((transfer_id, delta, balance))
            assert seen == wanted[::-1]

    def _transfer(
        self, kind: str, route: tuple[str, str], amount: int, pick: int, twist: dict[str, Any], link: bool, timed: bool
    ) -> Transfer:
        debit, credit = (getattr(self.world, name) for name in route)
        holds = [t for t in self.asked if t.flags & TransferFlags.PENDING]
        if kind in ("again", "again_twisted") and self.asked:
            known = self.asked[pick % len(self.asked)]
            return known if kind == "again" else replace(known, **twist)
        if kind in ("post", "void") and holds:
            hold = holds[pick % len(holds)]
            part = hold.amount_minor if pick % 2 else amount
            made = self.world.post(hold, part) if kind == "post" else self.world.void(hold, part)
        elif kind == "hold":
            made = self.world.hold(debit, credit, amount, timeout_s=3600 if timed else None)
        elif kind == "twisted":
            made = replace(self.world.move(debit, credit, amount), **twist)
        else:
            made = self.world.move(debit, credit, amount)
        if pick % 3 == 0:
            # An id that sorts elsewhere than its place in the batch.
            made = replace(made, id=UUID(int=made.id.int ^ (pick + 1 << 70)))
        return replace(made, flags=made.flags | TransferFlags.LINKED) if link else made


def test_the_engine_and_the_reference_never_differ(
    request: pytest.FixtureRequest, ledger_urls: RoleUrls, joins: bool
) -> None:
    loop = asyncio.new_event_loop()
    machine = type("Machine", (LedgerMachine,), {"urls": ledger_urls, "joins": joins, "loop": loop})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=request.config.getoption("--examples") or 20,
                stateful_step_count=12,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )
    finally:
        loop.close()
