"""An entry is lost while its permit is asked for: the permit is what counts, and not the entry."""

import pytest

from schemas.permits import Sending
from schemas.results import Verdict
from schemas.streams import jobs_stream
from tests.integration.runtime.conftest import RAIL, Bench, ScriptedRail, a_job, pays
from tests.support.waiting import until
from wire import functions


async def wiped(bench: Bench) -> None:
    """Lose all that the server holds, as the core then makes it anew."""
    await bench.admin.flushall()
    await functions.load_functions(bench.admin)
    await functions.ensure_groups(bench.admin, RAIL)


@pytest.mark.parametrize("alone", [False, True])
async def test_a_permit_given_unread_is_used_though_a_wiped_server_lost_its_entry(bench: Bench, alone: bool) -> None:
    job, rail = a_job(), ScriptedRail(pays)
    bench.core.know(job)
    await bench.send(job)
    if alone:
        await bench.admin.xreadgroup("adapters", "dead", {jobs_stream(RAIL): ">"})
    bench.core.lose_replies = 1_000
    worker = await bench.work(rail)
    await until(lambda: bench.core.asked_times >= 4)
    await wiped(bench)
    # Long enough for heartbeats to find the entry gone.
    await until(lambda: not worker.jobs.consumer.held)
    bench.core.lose_replies = 0
    [result] = await bench.results(1)
    assert (result.verdict, result.fence) == (Verdict.SUCCEEDED, 1)
    assert [name for name, _ in rail.calls] == ["pay"]
    assert len({Sending.of(each).asking for each in bench.core.request_ids}) == 1
    await until(lambda: worker.jobs.guard.in_flight == 0)
