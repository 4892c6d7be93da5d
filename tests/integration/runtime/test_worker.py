"""The worker against a real Valkey and a core that answers over real sockets."""

import asyncio
import os
import signal
import sys
from typing import Any

import pytest
from redis.asyncio import Redis

from adapters.runtime.concurrency import AdaptiveLimit
from adapters.runtime.core_client import Asking, CoreClient
from adapters.runtime.errors import Indeterminate, NotSent, Rejected
from adapters.runtime.port import Order, Outcome
from adapters.testkit.permit_server import KEY_ID, SECRET
from schemas.collections import Received
from schemas.envelope import raw_fields
from schemas.operations import JobKind
from schemas.permits import Sending
from schemas.results import Basis, Verdict
from schemas.streams import ADAPTERS_GROUP, control_stream, jobs_dlq_stream, jobs_stream, results_stream
from tests.integration.runtime.conftest import PAID, RAIL, Bench, ScriptedRail, a_job, pays
from tests.support.servers import BOTH_FAMILIES
from tests.support.waiting import PATIENCE_S, until, until_async
from wire.acl import apply_acl


async def test_a_permitted_payment_is_made_once_and_its_verdict_published(bench: Bench) -> None:
    job, rail = a_job(), ScriptedRail(pays)
    bench.core.know(job)
    await bench.work(rail)
    await bench.send(job)
    [result] = await bench.results(1)
    assert (result.verdict, result.basis, result.fence) == (Verdict.SUCCEEDED, Basis.SUBMISSION, 1)
    assert result.amount_minor == 12_500
    assert [call for call, _ in rail.calls] == ["pay"]
    assert await bench.pending() == 0


async def test_a_few_payments_do_not_wait_for_the_permits_of_those_before_them(bench: Bench) -> None:
    first, second = a_job(), a_job()
    for job in (first, second):
        bench.core.know(job)
    bench.core.holds[first.job_id] = asyncio.Event()
    await bench.work(ScriptedRail(pays))
    await bench.send(first)
    await until(lambda: bench.core.asked_times >= 1)
    await bench.send(second)
    assert [result.job_id for result in await bench.results(1)] == [second.job_id]
    bench.core.holds[first.job_id].set()
    assert {result.job_id for result in await bench.results(2)} == {first.job_id, second.job_id}


async def test_what_nobody_foresaw_while_permits_are_asked_for_ends_the_lane(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object) -> None:
        raise KeyError("nobody foresaw this")

    job = a_job()
    bench.core.know(job)
    worker = await bench.work(ScriptedRail(pays))
    monkeypatch.setattr(worker.jobs, "_permits_of", breaks)
    await bench.send(job)
    assert worker.jobs._asking is not None
    with pytest.raises(KeyError):
        await asyncio.wait_for(worker.jobs._asking, PATIENCE_S)


@pytest.mark.parametrize(
    ("raised", "verdict"),
    [
        (Rejected("payee_not_found"), Verdict.DECLINED),
        (NotSent("no connection"), Verdict.NOT_SENT),
        (Indeterminate("reset"), Verdict.UNKNOWN),
        (RuntimeError("a bug"), Verdict.UNKNOWN),
    ],
)
async def test_an_error_becomes_what_is_known_about_the_money(
    bench: Bench, raised: Exception, verdict: Verdict
) -> None:
    async def fails(_: Order) -> Outcome:
        raise raised

    job = a_job()
    bench.core.know(job)
    await bench.work(ScriptedRail(fails))
    await bench.send(job)
    [result] = await bench.results(1)
    assert result.verdict is verdict


async def test_payments_that_one_result_cannot_carry_reach_the_core_before_it(bench: Bench) -> None:
    further = [Received(transaction_id=f"T{at}", amount_minor=at, currency="THB") for at in range(1, 31)]

    async def many(_: Order) -> Outcome:
        return PAID._replace(further=further)

    taken, refused = a_job(), a_job()
    for job in (taken, refused):
        bench.core.know(job)
    await bench.work(ScriptedRail(many))
    await bench.send(taken)
    [result] = await bench.results(1)
    assert (result.verdict, result.provider_tx_id, result.further) == (Verdict.SUCCEEDED, "tx-1", None)
    told = [fact.transaction_id for fact in bench.core.payments]
    assert told == ["tx-1", *(each.transaction_id for each in further)]
    bench.core.refuse_payments = True
    await bench.send(refused)
    lost = (await bench.results(2))[1]
    assert (lost.verdict, lost.reason, lost.amount_minor) == (Verdict.UNKNOWN, "payments_not_taken", None)


