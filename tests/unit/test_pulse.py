"""A loop that stands still is found; one that fails is not: restarting mends no server."""

import asyncio

import httpx
import pytest

from core.bus.loop import forever
from fleet.stack.processes import free_port
from wire.health import Health
from wire.pulse import PULSE, Pulse


def test_the_slowest_of_several_loops_of_one_name_counts() -> None:
    pulse = Pulse()
    quick, slow = pulse.start("relay"), pulse.start("relay")
    assert pulse.stalled() == []
    slow.at_s -= 400
    quick.beat()
    assert pulse.stalled() == ["relay"]
    pulse.end(slow)
    assert pulse.stalled() == []


async def test_a_loop_that_only_fails_goes_on_beating_and_one_that_ended_is_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = asyncio.Event()

    async def step() -> float:
        failed.set()
        raise ConnectionError("the server is away")

    task = asyncio.create_task(forever("the test's loop", step))
    await failed.wait()
    assert PULSE.stalled(60) == []
    assert PULSE.stalled(-1) == ["test's loop"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert PULSE.stalled(-1) == []


async def test_a_loop_that_has_its_time_until_tomorrow_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.bus.loop.SIGN_OF_LIFE_S", 0.01)
    steps: list[float] = []

    async def step() -> float:
        steps.append(86_400.0)
        return steps[-1]

    task = asyncio.create_task(forever("the daily loop", step))
    try:
        for _ in range(3):
            await asyncio.sleep(0.2)
            assert PULSE.stalled(0.15) == []
        assert len(steps) == 1, "and it took its step once"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_three_paths_tell_alive_from_ready() -> None:
    pulse, missing = Pulse(), "database_away"
    beat = pulse.start("resolver")

    async def look() -> str:
        return missing

    health, port = Health(look, pulse), free_port()
    await health.start("127.0.0.1", port)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.get("/healthz")).json() == {"status": "ok", "loops": []}
            away = await client.get("/readyz")
            assert (away.status_code, away.json()) == (503, {"status": "database_away"})
            missing = ""
            assert (await client.get("/readyz")).status_code == 200
            beat.at_s -= 400
            stalled = await client.get("/healthz")
            assert (stalled.status_code, stalled.json()["loops"]) == (503, ["resolver"])
            assert 'fleet_loop_heartbeat_timestamp_seconds{loop="resolver"}' in (await client.get("/metrics")).text
    finally:
        await health.stop()
