"""A master dies under payments, of a cluster and of a pair under Sentinels: its replica goes on, nothing is lost."""

import asyncio
import os
import signal

import pytest

from schemas.streams import jobs_stream, shards_of
from tests.chaos.conftest import Fleet, check, running_fleet
from tests.support.waiting import until_async
from wire.client import BLOCK_MS, StreamServers, connect_redis

pytestmark = [pytest.mark.long, pytest.mark.chaos]


async def _serving(fleet: Fleet, rail: str) -> int:
    """The port of the master that serves this rail now."""
    servers = StreamServers(fleet.stack.info.redis_url, "chaos")
    try:
        info = await servers.of(rail).info("server")
        return int(info["tcp_port"])
    finally:
        await servers.aclose()


@pytest.mark.timeout(240)
async def test_a_killed_master_of_a_cluster_costs_a_pause_and_nothing_else() -> None:
    """Two rails on two masters; the one of the first is killed in the middle, and then the one of the second."""
    async with running_fleet(redis="cluster") as fleet:
        cluster = fleet.stack.cluster
        assert cluster is not None
        ports = {rail: await _serving(fleet, rail) for rail in ("promptpay", "sbp")}
        assert len(set(ports.values())) == 2, "the rails share a master: this would show less"
        for rail, port in ports.items():
            lines = [*fleet.payments(40, refused=False), *fleet.rouble_payments(40)]
            task = asyncio.create_task(fleet.send(lines))
            await _until_some_wait(fleet, rail)
            cluster.node_at(port).kill()
            await check(fleet, await task, 80)
            assert await _serving(fleet, rail) != port


@pytest.mark.timeout(240)
async def test_what_a_dead_master_acknowledged_and_never_passed_on_is_sent_again() -> None:
    """The replica hears nothing for a while, and then takes over: what was added meanwhile is gone, and heals."""
    async with running_fleet(redis="cluster") as fleet:
        cluster = fleet.stack.cluster
        assert cluster is not None
        port = await _serving(fleet, "promptpay")
        master = cluster.node_at(port)
        replica = cluster.nodes[cluster.nodes.index(master) + len(cluster.nodes) // 2]
        # Who had read its jobs would publish their verdicts all the same: nobody reads until they are gone.
        adapters = [
            pid for name, pid in fleet.stack.supervisor.pids().items() if name in ("promptpay-1", "promptpay-2")
        ]
        for pid in (replica.pid, *adapters):
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(1.5 * BLOCK_MS / 1000)
        # The replica's link is cut too: what the system holds for a stopped process would else reach it later.
        admin = connect_redis(master.admin_url, "chaos")
        await admin.execute_command("CLIENT", "KILL", "TYPE", "replica")  # type: ignore[no-untyped-call] # upstream
        await admin.aclose()
        task = asyncio.create_task(fleet.pay(60))
        while await _added(fleet, "promptpay") < 60:  # noqa: ASYNC110  the count is the server's
            await asyncio.sleep(0.02)
        master.kill()
        for pid in (replica.pid, *adapters):
            os.kill(pid, signal.SIGCONT)
        await check(fleet, await task, 60)
        assert await _serving(fleet, "promptpay") == replica.address[1]
        async with fleet.database.acquire() as connection:
            again = await connection.fetchval("SELECT count(*) FROM fleet.jobs WHERE rounds > 0")
        assert again > 0, "nothing was lost: this showed nothing"


@pytest.mark.timeout(240)
async def test_a_master_that_dies_under_sentinels_costs_a_pause_and_nothing_else() -> None:
    async with running_fleet(redis="sentinel") as fleet:
        sentinels = fleet.stack.sentinels
        assert sentinels is not None
        port = await _serving(fleet, "promptpay")
        task = asyncio.create_task(fleet.send([*fleet.payments(40, refused=False), *fleet.rouble_payments(40)]))
        await _until_some_wait(fleet, "promptpay")
        sentinels.master.kill()
        await check(fleet, await task, 80)
        assert await _serving(fleet, "promptpay") != port


@pytest.mark.timeout(240)
async def test_a_rail_over_three_streams_pays_everything_once_though_one_streams_master_dies() -> None:
    async with running_fleet(redis="cluster", shards={"promptpay": 3}) as fleet:
        cluster = fleet.stack.cluster
        assert cluster is not None
        port = await _serving(fleet, "promptpay.1")
        lines = [*fleet.payments(60, refused=False), *fleet.rouble_payments(20)]
        task = asyncio.create_task(fleet.send(lines))
        await _until_some_wait(fleet, "promptpay")
        cluster.node_at(port).kill()
        await check(fleet, await task, 80)
        assert all([await _added(fleet, shard) for shard in shards_of("promptpay", 3)]), "some stream carried nothing"


async def _until_some_wait(fleet: Fleet, rail: str) -> None:
    """Return as soon as payments of the rail were sent and have not ended. Raises TimeoutError where none comes."""

    async def waiting() -> bool:
        return await fleet.unfinished(rail) > 0

    await until_async(waiting)


async def _added(fleet: Fleet, shard: str) -> int:
    """How many entries were ever added to this shard's jobs."""
    servers = StreamServers(fleet.stack.info.redis_url, "chaos")
    try:
        return int((await servers.of(shard).xinfo_stream(jobs_stream(shard)))["entries-added"])
    finally:
        await servers.aclose()
