"""The SBP rail passes the suite over real sockets, in one stage and in two, against the simulator's own book."""

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest

from adapters.runtime.port import Callback, Order, Rail
from adapters.sbp import signing
from adapters.sbp.adapter import SbpRail
from adapters.sbp.client import read_json
from adapters.sbp.simulator.book import read_refunds
from adapters.testkit.conformance import RailConformance
from schemas.operations import OperationType
from schemas.permits import LookupBinding, Payee
from tests.support.qp import BANK, PHONE, SECRET, RunningQp, rail_at, running_qp


class SbpHarness:
    """The rail over its own connections, and a provider that is a process of its own."""

    def __init__(self, running: RunningQp, *, two_stage: bool) -> None:
        self.rail: Rail = rail_at(running.url, two_stage=two_stage)
        self.payee = Payee(type="phone_bank", value=f"{PHONE}@{BANK}")
        self.currency = "RUB"
        self.secrets = [SECRET, PHONE]
        self._running, self._two_stage = running, two_stage

    def environment(self) -> Mapping[str, str]:
        return {"SBP_BASE_URL": self._running.url, "SBP_SECRET": SECRET, "SBP_TWO_STAGE": str(self._two_stage)}

    async def received(self, amount_minor: int) -> str:
        reference = await self._issued(amount_minor)
        async with httpx.AsyncClient(base_url=self._running.url) as control:
            told = await control.post(f"/_control/orders/{reference}/pay", json={"times": 0})
        return str(told.json()["transactionId"])

    async def refund_is_paid_but_never_answered(self, reference: str) -> None:
        await self._running.script("timeout_after", reference=reference)

    async def refunded(self, reference: str) -> list[int]:
        return [each.amount_minor for each in read_refunds(self._running.book) if each.reference == reference]

    async def callback(self) -> Callback:
        """Have an order paid; sign what QP says about it, as QP does."""
        reference = await self._issued(2_500)
        async with httpx.AsyncClient(base_url=self._running.url) as control:
            body = (await control.post(f"/_control/orders/{reference}/pay", json={})).content
        signature = signing.sign(SECRET, signing.payment_text(read_json(body)))
        return Callback(body, {signing.SIGNATURE_HEADER.lower(): signature}, "/")

    async def _issued(self, amount_minor: int) -> str:
        asked = Order(
            uuid4(), uuid4().hex[:20].upper(), amount_minor, self.currency, "qp-1", operation=OperationType.TOPUP,
            expires_at=datetime.now(UTC) + timedelta(minutes=5),
        )  # fmt: skip
        assert isinstance(self.rail, SbpRail)
        await self.rail.collect(asked)
        return asked.reference

    async def prepare(self, amount_minor: int) -> LookupBinding | None:
        asked = Order(uuid4(), uuid4().hex[:20].upper(), amount_minor, self.currency, "qp-1", self.payee)
        assert isinstance(self.rail, SbpRail)
        return (await self.rail.lookup(asked)).lookup

    async def pays_but_never_answers(self, reference: str) -> None:
        await self._running.script("timeout_after", reference=reference)

    async def answers_an_unknown_status(self, reference: str) -> None:
        await self._running.script("unknown_status_after", reference=reference)

    async def paid(self, reference: str) -> list[int]:
        return [entry.amount_minor for entry in self._running.executed(reference)]


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningQp]:
    with running_qp(tmp_path_factory.mktemp("qp") / "book.sqlite") as running:
        yield running


class TestSbp(RailConformance):
    @pytest.fixture
    async def harness(self, simulator: RunningQp) -> AsyncIterator[SbpHarness]:
        harness = SbpHarness(simulator, two_stage=False)
        yield harness
        await harness.rail.close()


class TestSbpInTwoStages(RailConformance):
    @pytest.fixture
    async def harness(self, simulator: RunningQp) -> AsyncIterator[SbpHarness]:
        harness = SbpHarness(simulator, two_stage=True)
        yield harness
        await harness.rail.close()