async def test_a_call_beyond_its_total_time_is_unknown(bench: Bench) -> None:
    async def hangs(_: Order) -> Outcome:
        await asyncio.sleep(30)
        return PAID

    job = a_job()
    bench.core.know(job)
    await bench.work(ScriptedRail(hangs))
    await bench.send(job)
    [result] = await bench.results(1)
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, "call_timed_out")


async def test_an_amount_that_is_not_the_permits_is_dead_lettered_and_never_sent(bench: Bench) -> None:
    job, rail = a_job(), ScriptedRail(pays)
    bench.core.know(job, amount_minor=99_900)
    await bench.work(rail)
    await bench.send(job)
    [letter] = await bench.dead(1)
    assert (letter.error_class, letter.job_id) == ("permit_mismatch", job.job_id)
    assert rail.calls == []


async def test_a_permit_that_lapsed_is_not_used(bench: Bench) -> None:
    job, rail = a_job(), ScriptedRail(pays)
    bench.core.know(job, send_by_s=0.000001)
    await bench.work(rail)
    await bench.send(job)
    [result] = await bench.results(1)
    assert (result.verdict, result.reason, result.fence) == (Verdict.NOT_SENT, "permit_lapsed", 1)
    assert rail.calls == []


async def test_a_closed_job_is_acked_and_an_unknown_one_dead_lettered(bench: Bench) -> None:
    closed, unknown, rail = a_job(), a_job(), ScriptedRail(pays)
    bench.core.know(closed, answer="CLOSED", reason="voided")
    await bench.work(rail)
    await bench.send(closed, unknown)
    [letter] = await bench.dead(1)
    assert (letter.error_class, letter.job_id) == ("permit_not_found", unknown.job_id)
    await asyncio.sleep(0.2)
    assert await bench.pending() == 0
    assert rail.calls == []


async def test_a_paused_job_waits_without_counting_deliveries_and_then_runs(bench: Bench) -> None:
    job, rail = a_job(), ScriptedRail(pays)
    bench.core.know(job, answer="PAUSED", after_s=0.05)
    await bench.work(rail)
    await bench.send(job)
    # More often than an entry may be delivered before it is dead-lettered.
    await asked(bench, 5)
    assert rail.calls == []
    assert await bench.admin.xlen(jobs_dlq_stream(RAIL)) == 0
    del bench.core.script[job.job_id]
    [result] = await bench.results(1)
    assert result.verdict is Verdict.SUCCEEDED


async def test_while_the_core_is_away_nothing_is_sent_and_nothing_is_lost(bench: Bench) -> None:
    jobs, rail = [a_job() for _ in range(5)], ScriptedRail(pays)
    for job in jobs:
        bench.core.know(job)
    bench.core.away = True
    await bench.work(rail)
    await bench.send(*jobs)
    await asked(bench, 6)
    assert rail.calls == []
    assert await bench.admin.xlen(jobs_dlq_stream(RAIL)) == 0
    bench.core.away = False
    assert {result.verdict for result in await bench.results(5)} == {Verdict.SUCCEEDED}
    assert len(rail.calls) == 5


async def test_a_lost_reply_is_asked_again_under_the_same_request_id(bench: Bench) -> None:
    job, rail = a_job(), ScriptedRail(pays)
    bench.core.know(job)
    bench.core.lose_replies = 1
    await bench.work(rail)
    await bench.send(job)
    [result] = await bench.results(1)
    first, second = map(Sending.of, bench.core.request_ids)
    assert (second.asking, second.number) == (first.asking, first.number + 1)
    assert result.fence == 1


async def test_a_reply_that_stays_lost_is_asked_again_under_the_same_request_id_until_it_is_read(bench: Bench) -> None:
    jobs, rail = [a_job() for _ in range(3)], ScriptedRail(pays)
    for job in jobs:
        bench.core.know(job)
    bench.core.lose_replies = 8
    await bench.work(rail)
    await bench.send(*jobs)
    results = await bench.results(3)
    sendings = list(map(Sending.of, bench.core.request_ids))
    assert [each.number for each in sendings] == list(range(1, len(sendings) + 1))
    assert len(sendings) >= 9
    assert len({each.asking for each in sendings}) == 1, "asked anew, what was granted could only be asked about"
    assert [result.fence for result in results] == [1] * 3
    assert len(rail.calls) == 3


