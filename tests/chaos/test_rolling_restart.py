"""Every component restarted in turn, two of each, while payments arrive: none fails and none is lost."""

import asyncio
import itertools
import os
import signal
import tempfile
from functools import partial
from pathlib import Path

import httpx
import pytest

from core.store.database import Database
from fleet.client import FleetClient
from fleet.demo.runner import Run, look, run_payments
from fleet.stack.stack import API, WORKER, Stack, StackPlan, running
from tests.chaos.conftest import Fleet
from tests.support.more_processes import core_process
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


async def send(fleet: Fleet, ended: asyncio.Event, runs: list[Run]) -> None:
    """Send a few payments again and again; a refused connection is tried again under the same keys."""
    for _ in itertools.count():
        lines = fleet.payments(3, refused=False)[:2]  # not the third, whose answer the provider withholds
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


async def test_every_component_restarts_in_turn_and_no_payment_notices() -> None:
    with tempfile.TemporaryDirectory(prefix="fleet-roll-") as name:
        plan = StackPlan(Path(name), rails={"promptpay": 2}, provider_latency_ms=40)
        async with running(plan) as stack:
            info = stack.info
            others = [core_process(stack, f"{role}-2", role) for role in ("api", "relay", "settler", "resolver")]
            for other in others:
                await stack.supervisor.start(other.spec)
            where = {other.spec.name: other.base_url for other in others}
            where |= {each: url.removesuffix("/metrics") for each, url in info.metrics.items()}
            for url in where.values():
                await until_async(partial(is_ready, url), 60)
            database = await Database.connect(info.database_url, max_size=4)
            numbers, ended, runs = itertools.count(), asyncio.Event(), list[Run]()
            async with (
                FleetClient(info.public_url, info.key_id, info.key_secret, attempts=60) as first,
                FleetClient(others[0].public_url, info.key_id, info.key_secret, attempts=60) as second,
            ):
                sending = [
                    asyncio.create_task(send(Fleet(stack, client, database, numbers), ended, runs))
                    for client in (first, second)
                ]
                order = [API, "api-2", WORKER, "relay-2", "settler-2", "resolver-2", "promptpay-1", "promptpay-2"]
                assert sorted(order) == sorted(where), "every process of the system has its turn"
                for each in order:
                    await restart(stack, each, where[each])
                ended.set()
                await asyncio.gather(*sending)
                for run in runs:
                    await look(database, run)
                sent = sum(len(run.accepted) for run in runs)
                assert [run.refused for run in runs if run.refused] == []
                assert sum(run.ends["SETTLED"] for run in runs) == sent == 2 * len(runs)
                assert len(runs) >= len(order), "payments were under way all the time"
                proof = await Fleet(stack, first, database).proof()
            await database.close()
        assert proof.holds, proof
        assert proof.booked == sent
