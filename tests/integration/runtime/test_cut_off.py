"""An adapter that does not reach the core says so through Redis, for as long as it is so and no longer."""

import asyncio
from typing import Any

import pytest

from adapters.runtime import core_client, cut_off
from adapters.runtime.core_client import Asking, CoreRefusedError, CoreUnavailableError
from adapters.runtime.cut_off import tell_cut_off
from adapters.testkit.permit_server import PermitServer
from schemas.envelope import decode_envelope
from schemas.rails import RAIL_CUT_OFF_TYPE, RailCutOff
from schemas.streams import results_stream
from tests.integration.runtime.conftest import RAIL, Bench, ScriptedRail, a_job, pays
from tests.support.waiting import until_async


async def _said(bench: Bench) -> list[str]:
    found: Any = await bench.admin.xrange(results_stream(RAIL))
    told = [decode_envelope(fields) for _, fields in found]
    return [RailCutOff.model_validate_json(each.body).consumer for each in told if each.type == RAIL_CUT_OFF_TYPE]


async def test_an_adapter_says_that_it_does_not_reach_the_core_until_it_does(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut_off, "EVERY_S", 0.05)
    job = a_job()
    bench.core.know(job)
    await bench.work(ScriptedRail(pays), "the-adapter")
    _, servers, core = bench.started[0]
    telling = asyncio.create_task(tell_cut_off(core, servers, RAIL, "the-adapter"))
    await asyncio.sleep(0.3)
    assert await _said(bench) == [], "nobody has asked yet"
    bench.core.away = True
    await bench.send(job)
    await until_async(lambda: _said(bench))
    assert set(await _said(bench)) == {"the-adapter"}
    bench.core.away = False
    await until_async(_answered(core))
    told = await _said(bench)
    await asyncio.sleep(0.3)
    assert len(await _said(bench)) <= len(told) + 1
    telling.cancel()


def _answered(core: core_client.CoreClient) -> Any:
    async def answered() -> bool:
        return not core.is_cut_off

    return answered


async def test_what_a_front_says_in_the_cores_place_is_no_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_job()
    bench.core.know(job)
    await bench.work(ScriptedRail(pays))
    core = bench.started[0][2]
    with monkeypatch.context() as fronted:
        fronted.setattr(PermitServer, "_answer", lambda *_: "<html>maintenance</html>")
        with pytest.raises(CoreUnavailableError, match="no PermitResponse"):
            await core.request([job.job_id], Asking())
    assert core.is_cut_off
    await core.request([job.job_id], Asking())
    assert not core.is_cut_off


async def test_a_refusal_is_an_answer_and_an_old_failure_says_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.work(ScriptedRail(pays))
    core = bench.started[0][2]

    async def is_cut_off(path: str, raises: type[Exception]) -> bool:
        with pytest.raises(raises):
            await core.ask(path, b"{}")
        return core.is_cut_off

    bench.core.away = True
    assert await is_cut_off("/internal/v1/evidence", CoreUnavailableError)
    bench.core.away = False
    assert not await is_cut_off("/internal/v1/nothing", CoreRefusedError)
    bench.core.away = True
    monkeypatch.setattr(core_client, "UNHEARD_S", 0.0)
    assert not await is_cut_off("/internal/v1/evidence", CoreUnavailableError)
