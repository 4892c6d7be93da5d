"""A rail whose stream is full waits alone: the relays of one process put out every other rail's jobs."""

import asyncio
import base64
from dataclasses import fields
from typing import Any

from core.bus.roles import BusDeps, relay_role
from core.settings import Settings
from fleet.stack.provision import RoleUrls
from schemas.streams import jobs_stream
from tests.integration.bus.conftest import JOBS, RAIL, World
from tests.support.waiting import PATIENCE_S

NEIGHBOUR, HIGH = "neighbour", 50


async def test_a_rail_whose_stream_is_full_holds_back_no_other_rail(
    world: World, fresh_database: RoleUrls, fresh_redis: str
) -> None:
    await asyncio.gather(*(world.redis.xadd(JOBS, {"v": "1"}) for _ in range(HIGH)))
    await world.queue(5)
    await world.queue(30, rail=NEIGHBOUR)
    relaying = asyncio.create_task(relay_role(_deps(world, fresh_database, fresh_redis)))
    try:
        await _until_dispatched(world, 30)
        # Woken again and again by what waits for room, the neighbour's relay still puts out what comes now.
        for count in (40, 50):
            await world.queue(10, rail=NEIGHBOUR)
            await _until_dispatched(world, count)
        assert await world.redis.xlen(JOBS) == HIGH, "what has no room waits in PostgreSQL"
    finally:
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)


def _deps(world: World, database: RoleUrls, redis: str) -> BusDeps:
    """Return what a relay needs, and nothing of the other roles."""
    settings = Settings.model_validate(
        {
            "DATABASE_URL": database.app, "DATABASE_WORKER_URL": database.worker, "REDIS_URL": redis,
            "rails": f"{RAIL},{NEIGHBOUR}", "backlog_high": HIGH, "backlog_low": 10, "relay_poll_s": 0.05,
            "master_key": base64.b64encode(bytes(32)).decode(),
        }
    )  # fmt: skip
    own: dict[str, Any] = dict.fromkeys((each.name for each in fields(BusDeps)), None)
    own |= {"settings": settings, "servers": world.servers, "store": world.store, "listen": _nobody_tells}
    return BusDeps(**own)


async def _nobody_tells(_: Any) -> None:
    await asyncio.Event().wait()


async def _until_dispatched(world: World, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await world.redis.xlen(jobs_stream(NEIGHBOUR)) < count:  # noqa: ASYNC110 - bounded above
            await asyncio.sleep(0.02)
