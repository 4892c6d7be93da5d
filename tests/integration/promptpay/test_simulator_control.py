"""The simulator's control API: a transfer that is settled, declined, returned and told of as a script says."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from adapters.promptpay.adapter import PromptPayRail
from adapters.promptpay.client import IppsClient
from adapters.promptpay.settings import PromptPaySettings
from adapters.runtime.callbacks import CallbackRefused
from adapters.runtime.http import provider_client
from adapters.runtime.port import Callback, Order
from schemas.permits import Payee
from schemas.rails import Timing
from schemas.results import Verdict
from tests.support.ipps import SECRET, running_ipps
from tests.support.receiver import Received, Receiver, receiving
from tests.support.waiting import PATIENCE_S

SLOW = "0899990007"


@dataclass(frozen=True, slots=True)
class Desk:
    rail: PromptPayRail
    control: httpx.AsyncClient
    receiver: Receiver

    async def open_transfer(self) -> Order:
        """Make a transfer that stays PROCESSING."""
        payee = Payee(type="mobile", value=SLOW)
        asked = Order(uuid4(), uuid4().hex[:24].upper(), 1_050, "THB", "ipps-1", payee)
        asked = asked._replace(lookup=(await self.rail.lookup(asked)).lookup)
        assert (await self.rail.pay(asked)).verdict is Verdict.PENDING
        return asked

    async def force(self, asked: Order, verb: str, **how: Any) -> httpx.Response:
        return await self.control.post(f"/_control/transfers/{asked.reference}/{verb}", json=how)

    async def told(self, count: int) -> list[Received]:
        """Wait until so many callbacks came, and forget them."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.receiver.received) < count:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
        found, self.receiver.received[:] = list(self.receiver.received), []
        return found

    async def is_genuine(self, request: Received) -> bool:
        try:
            await self.rail.verify(Callback(request.body, request.headers, "/callbacks/ipps"))
        except CallbackRefused:
            return False
        return True


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with receiving() as receiver:
        options = ("--callback-url", receiver.url, "--callback-delay-s", "0.2", "--settle-after-s", "60")
        with running_ipps(tmp_path / "book.sqlite", *options) as running:
            settings = PromptPaySettings.model_validate({"base_url": running.url, "secret": SECRET})
            http = provider_client(running.url, call_total_s=3, connect_s=1, max_connections=5)
            rail = PromptPayRail(
                IppsClient(http, settings.key_id, SECRET), settings, Timing(send_by_s=1, call_total_s=3, claim_idle_s=5)
            )
            async with httpx.AsyncClient(base_url=running.url) as control:
                yield Desk(rail, control, receiver)
            await rail.close()


async def test_a_transfer_is_settled_returned_or_declined_by_a_script_and_told_of(desk: Desk) -> None:
    paid, refused = await desk.open_transfer(), await desk.open_transfer()
    assert (await desk.force(paid, "settle")).is_success
    assert (await desk.rail.inquire(paid)).verdict is Verdict.SUCCEEDED
    assert (await desk.force(paid, "decline")).json()["code"] == "wrong_status"
    assert (await desk.force(paid, "return")).is_success
    assert (await desk.rail.inquire(paid)).verdict is Verdict.RETURNED
    assert (await desk.force(refused, "decline", reason="limit_exceeded")).is_success
    declined = await desk.rail.inquire(refused)
    assert (declined.verdict, declined.reason) == (Verdict.DECLINED, "limit_exceeded")
    told = await desk.told(3)
    assert sorted(each.message["status"] for each in told) == ["FAILED", "REFUNDED", "SUCCEEDED"]
    assert all([await desk.is_genuine(each) for each in told])
    assert (await desk.force(paid, "burn")).json()["code"] == "verb_unknown"
    assert (await desk.force(paid._replace(reference="NEVER"), "settle")).status_code == 404


async def test_a_transfer_is_told_of_twice_late_forged_and_with_an_older_status(desk: Desk) -> None:
    asked = await desk.open_transfer()
    await desk.force(asked, "settle", manner="never")
    await desk.force(asked, "callback", manner="twice")
    first, second = await desk.told(2)
    assert first.body == second.body
    await desk.force(asked, "callback", manner="forged")
    (forged,) = await desk.told(1)
    assert (await desk.is_genuine(first), await desk.is_genuine(forged)) == (True, False)
    await desk.force(asked, "callback", manner="late")
    await desk.force(asked, "callback", changed={"status": "PROCESSING"})
    older, late = await desk.told(2)
    assert (older.message["status"], late.message["status"]) == ("PROCESSING", "SUCCEEDED")
