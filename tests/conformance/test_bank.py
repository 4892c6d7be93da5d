"""The bank rail passes the suite over real sockets, against the own book of a bank that nobody here wrote."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from uuid import uuid4

import pytest

from adapters.bank.adapter import BankRail
from adapters.bank.client import BankClient
from adapters.runtime.errors import Indeterminate
from adapters.runtime.http import provider_client
from adapters.runtime.port import Outcome
from adapters.testkit.conformance import RailConformance
from adapters.testkit.files import FilesInMemory
from schemas.permits import LookupBinding, Payee
from schemas.rails import Timing
from tests.support.bank import OWN_ACCOUNT, RunningBank, running_bank


class UnreliableLine(BankClient):
    """Loses an answer after the bank took the file, and garbles what the bank reports, where it is told to."""

    def __init__(self, bank: RunningBank) -> None:
        super().__init__(provider_client(bank.url, call_total_s=10, connect_s=5, max_connections=5))
        self._bank = bank
        self.lost: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.garbled: set[bytes] = set()

    async def hand_in(self, file: bytes) -> None:
        if any(each in file for each in self.refused):
            await asyncio.to_thread(self._bank.behave, "reject-file")
        await super().hand_in(file)
        if self.refused:
            await asyncio.to_thread(self._bank.behave, "accept")
        lost = {each for each in self.lost if each in file}
        if lost:
            self.lost -= lost
            raise Indeterminate("the answer is lost", reason="no_answer")

    async def message(self, number: int) -> bytes | None:
        told = await super().message(number)
        if told is not None and any(each in told for each in self.garbled):
            return told.replace(b"<Cd>BOOK</Cd>", b"<Cd>SOLD</Cd>").replace(b">ACCP<", b">GOOD<")
        return told


class BankHarness:
    """The rail over its own connections, and a bank that is a process of its own."""

    def __init__(self, bank: RunningBank) -> None:
        self._line, self._bank = UnreliableLine(bank), bank
        timing = Timing(send_by_s=1, call_total_s=15, claim_idle_s=20)
        self.rail = BankRail(self._line, FilesInMemory(), bank.settings(), timing)
        self.payee = Payee(type="bank_account", value="004-0123456789")
        self.currency = "THB"
        self.secrets = ["0123456789", OWN_ACCOUNT]

    def environment(self) -> Mapping[str, str]:
        return {"BANK_BASE_URL": self._bank.url, "BANK_ACCOUNT": OWN_ACCOUNT}

    async def prepare(self, amount_minor: int) -> LookupBinding | None:
        return None

    async def pays_but_never_answers(self, reference: str) -> None:
        self._line.lost.add(reference.encode())

    async def answers_an_unknown_status(self, reference: str) -> None:
        self._line.garbled.add(reference.encode())

    async def received(self, amount_minor: int) -> str:
        note = f"payment {uuid4().hex}"
        payer = {"name": "Anong P.", "iban": "NL14MOCK0000000002"}
        pays = {"account": "FLEET", "amount": amount_minor, "debtor": payer, "note": note}
        await asyncio.to_thread(self._bank.ask, "POST", "/_mock/credits", **pays)
        await self.rail.mailbox.read()
        (name,) = [each for each, entry in self.rail.mailbox._credits.items() if note in entry.remittance]
        return name

    async def refund_is_paid_but_never_answered(self, reference: str) -> None:
        self._line.lost.add(reference.encode())

    async def refund_is_refused_but_never_answered(self, reference: str) -> None:
        self._line.lost.add(reference.encode())
        self._line.refused.add(reference.encode())

    async def refund_comes_back(self, reference: str, pay_back: Callable[[], Awaitable[Outcome]]) -> None:
        await asyncio.to_thread(self._bank.behave, "return-later", days=1, reason="AC04")
        await pay_back()
        await asyncio.to_thread(self._bank.advance, 2)
        await asyncio.to_thread(self._bank.behave, "accept")

    async def refunded(self, reference: str) -> list[int]:
        return await self.paid(reference)

    async def paid(self, reference: str) -> list[int]:
        return await asyncio.to_thread(self._bank.booked, reference)


@pytest.fixture(scope="module")
def bank() -> Iterator[RunningBank]:
    with running_bank() as running:
        yield running


class TestBank(RailConformance):
    @pytest.fixture
    async def harness(self, bank: RunningBank) -> AsyncIterator[BankHarness]:
        harness = BankHarness(bank)
        yield harness
        await harness.rail.close()
