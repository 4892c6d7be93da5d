"""One running fleet per module: real processes on real servers, every failpoint armable, timing scaled."""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from core.domain.context import Context
from core.store.database import AWAY, Database
from fleet.client import FleetClient
from fleet.demo.payments_file import PaymentLine
from fleet.demo.runner import Run, look, run_payments
from fleet.proof import Proof, prove
from fleet.stack.stack import Stack, StackPlan, running
from schemas.events import IntentState
from schemas.streams import ADAPTERS_GROUP, jobs_stream
from wire.client import connect_redis

CANARY = "rent of Somchai"
LOST_ANSWER, ERROR_BEFORE_PAYING = "0899990002", "0899990004"
LOST_PHONE = "79990000002"


@dataclass
class Fleet:
    """A stack with a client and an eye on the database."""

    stack: Stack
    client: FleetClient
    database: Database
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def rouble_payments(self, count: int) -> list[PaymentLine]:
        """Payments over SBP never sent before; one's answer is lost after it was paid."""
        return self._lines(count, "RUB", "phone_bank", "79{:09d}@100000000004", {3: f"{LOST_PHONE}@100000000004"})

    def bank_payments(self, count: int) -> list[PaymentLine]:
        """Withdrawals to accounts at banks never sent before: files, not calls."""
        return self._lines(count, "THB", "bank_account", "004-1{:09d}", {})

    def payments(self, count: int, *, refused: bool) -> list[PaymentLine]:
        """Payments never sent before; one's answer is lost, and where `refused` one fails before it is paid.

        What was not paid takes H to prove, so only the tests that are about it ask for it.
        """
        faults = {3: LOST_ANSWER, 7: ERROR_BEFORE_PAYING} if refused else {3: LOST_ANSWER}
        return self._lines(count, "THB", "mobile", "08{:08d}", faults)

    def _lines(
        self, count: int, currency: str, payee_type: str, payee_of: str, faults: Mapping[int, str]
    ) -> list[PaymentLine]:
        """Lines with numbers of their own; `faults` says which places have another payee."""
        return [
            PaymentLine(
                line=place,
                reference=f"chaos-{number:06d}",
                wallet=f"wallet-{number % 3}",
                payee_type=payee_type,
                payee=faults.get(place, payee_of.format(number)),
                amount_minor=100 + number,
                currency=currency,
                message=CANARY,
            )
            for place, number in enumerate(itertools.islice(self.numbers, count))
        ]

    async def pay(self, count: int = 40, *, refused: bool = False) -> Run:
        """Send and wait until each is terminal or UNRESOLVED."""
        return await self.send(self.payments(count, refused=refused))

    async def send(self, lines: list[PaymentLine], run: Run | None = None) -> Run:
        """Send these and wait until each is terminal or UNRESOLVED; add them to a run that is given."""
        return await run_payments(
            self.client,
            self.database,
            lines,
            opening_balance="1000000.00",
            wait_s=60,
            progress=lambda _: None,
            pay_in=self.stack.pay_in,
            run=run,
        )

    async def until_decided(self, run: Run, timeout_s: float = 60) -> None:
        """Wait for what was parked: inquiries go on, and a late answer still decides it."""
        deadline = time.monotonic() + timeout_s
        while run.ends["UNRESOLVED"] and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
            await look(self.database, run)

    async def unfinished(self, rail: str) -> int:
        """Return how many payments of the rail have an open job, wherever it waits: PostgreSQL, stream or adapter."""
        async with self.database.unit_of_work(Context(None, "chaos")) as uow:
            found = await uow.connection.fetchval(
                "SELECT count(DISTINCT intent_id) FROM fleet.jobs WHERE rail = $1 AND closed_at IS NULL", rail
            )
        return int(found)

    async def proof(self) -> Proof:
        """Compare our books with the provider's."""
        booked, received = await self.stack.booked(), await self.stack.received()
        for _ in range(5):
            # Connections of the pool may be from before a server was killed.
            with contextlib.suppress(*AWAY):
                return await prove(self.database, booked, received)
        return await prove(self.database, booked, received)

    async def until_struck(self, failpoint: str, timeout_s: float = 30) -> bool:
        """Whether an armed failpoint was reached: its file is removed as it fires."""
        deadline = time.monotonic() + timeout_s
        while (self.stack.failpoints_dir / failpoint).exists():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True


