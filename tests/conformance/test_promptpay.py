"""The PromptPay rail passes the suite over real sockets, against the simulator's own book."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import orjson
import pytest

from adapters.promptpay import signing
from adapters.promptpay.simulator.book import read_refunds
from adapters.runtime.port import Callback, Order
from adapters.testkit.conformance import RailConformance
from schemas.operations import OperationType
from schemas.permits import LookupBinding, Payee
from tests.support.ipps import SECRET, RunningIpps, rail_at, running_ipps


class PromptPayHarness:
    """The rail over its own connections, and a provider that is a process of its own."""

    def __init__(self, running: RunningIpps) -> None:
        self.rail = rail_at(running.url)
        self.payee = Payee(type="mobile", value="0812345678")
        self.currency = "THB"
        self.secrets = [SECRET, "0812345678", "0066812345678"]
        self._running = running

    def environment(self) -> Mapping[str, str]:
        return {"PROMPTPAY_BASE_URL": self._running.url, "PROMPTPAY_SECRET": SECRET}

    async def prepare(self, amount_minor: int) -> LookupBinding | None:
        asked = Order(uuid4(), uuid4().hex[:24].upper(), amount_minor, self.currency, "ipps-1", self.payee)
        return (await self.rail.lookup(asked)).lookup

    async def pays_but_never_answers(self, reference: str) -> None:
        await self._script("timeout_after", reference)

    async def answers_an_unknown_status(self, reference: str) -> None:
        await self._script("unknown_status_after", reference)

    async def paid(self, reference: str) -> list[int]:
        return [entry.amount_minor for entry in self._running.executed(reference)]

    async def received(self, amount_minor: int) -> str:
        reference = uuid4().hex[:24].upper()
        until = datetime.now(UTC) + timedelta(minutes=5)
        await self.rail.collect(
            Order(uuid4(), reference, amount_minor, self.currency, "ipps-1", operation=OperationType.TOPUP,
                  expires_at=until)
        )  # fmt: skip
        async with httpx.AsyncClient(base_url=self._running.url) as control:
            told = await control.post("/_control/pay", json={"reference": reference, "manner": "never"})
        return str(told.json()["psp_txid"])

    async def refund_is_paid_but_never_answered(self, reference: str) -> None:
        await self._script("timeout_after", reference)

    async def refunded(self, reference: str) -> list[int]:
        return [each.amount_minor for each in read_refunds(self._running.book) if each.reference == reference]

    async def callback(self) -> Callback:
        body = orjson.dumps(
            {
                "event_id": f"EV{uuid4().hex[:20]}",
                "type": "qr.paid",
                "psp_txid": f"QX{uuid4().hex[:20]}",
                "bank_ref": None,
                "client_ref": uuid4().hex[:24].upper(),
                "amount": "25.00",
                "status": "PAID",
                "occurred_at": datetime.now(UTC).isoformat(),
            }
        )
        timestamp = str(int(time.time()))
        headers = {
            signing.TIMESTAMP_HEADER.lower(): timestamp,
            signing.SIGNATURE_HEADER.lower(): signing.sign(SECRET, timestamp, body),
        }
        return Callback(body, headers, "/callbacks/ipps")

    async def _script(self, fault: str, reference: str) -> None:
        async with httpx.AsyncClient(base_url=self._running.url) as control:
            assert (await control.post("/_control/faults", json={"fault": fault, "reference": reference})).is_success


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningIpps]:
    with running_ipps(tmp_path_factory.mktemp("ipps") / "book.sqlite") as running:
        yield running


class TestPromptPay(RailConformance):
    @pytest.fixture
    async def harness(self, simulator: RunningIpps) -> AsyncIterator[PromptPayHarness]:
        harness = PromptPayHarness(simulator)
        yield harness
        await harness.rail.close()
