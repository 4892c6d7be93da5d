"""/metrics of the internal listener, scraped on real servers while work waits."""

import base64

import httpx

from core.api.serve import internal_app
from core.bootstrap import open_core
from core.bus.gate import BacklogGate, GateBounds
from core.bus.throttle import ResultsThrottle
from core.settings import Settings
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