async def test_s_runs_from_sending_the_request_that_was_answered(bench: Bench) -> None:
    job = a_job()
    bench.core.know(job)
    bench.core.lose_replies = 1
    core = CoreClient(bench.core.url, key_id=KEY_ID, secret=SECRET, timeout_s=0.5, budget_s=1.0)
    reply = await core.request([job.job_id], Asking())
    await core.close()
    first_s, second_s = bench.core.asked_at_s
    assert first_s < reply.sent_at_s <= second_s


async def test_a_poison_entry_is_dead_lettered_and_its_neighbours_run(bench: Bench) -> None:
    job, rail = a_job(), ScriptedRail(pays)
    bench.core.know(job)
    await bench.admin.xadd(jobs_stream(RAIL), {"v": "1", "id": "x", "type": "job", "body": "{garbage"})
    await bench.admin.xadd(jobs_stream(RAIL), {"nothing": "here"})
    await bench.work(rail)
    await bench.send(job)
    assert {letter.error_class for letter in await bench.dead(2)} == {"poison"}
    assert len(await bench.results(1)) == 1
    assert await bench.pending() == 0


@pytest.mark.parametrize("stream", [jobs_stream(RAIL), control_stream(RAIL)])
async def test_a_newer_schema_version_waits_for_a_newer_adapter_and_past_a_bound_goes_to_the_core_whole(
    bench: Bench, stream: str
) -> None:
    fields = {"v": "2", "id": "x", "new": "field"}
    await bench.admin.xadd(stream, dict[Any, Any](fields), id="1-1")
    young = await bench.admin.xadd(stream, dict[Any, Any](fields))
    await bench.work(ScriptedRail(pays))
    [letter] = await bench.dead(1)
    assert (letter.error_class, letter.stream, letter.entry_id) == ("unknown_version", stream, "1-1")
    assert raw_fields(letter.body) == {name.encode(): value.encode() for name, value in fields.items()}
    await asyncio.sleep(0.5)
    assert await bench.admin.xlen(jobs_dlq_stream(RAIL)) == 1

    async def as_if_never_delivered() -> bool:
        [waiting] = await bench.admin.xpending_range(stream, ADAPTERS_GROUP, "-", "+", 10)
        assert waiting["message_id"] == young
        return bool(waiting["times_delivered"] == 0)

    await until_async(as_if_never_delivered)  # in the worker's hands it counts as delivered once
    assert bench.core.request_ids == []


async def test_an_entry_delivered_too_often_is_dead_lettered_without_a_permit(bench: Bench) -> None:
    job, rail = a_job(), ScriptedRail(pays)
    bench.core.know(job)
    await bench.send(job)
    read: Any = await bench.admin.xreadgroup(ADAPTERS_GROUP, "dead", {jobs_stream(RAIL): ">"})
    [(_, [(entry, _)])] = read
    await bench.admin.xclaim(
        jobs_stream(RAIL), ADAPTERS_GROUP, "dead", 0, [entry], idle=60_000, retrycount=3, justid=True
    )
    await bench.work(rail)
    [letter] = await bench.dead(1)
    assert (letter.error_class, letter.deliveries) == ("deliveries_exhausted", 4)
    assert bench.core.granted == []


async def test_second_deliveries_run_one_at_a_time(bench: Bench) -> None:
    async def slow(_: Order) -> Outcome:
        await asyncio.sleep(0.05)
        return PAID

    jobs, rail = [a_job() for _ in range(4)], ScriptedRail(slow)
    for job in jobs:
        bench.core.know(job)
    await bench.send(*jobs)
    stream = jobs_stream(RAIL)
    read: Any = await bench.admin.xreadgroup(ADAPTERS_GROUP, "dead", {stream: ">"})
    ids = [entry for entry, _ in read[0][1]]
    await bench.admin.xclaim(stream, ADAPTERS_GROUP, "dead", 0, ids, idle=60_000, retrycount=1, justid=True)
    await bench.work(rail)
    await bench.results(4)
    assert rail.most_running == 1


