"""The part of the conformance suite about the process: what SIGTERM interrupts is finished, or another's to take."""

# ruff: noqa: S101 - a suite asserts

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from adapters.testkit.known_jobs import AMOUNT_MINOR, Pays, make_known, new_reference, payout, results_of
from adapters.testkit.permit_server import KEY_ID, SECRET, PermitServer
from schemas.envelope import Envelope
from schemas.results import Verdict
from schemas.streams import ADAPTERS_GROUP, jobs_stream, results_stream
from wire import functions
from wire.acl import apply_acl
from wire.client import connect_redis

_JOBS: Final = 12
_WITHIN_S: Final = 40.0


@runtime_checkable
class RunsAsProcess(Pays, Protocol):
    """A harness whose rail can run as `python -m adapters.RAIL` against the same simulator."""

    def environment(self) -> Mapping[str, str]:
        """Return the rail's own settings, as the environment of its process."""
        ...


class ProcessConformance:
    """Every rail with a simulator of its own passes this; its harness is a `RunsAsProcess` too."""

    async def test_sigterm_loses_nothing(self, harness: Any, fresh_redis: str) -> None:
        if getattr(harness, "book_ends_with_its_process", False):
            pytest.skip("the book of this rail is the memory of its process")
        if not isinstance(harness, RunsAsProcess):
            pytest.fail("give the harness `environment()`: a rail runs as a process of its own")
        rail = harness.rail.registration().rail
        admin, core = connect_redis(fresh_redis, "admin"), PermitServer()
        await core.start()
        try:
            await functions.load_functions(admin)
            await functions.ensure_groups(admin, rail)
            jobs = [payout(harness) for _ in range(_JOBS)]
            references = {job.job_id: new_reference(harness) for job in jobs}
            for job in jobs:
                await make_known(harness, core, job, references[job.job_id])
            adapter = await _start(harness, fresh_redis, admin, core)
            envelopes = [Envelope(str(job.job_id), "job", job.model_dump_json()) for job in jobs]
            await functions.dispatch(admin, jobs_stream(rail), envelopes)
            async with asyncio.timeout(_WITHIN_S):
                while not await admin.xlen(results_stream(rail)):  # noqa: ASYNC110 - bounded by the time-out
                    await asyncio.sleep(0.01)
            adapter.terminate()
            assert await asyncio.wait_for(adapter.wait(), _WITHIN_S) == 0
            told = await results_of(admin, rail)
            assert len(told) + await _left(admin, rail) == _JOBS, "every job was told of, or is still to be taken"
            for job in jobs:
                paid = await harness.paid(references[job.job_id])
                verdict = told[job.job_id].verdict if job.job_id in told else None
                assert paid == ([AMOUNT_MINOR] if verdict is Verdict.SUCCEEDED else []), verdict
        finally:
            await core.stop()
            await admin.aclose()


async def _start(
    harness: RunsAsProcess, redis_url: str, admin: Redis, core: PermitServer
) -> asyncio.subprocess.Process:
    rail, user = harness.rail.registration().rail, "conformance"
    await apply_acl(admin, user, "conformance", rail)
    address = redis_url.rsplit("@", maxsplit=1)[-1] if "@" in redis_url else redis_url.rsplit("://", maxsplit=1)[-1]
    environment = {
        **os.environ,
        **harness.environment(),
        "REDIS_URL": f"{urlsplit(redis_url).scheme}://{user}:conformance@{address}",
        "CORE_INTERNAL_URL": core.url,
        "CORE_KEY_ID": KEY_ID,
        "CORE_KEY_SECRET": SECRET,
        "CONSUMER_NAME": user,
        "FLEET_SEND_BY_S": "1",
        "FLEET_CALL_TOTAL_S": "3",
        "FLEET_CLAIM_IDLE_S": "8",
        "FLEET_BATCH": "4",
        "FLEET_CONCURRENCY": "2",
        "FLEET_CONTROL_CONCURRENCY": "2",
    }
    return await asyncio.create_subprocess_exec(sys.executable, "-m", f"adapters.{rail}", env=environment)


async def _left(admin: Redis, rail: str) -> int:
    """Entries that were not read, or were given back."""
    [group] = await admin.xinfo_groups(jobs_stream(rail))
    pending = await admin.xpending(jobs_stream(rail), ADAPTERS_GROUP)
    return int(group["lag"]) + int(pending["pending"])
