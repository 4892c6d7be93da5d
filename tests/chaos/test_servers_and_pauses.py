"""Processes that hang, and servers that vanish with everything they held."""

import asyncio
import os
import random
import signal
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from core.domain.context import Context
from fleet.stack.stack import API, WORKER, Stack
from tests.chaos.conftest import Fleet, check, kill_adapters, restarts_by_rail, running_fleet
from tests.support.partition import link
from tests.support.selection import mostly_long
from wire.client import connect_redis


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "step", mostly_long(["adapter.after_permit", "adapter.during_call", "adapter.after_call"], "adapter.after_permit")
)
async def test_an_adapter_that_sleeps_beyond_the_claim_time_wakes_up_harmless(fleet: Fleet, step: str) -> None:
    fleet.stack.arm(step, "stop")
    task = asyncio.create_task(fleet.pay(40))
    assert await fleet.until_struck(step), f"{step} was never reached"
    await asyncio.sleep(fleet.stack.plan.profile.claim_idle_s * 1.5)
    for name, pid in fleet.stack.supervisor.pids().items():
        if name.startswith("promptpay-") and name != "promptpay-simulator":
            os.kill(pid, signal.SIGCONT)
    await check(fleet, await task, 40)


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "moment_s", [0.3, pytest.param(0.05, marks=pytest.mark.long), pytest.param(1.5, marks=pytest.mark.long)]
)
async def test_a_wiped_redis_is_filled_again_and_nobody_is_paid_twice(fleet: Fleet, moment_s: float) -> None:
    task = asyncio.create_task(fleet.pay(60))
    await asyncio.sleep(moment_s)
    client: Redis = connect_redis(fleet.stack.info.redis_url, "chaos")
    await client.flushall()
    await client.function_flush("SYNC")
    await client.aclose()
    await check(fleet, await task, 60)


@pytest.mark.timeout(150)
async def test_a_redis_that_restarts_is_taken_up_again(fleet: Fleet) -> None:
    if fleet.stack.valkey is None:
        pytest.skip("the server is not ours to restart")
    task = asyncio.create_task(fleet.pay(60))
    await asyncio.sleep(0.3)
    fleet.stack.valkey.restart()
    await check(fleet, await task, 60)


@pytest.mark.timeout(150)
async def test_a_postgresql_that_restarts_loses_nothing(fleet: Fleet) -> None:
    if fleet.stack.postgres is None:
        pytest.skip("the server is not ours to restart")
    task = asyncio.create_task(fleet.pay(60))
    await asyncio.sleep(0.3)
    fleet.stack.postgres.restart()
    await check(fleet, await task, 60)


@pytest.mark.timeout(150)
async def test_adapters_killed_one_after_another_pay_everything_once(fleet: Fleet) -> None:
    """The short form of tests/chaos/test_adapters_killed_at_random.py."""
    lines = [*fleet.payments(20, refused=False), *fleet.rouble_payments(20)]
    task = asyncio.create_task(fleet.send(lines))
    before = restarts_by_rail(fleet)
    killed = await kill_adapters(fleet, 4, random.Random(4))
    assert all(killed[rail] for rail in ("promptpay", "sbp")), (
        "adapters of both rails died with payments in their hands"
    )
    await check(fleet, await task, 40)
    restarted = restarts_by_rail(fleet) - before
    assert all(restarted[rail] >= times for rail, times in killed.items()), (killed, restarted)


@pytest.mark.timeout(150)
async def test_all_processes_killed_at_once_come_back_and_finish(fleet: Fleet) -> None:
    task = asyncio.create_task(fleet.pay(60, refused=True))
    await asyncio.sleep(0.3)
    for pid in fleet.stack.supervisor.pids().values():
        os.kill(pid, signal.SIGKILL)
    await check(fleet, await task, 60, refused=True)


@pytest.mark.timeout(150)
async def test_a_worker_away_for_longer_than_a_claim_lives_voids_nothing_that_waits(fleet: Fleet) -> None:
    """Waiting is not failing: the relay is away, so nothing was sent; once it is back everything is paid."""
    worker = fleet.stack.supervisor.pid(WORKER)
    os.kill(worker, signal.SIGSTOP)
    task = asyncio.create_task(fleet.pay(40))
    await asyncio.sleep(fleet.stack.plan.profile.claim_idle_s * 1.1)
    os.kill(worker, signal.SIGCONT)
    await check(fleet, await task, 40)


@pytest.mark.long
@pytest.mark.timeout(200)
async def test_an_api_away_past_the_deadline_voids_nothing_that_waits_for_permits(fleet: Fleet) -> None:
    """Adapters, relay and resolver work all the while, and nobody can be given a permit."""
    task, api = asyncio.create_task(fleet.pay(200)), fleet.stack.supervisor.pid(API)
    async with asyncio.timeout(30):
        while (await _unsent(fleet))[0] < 20:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(0.01)
    os.kill(api, signal.SIGSTOP)
    unsent, left_s = await _unsent(fleet)
    assert unsent, "all were sent: the test would prove nothing"
    on_their_way = await _permitted(fleet)
    await asyncio.sleep(left_s + fleet.stack.plan.profile.claim_idle_s + 2)
    os.kill(api, signal.SIGCONT)
    await check(fleet, await task, 200, on_their_way=on_their_way)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_adapters_that_the_core_cannot_be_reached_from_void_nothing_that_waits_for_permits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Everything runs, and the way from the adapters to the core is lost alone."""
    usual = Stack._adapters

    def adapters(stack: Stack, *given: Any) -> Any:
        way.upstream = stack.info.internal_url
        return usual(stack, *given)

    monkeypatch.setattr(Stack, "_adapters", adapters)
    async with link() as way, running_fleet(adapter_env={"CORE_INTERNAL_URL": way.url}) as fleet:
        task = asyncio.create_task(fleet.pay(200))
        async with asyncio.timeout(30):
            while (await _unsent(fleet))[0] < 20:  # noqa: ASYNC110 - bounded
                await asyncio.sleep(0.01)
        way.part()
        unsent, left_s = await _unsent(fleet)
        assert unsent, "all were sent: the test would prove nothing"
        on_their_way = await _permitted(fleet)
        await asyncio.sleep(left_s + fleet.stack.plan.profile.claim_idle_s + 2)
        way.join()
        await check(fleet, await task, 200, on_their_way=on_their_way)


async def _permitted(fleet: Fleet) -> set[UUID]:
    """Return what has a permit and no end: whether its answer was read is known to the adapter alone."""
    async with fleet.database.unit_of_work(Context(None, "chaos")) as uow:
        rows = await uow.connection.fetch(
            "SELECT intent_id FROM fleet.jobs WHERE closed_at IS NULL AND kind = 'pay' AND fence > 0"
        )
    return {row["intent_id"] for row in rows}


async def _unsent(fleet: Fleet) -> tuple[int, float]:
    """Return how many payments have no permit yet, and how long until the last of their deadlines."""
    async with fleet.database.unit_of_work(Context(None, "chaos")) as uow:
        row = await uow.connection.fetchrow(
            "SELECT count(*), coalesce(extract(epoch FROM max(deadline) - now()), 0)::float8 FROM fleet.jobs"
            " WHERE closed_at IS NULL AND kind = 'pay' AND fence = 0"
        )
    assert row is not None
    return row[0], row[1]
