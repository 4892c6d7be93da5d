"""What waits is read on real servers at a pace of its own, and a scrape reads nothing."""

import asyncio
import base64
import os
import sys
from uuid import UUID, uuid4

import asyncpg
import httpx
from prometheus_client import generate_latest

from core.bus.observer import observe_rail, observe_servers
from core.domain.context import Context
from core.store.on_call.figures import read_figures, read_imbalance
from core.store.settling import rails
from core.telemetry.figures import show_figures, show_imbalance
from fleet.stack.processes import free_port
from fleet.stack.provision import RoleUrls
from tests.integration.bus.conftest import JOBS, RAIL, World
from tests.support.waiting import PATIENCE_S

GROUP = f'group="adapters",stream="{JOBS}"'


async def shown(world: World) -> list[str]:
    """What /metrics says after the observer's step."""
    show_figures(await read_figures(world.database))
    await observe_rail(world.redis, RAIL)
    await observe_servers([world.redis])
    return generate_latest().decode().splitlines()


async def test_what_waits_is_shown_and_goes_when_it_is_done(world: World) -> None:
    await world.queue(3)
    before = await shown(world)
    await world.relay().relay_once()
    after = await shown(world)
    assert f'fleet_outbox_depth{{stream="{JOBS}"}} 3.0' in before
    assert f"fleet_stream_lag{{{GROUP}}} 0.0" in before
    assert not [line for line in after if line.startswith("fleet_outbox_depth{")]
    assert f"fleet_stream_lag{{{GROUP}}} 3.0" in after
    assert f"fleet_stream_pending{{{GROUP}}} 0.0" in after
    assert f'fleet_gate_closed{{stream="{JOBS}"}} 0.0' in after
    assert "fleet_intents_parked 0.0" in after
    assert "fleet_intents_in_review 0.0" in after


def value(lines: list[str], name: str) -> float:
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


async def test_what_a_consumer_holds_is_pending_and_ages(world: World) -> None:
    await world.queue(2)
    await world.relay().relay_once()
    await world.redis.xreadgroup("adapters", "one", {JOBS: ">"}, count=1)
    await asyncio.sleep(0.02)
    lines = await shown(world)
    assert f"fleet_stream_pending{{{GROUP}}} 1.0" in lines
    assert f"fleet_stream_lag{{{GROUP}}} 1.0" in lines
    assert value(lines, f"fleet_stream_oldest_unfinished_seconds{{{GROUP}}}") >= 0.02
    assert value(lines, "fleet_redis_memory_bytes") > 100_000
    assert value(lines, "fleet_database_size_bytes") > 1_000_000


async def test_a_rail_that_waits_is_shown_by_its_cause_until_nobody_says_so_any_more(
    world: World, admin_connection: asyncpg.Connection
) -> None:
    async with world.database.unit_of_work(Context(None, "test")) as uow:
        await rails.note_waits(uow, RAIL, ["PAYOUT"], "breaker", 60)
        await rails.note_waits(uow, RAIL, ["BILL_PAYMENT", "PAYOUT"], "breaker", 60)
        await rails.note_waits(uow, RAIL, ["*"], "adapters", 60)
    an_hour_ago = "UPDATE fleet.rail_waits SET began_at = now() - interval '1 hour' WHERE operation = 'PAYOUT'"
    await admin_connection.execute(an_hour_ago)
    lines = await shown(world)
    assert 3600 <= value(lines, f'fleet_rail_waiting_seconds{{cause="breaker",rail="{RAIL}"}}') < 3900
    assert 0 <= value(lines, f'fleet_rail_waiting_seconds{{cause="adapters",rail="{RAIL}"}}') < 300
    await admin_connection.execute("UPDATE fleet.rail_waits SET holds_until = now()")
    assert not [line for line in await shown(world) if line.startswith("fleet_rail_waiting_seconds{")]


