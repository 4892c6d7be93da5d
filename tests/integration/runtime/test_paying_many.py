"""Payments that a rail takes in one call, through the whole worker."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from adapters.runtime.port import Order, Outcome
from schemas.operations import JobKind
from schemas.results import Verdict
from tests.integration.runtime.conftest import Bench, ScriptedRail, a_job, pays
from tests.support.waiting import PATIENCE_S


class BulkRail(ScriptedRail):
    """Takes all payments of a permit's answer in one call; every second one has evidence."""

    async def pay_many(self, orders: Sequence[Order]) -> list[Outcome]:
        self.calls += [("pay_many", order.reference) for order in orders]
        paid = [await self.on_pay(order) for order in orders]
        return [each._replace(evidence="{}" if at % 2 else "") for at, each in enumerate(paid)]


async def test_payments_that_are_made_in_one_call_are_each_told_with_their_evidence(bench: Bench) -> None:
    jobs, wrong, asked, rail = [a_job() for _ in range(10)], a_job(), a_job(JobKind.INQUIRE), BulkRail(pays)
    for job in jobs:
        bench.core.know(job)
    bench.core.know(wrong, amount_minor=99_900)
    bench.core.know(asked, instruction={"target_reference": "TARGET"})
    await bench.send(*jobs, wrong, asked)
    await bench.work(rail)
    results = await bench.results(11)
    assert {result.job_id for result in results} == {job.job_id for job in (*jobs, asked)}
    assert {result.verdict for result in results} == {Verdict.SUCCEEDED}
    kept = {item.id for item in bench.core.evidence}
    assert kept == {result.evidence_id for result in results} - {None}
    assert len(kept) == 5
    [letter] = await bench.dead(1)
    assert (letter.error_class, letter.job_id) == ("permit_mismatch", wrong.job_id)
    assert Counter(call for call, _ in rail.calls) == {"pay_many": 10, "inquire": 1}
    async with asyncio.timeout(PATIENCE_S):
        while await bench.pending():  # noqa: ASYNC110 - bounded by the time-out
            await asyncio.sleep(0.02)
