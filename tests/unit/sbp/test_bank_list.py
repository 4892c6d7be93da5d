"""The list of banks: one fetch for many, an old list rather than none, no refusal for good without a fresh look."""

import asyncio

import pytest

from adapters.runtime import errors
from adapters.sbp.banks import BankList
from adapters.sbp.models import Bank
from tests.support.waiting import PATIENCE_S

TBANK = Bank(alias="TBANK", member_id="100000000004")
NEW = Bank(alias="NEW", member_id="100000000999")


class Provider:
    """Answers the list, or fails; its clock goes by hand."""

    def __init__(self) -> None:
        self.listed: list[Bank] | Exception = [TBANK]
        self.asked = 0
        self.now_s = 1_000.0
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self) -> list[Bank]:
        self.asked += 1
        await self.open.wait()
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed

    def list(self) -> BankList:
        return BankList(self.fetch, fresh_s=100, retry_s=10, clock_s=lambda: self.now_s)


async def test_many_that_come_at_once_wait_for_one_fetch() -> None:
    provider = Provider()
    banks = provider.list()
    found = await asyncio.gather(*(banks.find(name) for name in ["TBANK", "100000000004"] * 20))
    assert (set(found), provider.asked) == ({TBANK}, 1)


async def test_without_a_list_nothing_is_sent_and_it_is_not_asked_for_too_often() -> None:
    provider = Provider()
    provider.listed = errors.Indeterminate("down")
    banks = provider.list()
    for _ in range(3):
        with pytest.raises(errors.NotSent) as caught:
            await banks.find("TBANK")
        assert caught.value.reason == "bank_list_missing"
    assert (provider.asked, banks.age_s) == (1, None)
    provider.now_s, provider.listed = provider.now_s + 10, [TBANK]
    assert await banks.find("TBANK") == TBANK


@pytest.mark.parametrize("failing", [errors.Indeterminate("down"), RuntimeError("a bug"), []])
async def test_an_old_list_serves_with_its_age_while_a_new_one_is_not_to_be_had(
    failing: list[Bank] | Exception,
) -> None:
    provider = Provider()
    banks = provider.list()
    await banks.find("TBANK")
    provider.now_s, provider.listed = provider.now_s + 5_000, failing
    for _ in range(3):
        assert await banks.find("TBANK") == TBANK
        await asyncio.sleep(0)
    assert (banks.age_s, provider.asked) == (5_000, 2)


async def test_a_payment_does_not_wait_for_the_refresh_of_a_list_that_has_its_bank() -> None:
    provider = Provider()
    banks = provider.list()
    await banks.find("TBANK")
    provider.now_s += 100
    provider.open.clear()
    async with asyncio.timeout(PATIENCE_S):
        assert await banks.find("TBANK") == TBANK
    await banks.close()


async def test_a_bank_that_is_missing_is_looked_for_anew_before_it_is_refused() -> None:
    provider = Provider()
    banks = provider.list()
    await banks.find("TBANK")
    provider.now_s, provider.listed = provider.now_s + 10, [TBANK, NEW]
    assert await banks.find("NEW") == NEW


async def test_a_bank_is_not_refused_while_a_fresher_list_is_on_its_way() -> None:
    provider = Provider()
    banks = provider.list()
    await banks.find("TBANK")
    provider.now_s, provider.listed = provider.now_s + 100, [TBANK, NEW]
    provider.open.clear()
    await banks.find("TBANK")  # starts the refresh, and does not wait for it
    waiting = asyncio.create_task(banks.find("NEW"))
    await asyncio.sleep(0)
    provider.open.set()
    assert (await waiting, provider.asked) == (NEW, 2)


async def test_a_bank_that_no_list_has_is_refused_and_not_asked_for_each_time() -> None:
    provider = Provider()
    banks = provider.list()
    await banks.find("TBANK")
    provider.now_s += 10
    for _ in range(5):
        with pytest.raises(errors.Rejected) as caught:
            await banks.find("999999999999")
        assert caught.value.code == "payee_bank_unknown"
    assert provider.asked == 2
