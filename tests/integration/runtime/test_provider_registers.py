"""What each provider's register says of a day, read by its adapter over real sockets."""

from collections.abc import AsyncIterator, Iterator
from datetime import date, datetime
from uuid import uuid4
from zoneinfo import ZoneInfo

import httpx
import pytest

from adapters.bank.adapter import BankRail
from adapters.bank.client import BankClient
from adapters.runtime.http import provider_client
from adapters.runtime.port import KeepsRegisters, Order
from adapters.runtime.registers import RegisterAbsent
from adapters.sbp.adapter import SbpRail
from adapters.testkit.files import FilesInMemory
from schemas.permits import Payee
from schemas.rails import Timing
from schemas.registers import RegisterLine, RegisterStatus
from tests.support.bank import RunningBank, running_bank
from tests.support.qp import BANK, PHONE, RunningQp, rail_at, running_qp

MOSCOW = ZoneInfo("Europe/Moscow")


@pytest.fixture(scope="module")
def qp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningQp]:
    with running_qp(tmp_path_factory.mktemp("qp") / "book.sqlite", "--fee-kopecks", "525") as running:
        yield running


@pytest.fixture(scope="module")
def bank() -> Iterator[RunningBank]:
    with running_bank() as running:
        yield running


@pytest.fixture
async def qp_rail(qp: RunningQp) -> AsyncIterator[SbpRail]:
    rail = rail_at(qp.url)
    yield rail
    await rail.close()


@pytest.fixture
async def bank_rail(bank: RunningBank) -> AsyncIterator[BankRail]:
    http = provider_client(bank.url, call_total_s=2, connect_s=1, max_connections=5)
    timing = Timing(send_by_s=1, call_total_s=2, claim_idle_s=4)
    rail = BankRail(BankClient(http), FilesInMemory(), bank.settings(), timing)
    yield rail
    await rail.close()


async def lines_of(rail: KeepsRegisters, day: date) -> list[RegisterLine]:
    return [line async for page in rail.register(day) for line in page]


async def test_qp_tells_of_each_payout_once_and_as_scripted(qp: RunningQp, qp_rail: SbpRail) -> None:
    today = datetime.now(MOSCOW).date()
    asked = Order(uuid4(), uuid4().hex[:20], 12_345, "RUB", "qp-1", Payee(type="phone_bank", value=f"{PHONE}@{BANK}"))
    found = await qp_rail.lookup(asked)
    await qp_rail.pay(asked._replace(lookup=found.lookup))
    (line,) = await lines_of(qp_rail, today)
    assert (line.our_ref, line.amount_minor, line.fee_minor, line.status, line.direction) == (
        asked.reference, 12_345, 525, "SETTLED", "OUT",
    )  # fmt: skip
    async with httpx.AsyncClient(base_url=qp.url) as control:
        for change, seen in {
            "amount": [(12_352, 525, "SETTLED")], "fee": [(12_345, 532, "SETTLED")], "missing": [],
            "status": [(12_345, 525, "FAILED")], "duplicate": [(12_345, 525, "SETTLED")] * 2,
        }.items():  # fmt: skip
            body = {"change": change, "reference": asked.reference, "by_minor": 7}
            assert (await control.post("/_control/registers", json=body)).is_success
            told = [(each.amount_minor, each.fee_minor, each.status.value) for each in await lines_of(qp_rail, today)]
            assert told == seen, change
            await control.delete("/_control/registers")
        refused = await control.post("/_control/registers", json={"change": "nothing", "reference": "x"})
        assert refused.status_code == 422
    with pytest.raises(RegisterAbsent):
        await lines_of(qp_rail, date(2999, 1, 1))


async def test_a_statement_tells_what_the_bank_booked_on_a_day_and_a_day_without_entries_has_none(
    bank: RunningBank, bank_rail: BankRail
) -> None:
    payee = Payee(type="bank_account", value="004-0123456789")
    asked = Order(uuid4(), uuid4().hex[:30].upper(), 2_500, "THB", "bank-1", payee, "rent")
    await bank_rail.pay(asked)
    bank.advance(2)
    days = [date(2026, 11, 23), date(2026, 11, 24), date(2026, 11, 25)]
    told = []
    for day in days:
        try:
            told += await lines_of(bank_rail, day)
        except RegisterAbsent:
            continue
    (line,) = told
    assert (line.our_ref, line.amount_minor, line.fee_minor, line.direction) == (asked.reference, 2_500, None, "OUT")
    assert (line.status, bool(line.provider_ref)) == (RegisterStatus.SETTLED, True)
    with pytest.raises(RegisterAbsent):
        await lines_of(bank_rail, date(2026, 11, 20))