@contextlib.asynccontextmanager
async def running_fleet(**plan: Any) -> AsyncIterator[Fleet]:
    """Run two adapters of PromptPay and one of SBP, or what else the plan says, with a client of them."""
    chosen = {"rails": {"promptpay": 2, "sbp": 1}, "provider_latency_ms": 40, **plan}
    with tempfile.TemporaryDirectory(prefix="fleet-") as home:
        async with running(StackPlan(Path(home), **chosen)) as stack:
            info = stack.info
            database = await Database.connect(info.database_url, max_size=2, application_name="chaos")
            async with FleetClient(info.public_url, info.key_id, info.key_secret, attempts=40) as client:
                yield Fleet(stack, client, database)
            await database.close()


@pytest.fixture(scope="module")
async def fleet() -> AsyncIterator[Fleet]:
    """One fleet for the tests of a module, every failpoint armable."""
    async with running_fleet(failpoints=True) as fleet:
        yield fleet


async def kill_adapters(
    fleet: Fleet, times: int, choices: random.Random, apart_s: tuple[float, float] = (0.3, 1.0)
) -> Counter[str]:
    """Kill this many adapters, the rails in turn; then it ends, so that what was interrupted can end too.

    One is killed only while payments of its rail are in flight, the first of each rail as soon as some are, and never
    before it works again: on a slow machine a rail would else have no adapter at all. Returns how many were killed of
    each rail.
    """
    turns = [rail for rail, _ in zip(itertools.cycle(fleet.stack.plan.rails), range(times), strict=False)]
    first = len(fleet.stack.plan.rails)
    struck = await asyncio.gather(*(_kill_one(fleet, rail, choices, 20) for rail in turns[:first]))
    killed = Counter(rail for rail, died in zip(turns, struck, strict=False) if died)
    for rail in turns[first:]:
        await asyncio.sleep(choices.uniform(*apart_s))
        killed[rail] += await _kill_one(fleet, rail, choices, 1)
    return killed


async def _kill_one(fleet: Fleet, rail: str, choices: random.Random, timeout_s: float) -> bool:
    number = choices.randint(1, fleet.stack.plan.rails[rail])
    name = f"{rail}-{number}"
    if not await _in_flight(fleet, rail, timeout_s) or not await _works(fleet, name):
        return False
    pid = fleet.stack.supervisor.pids().get(name)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it died of the last kill, and is being started again
        return False
    return True


async def _works(fleet: Fleet, name: str) -> bool:
    """Whether an adapter has registered and takes jobs."""
    url = fleet.stack.info.metrics[name].replace("/metrics", "/readyz")
    async with httpx.AsyncClient(timeout=2, trust_env=False) as http:
        try:
            return (await http.get(url)).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


async def _in_flight(fleet: Fleet, rail: str, timeout_s: float) -> bool:
    """Wait until an adapter of the rail holds a payment that it has not answered for; False where none comes."""
    client = connect_redis(fleet.stack.info.redis_url, "chaos")
    try:
        async with asyncio.timeout(timeout_s):
            while not await _pending(client, rail):  # noqa: ASYNC110 - bounded
                await asyncio.sleep(0.02)
    except TimeoutError:
        return False
    finally:
        await client.aclose()
    return True


async def _pending(client: Redis, rail: str) -> int:
    """Return how many jobs of the rail are in an adapter's hands: none before the core has made the stream's group."""
    try:
        found = await client.xpending(jobs_stream(rail), ADAPTERS_GROUP)
    except ResponseError as error:
        if not str(error).startswith("NOGROUP"):
            raise
        return 0
    return int(found["pending"])


def restarts_by_rail(fleet: Fleet) -> Counter[str]:
    """How many times the supervisor started adapters again, by rail."""
    found = Counter[str]()
    for name, times in fleet.stack.supervisor.restarts.items():
        rail, _, number = name.rpartition("-")
        if number.isdigit():
            found[rail] += times
    return found


async def check(
    fleet: Fleet, run: Run, sent: int, *, refused: bool = False, on_their_way: Collection[UUID] = ()
) -> None:
    """Hold a run to the invariants I1 to I7.

    What was `on_their_way` as the core went, and stayed away past their deadlines, may have expired unsent (ADR 19).
    """
    await fleet.until_decided(run)
    proof = await fleet.proof()
    assert proof.holds, proof
    assert len(run.accepted) == sent, "every payment that was answered 2xx exists"
    assert run.refused == []
    assert run.ends["UNRESOLVED"] == 0
    given_up = [each for each in on_their_way if (await fleet.client.get_intent(each)).state is IntentState.EXPIRED]
    # What the provider failed before paying is failed; everything else is paid.
    assert run.ends["SETTLED"] == sent - refused - len(given_up), run
    for intent_id in run.accepted:
        assert (await fleet.client.get_intent(intent_id)).id == intent_id
