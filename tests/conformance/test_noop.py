"""The noop rail passes the suite; its script wraps the rail, since its book is its own memory."""

import asyncio
from collections.abc import Sequence

import pytest

from adapters.noop.adapter import NoopRail, NoopSettings
from adapters.runtime.errors import ProtocolViolation
from adapters.runtime.port import Order, Outcome
from adapters.testkit.conformance import RailConformance
from schemas.permits import LookupBinding, Payee
from schemas.rails import Timing


class ScriptedNoop(NoopRail):
    """Loses answers and answers nonsense where it is told to."""

    def __init__(self) -> None:
        super().__init__(Timing(send_by_s=0.5, call_total_s=1, claim_idle_s=4), NoopSettings())
        self.lost: set[str] = set()
        self.garbled: set[str] = set()

    async def pay_many(self, orders: Sequence[Order]) -> list[Outcome | Exception]:
        answers: list[Outcome | Exception] = [*await super().pay_many(orders)]
        for at, order in enumerate(orders):
            if order.reference in self.lost:
                await asyncio.sleep(30)
            if order.reference in self.garbled:
                answers[at] = ProtocolViolation("status outside the contract")
        return answers


class NoopHarness:
    """The noop rail and its book."""

    book_ends_with_its_process = True

    def __init__(self) -> None:
        self.scripted = ScriptedNoop()
        self.rail = self.scripted
        self.payee = Payee(type="any", value="0812345678")
        self.currency = "THB"
        self.secrets = ["0812345678"]

    async def prepare(self, amount_minor: int) -> LookupBinding | None:
        return None

    async def pays_but_never_answers(self, reference: str) -> None:
        self.scripted.lost.add(reference)

    async def answers_an_unknown_status(self, reference: str) -> None:
        self.scripted.garbled.add(reference)

    async def paid(self, reference: str) -> list[int]:
        found = self.scripted._book.get(reference)
        return [found.amount_minor] if found is not None and found.amount_minor is not None else []


class TestNoop(RailConformance):
    @pytest.fixture
    def harness(self) -> NoopHarness:
        return NoopHarness()