async def test_a_lag_that_the_server_lost_is_absent_and_told(world: World) -> None:
    await world.queue(3)
    await world.relay().relay_once()
    entries = await world.redis.xrange(JOBS)
    await world.redis.xdel(JOBS, entries[1][0])
    lines = await shown(world)
    assert f"fleet_stream_lag_unknown{{{GROUP}}} 1.0" in lines
    assert not [line for line in lines if line.startswith(f"fleet_stream_lag{{{GROUP}}}")]


async def test_a_ledger_whose_debits_are_not_its_credits_is_told(
    world: World, admin_connection: asyncpg.Connection
) -> None:
    # Money out of nothing: what only a fault of the database, or a person with its keys, could write.
    await admin_connection.execute(
        "INSERT INTO fleet.accounts (id, tenant_id, ledger, code, flags, credits_posted)"
        " VALUES ($1, $2, 764, 1, 0, 250)",
        uuid4(),
        uuid4(),
    )
    show_imbalance(await read_imbalance(world.database))
    assert 'fleet_ledger_imbalance_minor{ledger="764"} 250.0' in generate_latest().decode().splitlines()


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
        async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            while wanted not in seen:
                await asyncio.sleep(0.1)
                try:
                    seen = (await client.get("/metrics")).text
                except httpx.TransportError:
                    continue
            assert (await client.get("/healthz")).json() == {"status": "ok", "loops": []}
            assert (await client.get("/readyz")).json() == {"status": "ok"}
    finally:
        relay.terminate()
        assert await relay.wait() == 0
    for loop in ("event loop", "relay", f"healer of {RAIL}"):
        assert f'fleet_loop_heartbeat_timestamp_seconds{{loop="{loop}"}}' in seen
    assert 'fleet_database_connections{pool="fleet-worker",state="open"}' in seen


async def test_registers_that_are_expected_and_breaks_that_are_open_are_shown_by_age(world: World) -> None:
    async with world.database.acquire() as worker:
        await worker.execute(
            "INSERT INTO fleet.register_days (rail, provider_account, environment, business_day, wanted_at, fetched_at)"
            " VALUES ('late', 'a', 's', current_date - 2, now() - interval '7 h', NULL),"
            " ('late', 'a', 's', current_date - 3, now() - interval '9 h', now()),"
            " ('late', 'a', 's', current_date - 30, now() - interval '720 h', NULL),"
            " ('never', 'a', 's', current_date - 2, now() - interval '7 h', NULL),"
            " ('missed', 'a', 's', current_date - 2, now() - interval '7 h', NULL)"
        )
        await worker.execute(
            "INSERT INTO fleet.register_files (id, rail, provider_account, environment, business_day, source,"
            " received_by) VALUES (gen_random_uuid(), 'late', 'a', 's', current_date - 3, 'FETCHED', 'rail:late')"
        )
        await worker.execute(
            "INSERT INTO fleet.breaks (id, tenant_id, kind, detail, state, rail, provider_account, environment,"
            " business_day) VALUES (gen_random_uuid(), $1, 'register_absent', 'x', 'OPEN', 'missed', 'a', 's',"
            " current_date - 2), (gen_random_uuid(), $1, 'orphan_hold', 'x', 'RESOLVED', '', '', '', NULL)",
            UUID(int=0),
        )
    lines = await shown(world)
    assert 'fleet_registers_awaited{rail="late"} 1.0' in lines
    assert 'fleet_registers_awaited{rail="missed"} 1.0' in lines
    assert not [line for line in lines if 'rail="never"' in line], "who never brought one owes none"
    assert 25_200 <= value(lines, 'fleet_registers_awaited_oldest_seconds{rail="late"}') < 25_300
    assert 'fleet_breaks_open{kind="register_absent"} 1.0' in lines
    assert value(lines, 'fleet_breaks_oldest_seconds{kind="register_absent"}') >= 0
    assert not [line for line in lines if 'kind="orphan_hold"' in line]
