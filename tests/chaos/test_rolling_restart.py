"""Every component restarted in turn, two of each, while payments arrive: none fails and none is lost."""

import asyncio
import itertools
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from core.store.database import Database
from fleet.client import FleetClient
from fleet.demo.payments_file import PaymentLine
from fleet.demo.runner import Run, look, run_payments
from fleet.stack.bank import BANK
from fleet.stack.stack import API, WORKER, Stack, StackPlan, running
from tests.chaos.conftest import Fleet
from tests.support.more_processes import CoreProcess, core_process
from tests.support.waiting import until_async

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


async def is_ready(url: str) -> bool:
    """Whether a process says that it can work."""
    try:
        async with httpx.AsyncClient(timeout=2) as http:
            return (await http.get(f"{url}/readyz")).is_success
    except httpx.TransportError:
        return False


async def restart(stack: Stack, name: str, url: str) -> None:
    """End a process as a deployment does, and go on once the one that took its place is ready."""
    before = stack.supervisor.pid(name)
    os.kill(before, signal.SIGTERM)

    async def replaced() -> bool:
        return stack.supervisor.pids().get(name, before) != before and await is_ready(url)

    await until_async(replaced, 90)


def over_promptpay(fleet: Fleet) -> list[PaymentLine]:
    """Two payments: the provider withholds the answer of a fourth."""
    return fleet.payments(2, refused=False)


def over_sbp(fleet: Fleet) -> list[PaymentLine]:
    """Two payments: the answer of a fourth is lost."""
    return fleet.rouble_payments(2)


def over_files(fleet: Fleet) -> list[PaymentLine]:
    """Two withdrawals."""
    return fleet.bank_payments(2)


async def send(
    fleet: Fleet, ended: asyncio.Event, runs: list[Run], lines_of: Callable[[Fleet], list[PaymentLine]]
) -> None:
    """Send a few payments again and again; a refused connection is tried again under the same keys."""
    while True:
        lines = lines_of(fleet)
        run = Run()
        runs.append(run)
        await run_payments(
            fleet.client,
            fleet.database,
            lines,
            opening_balance="100000.00",
            wait_s=120,
            progress=lambda _: None,
            run=run,
            pay_in=fleet.stack.pay_in,
        )
        if ended.is_set():
            return
        await asyncio.sleep(0.1)


RAILS = ("promptpay", "sbp", "bank")
ORDER = [
    *(API, "api-2", WORKER, "relay-2", "settler-2", "resolver-2", "console-1", "console-2"),
    *(f"{rail}-{number}" for rail in RAILS for number in (1, 2)),
]


def components(stack: Stack) -> dict[str, int]:
    """The process ids of all that the supervisor keeps running but what plays the providers."""
    players = {"promptpay-simulator", "sbp-simulator", BANK}
    return {name: pid for name, pid in stack.supervisor.pids().items() if name not in players}


async def under_way(fleet: Fleet, name: str) -> bool:
    """Whether payments that this process may have a part in have not ended: an adapter's are those of its rail."""
    rails = [rail for rail in RAILS if name.startswith(f"{rail}-")] or RAILS
    return any([await fleet.unfinished(rail) for rail in rails])


@asynccontextmanager
async def two_of_each(home: Path) -> AsyncIterator[tuple[Stack, list[CoreProcess], dict[str, str]]]:
    """A stack with a second process of each role; yields those, and where every process says that it can work."""
    async with running(StackPlan(home, rails=dict.fromkeys(RAILS, 2), provider_latency_ms=40)) as stack:
        others = [core_process(stack, f"{role}-2", role) for role in ("api", "relay", "settler", "resolver", "console")]
        others.append(core_process(stack, "console-1", "console"))
        for other in others:
            await stack.supervisor.start(other.spec)
        where = {other.spec.name: other.base_url for other in others}
        where |= {name: url.removesuffix("/metrics") for name, url in stack.info.metrics.items()}
        for url in where.values():
            await until_async(partial(is_ready, url), 60)
        yield stack, others, where


async def test_every_component_restarts_in_turn_and_no_payment_notices() -> None:
    with tempfile.TemporaryDirectory(prefix="fleet-roll-") as name:
        async with two_of_each(Path(name)) as (stack, others, where):
            info, before = stack.info, components(stack)
            assert sorted(ORDER) == sorted(before), "every process of the system has its turn"
            database = await Database.connect(info.database_url, max_size=6)
            numbers, ended = itertools.count(), asyncio.Event()
            sent_by: dict[Callable[[Fleet], list[PaymentLine]], list[Run]] = {
                over_promptpay: [],
                over_sbp: [],
                over_files: [],
            }
            async with (
                FleetClient(info.public_url, info.key_id, info.key_secret, attempts=60) as first,
                FleetClient(others[0].public_url, info.key_id, info.key_secret, attempts=60) as second,
            ):
                sending = [
                    asyncio.create_task(send(Fleet(stack, client, database, numbers), ended, runs, lines_of))
                    for client in (first, second)
                    for lines_of, runs in sent_by.items()
                ]
                fleet = Fleet(stack, first, database)
                for each in ORDER:
                    await until_async(partial(under_way, fleet, each), 60)
                    await restart(stack, each, where[each])
                ended.set()
                await asyncio.gather(*sending)
                runs = [run for of_rail in sent_by.values() for run in of_rail]
                for run in runs:
                    await look(database, run)
                sent = sum(len(run.accepted) for run in runs)
                assert [run.refused for run in runs if run.refused] == []
                failed = [(by.__name__, run.failed) for by, of_rail in sent_by.items() for run in of_rail if run.failed]
                assert failed == [], "a core that is away for longer than its adapters ask withdraws what is in doubt"
                assert sum(run.ends["SETTLED"] for run in runs) == sent == 2 * len(runs)
                assert all(len(of_rail) > 2 for of_rail in sent_by.values()), "each rail was paid over again and again"
                proof = await fleet.proof()
            after = components(stack)
            await database.close()
        assert [name for name, pid in before.items() if after[name] == pid] == [], "some process was never replaced"
        assert proof.holds, proof
        assert proof.booked == sent