async def test_what_waits_behind_a_second_delivery_is_not_counted_so_that_a_crash_buries_the_running_one_alone(
    bench: Bench,
) -> None:
    may_end = asyncio.Event()

    async def hangs(_: Order) -> Outcome:
        await may_end.wait()
        return PAID

    jobs, rail = [a_job() for _ in range(3)], ScriptedRail(hangs)
    for job in jobs:
        bench.core.know(job)
    await bench.send(*jobs)
    stream = jobs_stream(RAIL)
    read: Any = await bench.admin.xreadgroup(ADAPTERS_GROUP, "dead", {stream: ">"})
    ids = [entry for entry, _ in read[0][1]]
    # Delivered twice already: counted once more each, the next death but one of the adapter would bury all three.
    await bench.admin.xclaim(stream, ADAPTERS_GROUP, "dead", 0, ids, idle=60_000, retrycount=2, justid=True)
    await bench.work(rail)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            pending = await bench.admin.xpending_range(stream, ADAPTERS_GROUP, "-", "+", 10)
            if rail.most_running == 1 and sorted(each["times_delivered"] for each in pending) == [2, 2, 3]:
                break
            await asyncio.sleep(0.02)
    may_end.set()
    assert len(await bench.results(3)) == 3
    assert rail.most_running == 1


async def test_a_redelivered_payment_is_asked_about_before_it_is_sent(bench: Bench) -> None:
    job, rail = a_job(), ScriptedRail(pays)
    bench.core.know(job)
    bench.core.fences[job.job_id] = 1
    await bench.work(rail)
    await bench.send(job)
    [result] = await bench.results(1)
    assert (result.basis, result.fence) == (Basis.REFERENCE_STATUS, 2)
    assert [call for call, _ in rail.calls] == ["inquire"]


async def test_an_inquiry_on_the_control_stream_speaks_of_its_targets_reference(bench: Bench) -> None:
    job, rail = a_job(JobKind.INQUIRE), ScriptedRail(pays)
    bench.core.know(job, instruction={"target_reference": "TARGET"})
    await bench.work(rail)
    await bench.send(job)
    [result] = await bench.results(1)
    assert (result.basis, result.reference) == (Basis.REFERENCE_STATUS, "TARGET")
    assert rail.calls == [("inquire", "TARGET")]


async def test_a_payees_name_goes_to_the_core_and_only_masked_into_the_stream(bench: Bench) -> None:
    job, rail = a_job(JobKind.LOOKUP), ScriptedRail(pays)
    bench.core.know(job)
    await bench.work(rail)
    await bench.send(job)
    [result] = await bench.results(1)
    assert (result.verdict, result.payee_name_masked) == (Verdict.FOUND, "S*** J***")
    [item] = bench.core.evidence
    assert (item.id, item.payee_name) == (result.evidence_id, "Somchai Jaidee")


async def test_without_evidence_money_is_still_told_and_a_lookup_is_repeated(bench: Bench) -> None:
    async def with_evidence(_: Order) -> Outcome:
        return Outcome(Verdict.SUCCEEDED, amount_minor=12_500, currency="THB", evidence="{}")

    pay, look, rail = a_job(), a_job(JobKind.LOOKUP), ScriptedRail(with_evidence)
    bench.core.know(pay)
    bench.core.know(look)
    bench.core.refuse_evidence = True
    await bench.work(rail)
    await bench.send(pay, look)
    by_job = {result.job_id: result for result in await bench.results(2)}
    assert by_job[pay.job_id].verdict is Verdict.SUCCEEDED
    assert by_job[look.job_id].verdict is Verdict.NOT_SENT
    assert by_job[look.job_id].reason == "evidence_not_kept"
    bench.core.refuse_evidence = False


async def test_a_drain_finishes_what_runs_and_releases_what_does_not(bench: Bench) -> None:
    async def slow(_: Order) -> Outcome:
        await asyncio.sleep(0.3)
        return PAID

    jobs, rail = [a_job() for _ in range(12)], ScriptedRail(slow)
    for job in jobs:
        bench.core.know(job)
    worker = await bench.work(rail, concurrency=12)
    worker.jobs.guard._limit = AdaptiveLimit(2, 2)
    await bench.send(*jobs)
    async with asyncio.timeout(PATIENCE_S):
        while not rail.calls:  # noqa: ASYNC110 - bounded by the time-out
            await asyncio.sleep(0.01)
    await worker.drain(2)
    done = len(rail.calls)
    assert await bench.admin.xlen(results_stream(RAIL)) == done < 12
    left = await bench.admin.xpending_range(jobs_stream(RAIL), ADAPTERS_GROUP, "-", "+", 50)
    assert [entry["times_delivered"] for entry in left] == [0] * len(left)


