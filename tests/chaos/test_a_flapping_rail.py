"""One rail's provider comes and goes, or is slow, while payments of three rails flow: the others do not notice.

What is in doubt when it comes back is asked about soon, so that each payment ends by what the provider did.
"""

import asyncio
import os
import re
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from statistics import median

import httpx
import pytest

from fleet.demo.payments_file import PaymentLine
from fleet.demo.runner import Run
from tests.chaos.conftest import Fleet, check, running_fleet

pytestmark = [pytest.mark.chaos, pytest.mark.long]

DOWN_S, UP_S, FLAPS = 3.0, 1.5, 4
"""Down for longer than T_psp of the scaled profile, so that calls are lost; up for long enough that some succeed."""
SLOW_S = 0.9
"""Within T_psp, so that what is begun while it stands still is answered late."""
NEIGHBOURS = ("promptpay", "bank")
PER_S = {"promptpay": 2, "bank": 2, "sbp": 8}
"""Offered each second, whether or not what came before has ended; enough of SBP for its breakers to judge by."""


@asynccontextmanager
async def struck(pid: int, down_s: float, up_s: float, times: int) -> AsyncIterator[asyncio.Task[None]]:
    """Let a process stand still and go on in turns; it goes on in the end."""

    async def strike() -> None:
        for _ in range(times):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(down_s)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(up_s)

    striking = asyncio.create_task(strike())
    try:
        yield striking
        await striking
    finally:
        striking.cancel()
        os.kill(pid, signal.SIGCONT)


class Flow:
    """Payments of all rails at a fixed rate, and what became of them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.runs: dict[str, list[Run]] = defaultdict(list)
        self.usually: dict[str, float] = {}
        """The median of how many payments of a neighbour were unfinished, wherever, as each was sent."""

    async def offer(self, for_s: float) -> dict[str, float]:
        """Send PER_S of each rail for so long, waiting for none; return the median time to the end by neighbour.

        The payments of the rail that is struck are awaited too, but not timed.
        """
        make = {
            "promptpay": lambda count: self._fleet.payments(count, refused=False),
            "bank": self._fleet.bank_payments,
            "sbp": self._fleet.rouble_payments,
        }

        async def one(rail: str, lines: list[PaymentLine]) -> float:
            began = time.monotonic()
            self.runs[rail].append(await self._fleet.send(lines))
            return time.monotonic() - began

        async def each(rail: str, at_once: int) -> list[float]:
            until, paying = time.monotonic() + for_s, list[asyncio.Task[float]]()
            counts = list[int]()
            while time.monotonic() < until:
                paying.append(asyncio.create_task(one(rail, make[rail](at_once))))
                await asyncio.sleep(at_once / PER_S[rail])
                counts.append(await self._fleet.unfinished(rail))
            self.usually[rail] = median(counts)
            return await asyncio.gather(*paying)

        every = (each(rail, 1 if rail in NEIGHBOURS else PER_S[rail]) for rail in make)
        times = dict(zip(make, await asyncio.gather(*every), strict=True))
        return {rail: median(times[rail]) for rail in NEIGHBOURS}

    def whole(self, rails: Iterable[str]) -> Run:
        """Return what became of the payments of these rails, as one run."""
        runs = [run for rail in rails for run in self.runs[rail]]
        whole = Run(accepted={each for run in runs for each in run.accepted})
        for run in runs:
            whole.refused += run.refused
            whole.ends += run.ends
        return whole


@asynccontextmanager
async def watched_breakers(fleet: Fleet) -> AsyncIterator[dict[int, float]]:
    """Note when a breaker of SBP's adapter was last seen in each state: 0 closed, 1 half open, 2 open."""
    seen: dict[int, float] = {}

    async def watch() -> None:
        async with httpx.AsyncClient(timeout=2, trust_env=False) as http:
            while True:
                with suppress(httpx.TransportError):
                    told = (await http.get(fleet.stack.info.metrics["sbp-1"])).text
                    states = re.findall(r"^fleet_breaker_state\{.*\} (\S+)$", told, re.MULTILINE)
                    seen.update(dict.fromkeys((int(float(each)) for each in states), time.monotonic()))
                await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()


@pytest.fixture(scope="module")
async def three_rails() -> AsyncIterator[Fleet]:
    """One adapter of each rail."""
    async with running_fleet(rails={"promptpay": 1, "sbp": 1, "bank": 1}) as fleet:
        yield fleet


async def flow_beside(fleet: Fleet, down_s: float, up_s: float, times: int) -> None:
    """Let payments flow while SBP's provider is struck; hold them all to I1 to I7 and the neighbours to their pace."""
    flow = Flow(fleet)
    before = await flow.offer(4)
    usually = dict(flow.usually)
    pid = fleet.stack.supervisor.pids()["sbp-simulator"]
    async with struck(pid, down_s, up_s, times) as striking:
        beside = await flow.offer(times * (down_s + up_s))
        await striking
    whole = flow.whole(PER_S)
    await check(fleet, whole, len(whole.accepted))
    for rail in NEIGHBOURS:
        # Twice the time to the end may hide behind a slow machine: what piles up, wherever it waits, does not.
        assert flow.usually[rail] <= usually[rail] + PER_S[rail], (usually, flow.usually)
        assert beside[rail] <= 2 * before[rail] + 1, (before, beside)


@pytest.mark.timeout(240)
async def test_a_provider_that_comes_and_goes_hurts_no_other_rail_and_each_payment_ends_once(
    three_rails: Fleet,
) -> None:
    async with watched_breakers(three_rails) as seen:
        await flow_beside(three_rails, DOWN_S, UP_S, FLAPS)
        assert set(seen) == {0, 1, 2}, f"it opened, tried again by a few calls, and closed: {seen}"


@pytest.mark.timeout(240)
async def test_a_provider_that_answers_slowly_hurts_no_other_rail_and_each_payment_ends_once(
    three_rails: Fleet,
) -> None:
    await flow_beside(three_rails, SLOW_S, 0.1, 8)
