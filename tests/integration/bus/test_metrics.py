"""/metrics of the internal listener, scraped on real servers while work waits."""

import asyncio
import base64
import os
import sys

import httpx

from core.api.serve import internal_app
from core.bootstrap import open_core
from core.bus.gate import BacklogGate, GateBounds
from core.bus.throttle import ResultsThrottle
from core.settings import Settings
from fleet.stack.processes import free_port
from fleet.stack.provision import RoleUrls
from schemas.streams import ADAPTERS_GROUP
from tests.integration.bus.conftest import JOBS, RAIL, World


async def test_what_waits_is_shown_and_goes_when_it_is_done(
    world: World, fresh_database: RoleUrls, fresh_redis: str
) -> None:
    settings = Settings.model_validate(
        {
            "DATABASE_URL": fresh_database.app,
            "DATABASE_WORKER_URL": fresh_database.worker,
            "REDIS_URL": fresh_redis,
            "master_key": base64.b64encode(b"k" * 32).decode(),
        }
    )
    await world.queue(3)
    async with open_core(settings) as core:
        throttle = ResultsThrottle(world.redis, [RAIL], GateBounds())
        gate = BacklogGate(world.redis, JOBS, ADAPTERS_GROUP, GateBounds())
        transport = httpx.ASGITransport(internal_app(core, throttle, [gate]))
        async with httpx.AsyncClient(transport=transport, base_url="http://core") as client:
            before = (await client.get("/metrics")).text
            await world.relay().relay_once()
            after = (await client.get("/metrics")).text
    stream = f'stream="{JOBS}"'
    assert f"fleet_outbox_depth{{{stream}}} 3.0" in before
    assert f'fleet_stream_backlog{{group="adapters",{stream}}} 0.0' in before
    assert "fleet_outbox_depth{" not in after
    assert f'fleet_stream_backlog{{group="adapters",{stream}}} 3.0' in after
    assert f"fleet_gate_closed{{{stream}}} 0.0" in after
    assert "fleet_intents_parked 0.0" in after
    assert "fleet_intents_in_review 0.0" in after


async def test_a_process_without_the_api_shows_its_counters_on_a_port_of_its_own(
    world: World, fresh_database: RoleUrls, fresh_redis: str
) -> None:
    await world.queue(3)
    port = free_port()
    environ = os.environ | {
        "DATABASE_URL": fresh_database.app,
        "DATABASE_WORKER_URL": fresh_database.worker,
        "REDIS_URL": fresh_redis,
        "FLEET_MASTER_KEY": base64.b64encode(b"k" * 32).decode(),
        "FLEET_RAILS": RAIL,
        "FLEET_METRICS_PORT": str(port),
    }
    relay = await asyncio.create_subprocess_exec(sys.executable, "-m", "core", "relay", env=environ)
    wanted, seen = f'fleet_dispatched_total{{rail="{RAIL}",stream="{JOBS}"}} 3.0', ""
    try:
        async with asyncio.timeout(30), httpx.AsyncClient() as client:
            while wanted not in seen:
                await asyncio.sleep(0.1)
                try:
                    seen = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
                except httpx.TransportError:
                    continue
    finally:
        relay.terminate()
        assert await relay.wait() == 0