async def asked(bench: Bench, times: int) -> None:
    """Wait until permits were asked for that often, answered or not."""
    async with asyncio.timeout(PATIENCE_S):
        while bench.core.asked_times < times:  # noqa: ASYNC110 - bounded by the time-out
            await asyncio.sleep(0.01)


async def _noop(bench: Bench, name: str, **more: str) -> asyncio.subprocess.Process:
    await apply_acl(bench.admin, "noop", "pw", "noop")
    address = bench.url.split("@")[-1].removeprefix("redis://")
    environment = {
        **os.environ,
        "REDIS_URL": f"redis://noop:pw@{address}",
        "CORE_INTERNAL_URL": bench.core.url,
        "CORE_KEY_ID": KEY_ID,
        "CORE_KEY_SECRET": SECRET,
        "CONSUMER_NAME": name,
        "FLEET_SEND_BY_S": "0.5",
        "FLEET_CALL_TOTAL_S": "1",
        "FLEET_CLAIM_IDLE_S": "2",
        "FLEET_BATCH": "20",
        "FLEET_CONCURRENCY": "20",
        **more,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "adapters.noop", env=environment, stderr=asyncio.subprocess.PIPE
    )


@BOTH_FAMILIES
async def test_a_killed_adapter_leaves_its_job_to_another_that_inquires(bench: Bench) -> None:
    job = a_job(rail="noop")
    bench.core.know(job)
    await bench.send(job)
    first = await _noop(bench, "one", FLEET_FAILPOINTS="adapter.during_call=kill", NOOP_DELAY_MS="500")
    assert await asyncio.wait_for(first.wait(), PATIENCE_S) == -signal.SIGKILL
    second = await _noop(bench, "two")
    try:
        [result] = await bench.results(1, rail="noop")
        assert (result.verdict, result.fence) == (Verdict.NOT_FOUND, 2)
        assert result.basis is Basis.REFERENCE_STATUS
        assert [mode for _, mode in bench.core.granted] == ["SEND", "INQUIRE_ONLY"]
    finally:
        second.terminate()
        assert await asyncio.wait_for(second.wait(), PATIENCE_S) == 0
    assert await bench.pending("noop") == 0


@BOTH_FAMILIES
async def test_sigterm_loses_nothing_under_the_adapters_own_user(bench: Bench) -> None:
    jobs = [a_job(rail="noop") for _ in range(30)]
    for job in jobs:
        bench.core.know(job)
    adapter = await _noop(bench, "one", NOOP_DELAY_MS="200")
    await bench.send(*jobs)
    await bench.results(1, rail="noop")
    adapter.terminate()
    assert await asyncio.wait_for(adapter.wait(), PATIENCE_S) == 0
    told = await bench.admin.xlen(results_stream("noop"))
    assert told + await bench.pending("noop") + await _lag(bench.admin) == 30
    assert told == len(bench.core.granted)


async def _lag(admin: Redis) -> int:
    [group] = await admin.xinfo_groups(jobs_stream("noop"))
    return int(group["lag"])


async def test_a_timing_that_cannot_be_safe_is_refused_with_the_numbers(bench: Bench) -> None:
    adapter = await _noop(bench, "one", FLEET_CLAIM_IDLE_S="1.2")
    _, told = await asyncio.wait_for(adapter.communicate(), PATIENCE_S)
    assert adapter.returncode == 78
    assert b"0.5 s + 1.0 s is not below 1.2 s" in told
    assert told.count(b"\n") == 1


async def test_an_answer_that_is_none_of_the_cores_is_asked_for_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A front's page with status 200 ended the asking for good, and the process looked well."""
    job = a_job()
    bench.core.know(job)
    await bench.work(ScriptedRail(pays))
    core = bench.started[0][2]
    answers = [b"<html>maintenance</html>"]

    async def call(method: str, path: str, body: bytes) -> bytes:
        if path.endswith("/permits") and answers:
            return answers.pop()
        return await real(method, path, body)

    real = core._call
    monkeypatch.setattr(core, "_call", call)
    await bench.send(job)
    [result] = await bench.results(1)
    assert result.verdict is Verdict.SUCCEEDED
