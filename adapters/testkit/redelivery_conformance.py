"""The part of the conformance suite about an entry that comes twice: whoever takes it over asks before it sends.

The first to read it took its permit, and died with it: before a byte had left, or after the provider had paid. The
second is a worker of the runtime with the rail itself. It may send only where the core says so, which knows of every
permit's definite negative or that the provider takes a reference once (protocol.md §3).
"""

# ruff: noqa: S101 - a suite asserts

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from redis.asyncio import Redis

from adapters.runtime.core_client import Asking, CoreClient
from adapters.runtime.execution import Executor
from adapters.runtime.timing import clock_s
from adapters.runtime.worker import Worker, WorkerSettings
from adapters.testkit.known_jobs import AMOUNT_MINOR, Pays, make_known, new_reference, payout, results_of
from adapters.testkit.permit_server import KEY_ID, SECRET, PermitServer
from schemas.envelope import Envelope
from schemas.jobs import Job
from schemas.permits import Granted, PermitMode
from schemas.results import Basis, Result, Verdict
from schemas.streams import ADAPTERS_GROUP, jobs_stream
from wire import functions
from wire.client import StreamServers, connect_redis

_WITHIN_S: Final = 30.0
_DEAD: Final = "dead"


class RedeliveryConformance:
    """Every rail passes this: what it pays again by itself would show in the provider's own book."""

    async def test_a_redelivery_inquires_before_it_sends(self, harness: Any, fresh_redis: str) -> None:
        admin, core = connect_redis(fresh_redis, "admin"), PermitServer()
        await core.start()
        try:
            paid, unsent, refused = jobs = [payout(harness) for _ in range(3)]
            references = {job.job_id: new_reference(harness) for job in jobs}
            for job in jobs:
                await make_known(harness, core, job, references[job.job_id])
            await _read_by_one_that_dies(harness, admin, core, jobs, pays=paid)
            core.script[refused.job_id]["mode"] = PermitMode.SEND  # its first permit has a definite negative
            async with _second(harness, fresh_redis, core):
                told = await _all_told(harness, admin, jobs)
            book = {job.job_id: await harness.paid(references[job.job_id]) for job in jobs}
        finally:
            await core.stop()
            await admin.aclose()
        assert {job.job_id: told[job.job_id].fence for job in jobs} == {job.job_id: 2 for job in jobs}
        assert book[unsent.job_id] == [], "what had a permit was sent again without being asked about"
        assert told[unsent.job_id].verdict in (Verdict.NOT_FOUND, Verdict.UNKNOWN)
        assert told[unsent.job_id].basis is Basis.REFERENCE_STATUS
        assert book[paid.job_id] == [AMOUNT_MINOR], "it is paid once, whoever asks about it"
        assert (told[paid.job_id].verdict, told[paid.job_id].basis) == (Verdict.SUCCEEDED, Basis.REFERENCE_STATUS)
        assert book[refused.job_id] == [AMOUNT_MINOR], "where the core lets it send again, it is sent"
        assert told[refused.job_id].verdict is Verdict.SUCCEEDED


async def _read_by_one_that_dies(
    harness: Pays, admin: Redis, core: PermitServer, jobs: Sequence[Job], *, pays: Job
) -> None:
    """Deliver the jobs to one that takes their permits, has one paid, and is never heard of again."""
    registration = harness.rail.registration()
    stream = jobs_stream(registration.rail)
    await functions.load_functions(admin)
    await functions.ensure_groups(admin, registration.rail)
    envelopes = [Envelope(str(job.job_id), "job", job.model_dump_json()) for job in jobs]
    entries = await functions.dispatch(admin, stream, envelopes)
    await admin.xreadgroup(ADAPTERS_GROUP, _DEAD, {stream: ">"}, count=len(jobs))
    client = CoreClient(core.url, key_id=KEY_ID, secret=SECRET)
    reply = await client.request([job.job_id for job in jobs], Asking())
    await client.close()
    [granted] = [each for each in reply.answers if each.job_id == pays.job_id]
    assert isinstance(granted, Granted)
    executor = Executor(harness.rail, registration.rail, registration.timing.call_total_s)
    if executor.pays_together(granted):
        await executor.execute_many([granted], clock_s())
    else:
        await executor.execute(granted, clock_s())
    idle_ms = int(registration.timing.claim_idle_s * 1000)
    await admin.xclaim(stream, ADAPTERS_GROUP, _DEAD, 0, entries, idle=idle_ms, justid=True)  # type: ignore[arg-type]


@asynccontextmanager
async def _second(harness: Pays, redis_url: str, core: PermitServer) -> AsyncIterator[None]:
    """Another instance of the adapter, which finds what the dead one holds."""
    servers, client = StreamServers(redis_url, "second"), CoreClient(core.url, key_id=KEY_ID, secret=SECRET)
    settings = WorkerSettings("second", client.incarnation, 1, 1, control_concurrency=1, block_ms=50)
    worker = Worker(harness.rail, servers, client, client, settings)
    worker.start()
    try:
        yield
    finally:
        await worker.drain(5)
        await servers.aclose()
        await client.close()


async def _all_told(harness: Pays, admin: Redis, jobs: Sequence[Job]) -> dict[UUID, Result]:
    rail = harness.rail.registration().rail
    async with asyncio.timeout(_WITHIN_S):
        while len(told := await results_of(admin, rail)) < len(jobs):  # noqa: ASYNC110 - bounded by the time-out
            await asyncio.sleep(0.02)
    return told
