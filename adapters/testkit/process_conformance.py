"""The part of the conformance suite about the process: what SIGTERM interrupts is finished, or another's to take."""

# ruff: noqa: S101 - a suite asserts

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, runtime_checkable
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from adapters.runtime.port import Rail
from adapters.testkit.permit_server import KEY_ID, SECRET, PermitServer
from schemas.envelope import Envelope
from schemas.ids import mint_id
from schemas.jobs import Job
from schemas.operations import JobKind, OperationType
from schemas.permits import LookupBinding, Payee
from schemas.results import Result, Verdict
from schemas.streams import ADAPTERS_GROUP, jobs_stream, results_stream
from wire import functions
from wire.acl import apply_acl
from wire.client import connect_redis

_JOBS: Final = 12
_AMOUNT_MINOR: Final = 2_500
_WITHIN_S: Final = 40.0


@runtime_checkable
class RunsAsProcess(Protocol):
    """A harness whose rail can run as `python -m adapters.RAIL` against the same simulator."""

    rail: Rail
    payee: Payee
    currency: str

    def environment(self) -> Mapping[str, str]:
        """Return the rail's own settings, as the environment of its process."""
        ...

    async def prepare(self, amount_minor: int) -> LookupBinding | None:
        """Return the lookup that a payment of this amount needs, if the rail has lookups."""
        ...

    async def paid(self, reference: str) -> list[int]:
        """Return the amounts that the provider's own book shows as paid under the reference."""
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
            jobs = [_job(harness) for _ in range(_JOBS)]
            references = {job.job_id: f"SIGTERM{uuid.uuid4().hex.upper()}"[: _length(harness)] for job in jobs}
            for job in jobs:
                await _known(harness, core, job, references[job.job_id])
            adapter = await _start(harness, fresh_redis, admin, core)
            envelopes = [Envelope(str(job.job_id), "job", job.model_dump_json()) for job in jobs]
            await functions.dispatch(admin, jobs_stream(rail), envelopes)
            async with asyncio.timeout(_WITHIN_S):
                while not await admin.xlen(results_stream(rail)):  # noqa: ASYNC110 - bounded by the time-out
                    await asyncio.sleep(0.01)
            adapter.terminate()
            assert await asyncio.wait_for(adapter.wait(), _WITHIN_S) == 0
            told = await _results(admin, rail)
            assert len(told) + await _left(admin, rail) == _JOBS, "every job was told of, or is still to be taken"
            for job in jobs:
                paid = await harness.paid(references[job.job_id])
                verdict = told[job.job_id].verdict if job.job_id in told else None
                assert paid == ([_AMOUNT_MINOR] if verdict is Verdict.SUCCEEDED else []), verdict
        finally:
            await core.stop()
            await admin.aclose()


def _job(harness: RunsAsProcess) -> Job:
    registration, now = harness.rail.registration(), datetime.now(UTC)
    return Job(
        job_id=mint_id(time.time_ns() // 1_000_000),
        tenant_id=uuid.uuid4(),
        intent_id=uuid.uuid4(),
        rail=registration.rail,
        provider=registration.provider,
        operation=OperationType.PAYOUT,
        kind=JobKind.PAY,
        amount_minor=_AMOUNT_MINOR,
        currency=harness.currency,
        deadline=now + timedelta(minutes=5),
    )


def _length(harness: RunsAsProcess) -> int:
    return min(each.reference_length for each in harness.rail.registration().operations.values())


async def _known(harness: RunsAsProcess, core: PermitServer, job: Job, reference: str) -> None:
    registration, lookup = harness.rail.registration(), await harness.prepare(_AMOUNT_MINOR)
    instruction: dict[str, Any] = {"payee": harness.payee.model_dump(mode="json"), "message": "conformance"}
    if lookup is not None:
        instruction["lookup"] = lookup.model_dump(mode="json")
    core.know(
        job,
        reference=reference,
        provider_account=registration.provider_account,
        environment=registration.environment,
        instruction=instruction,
    )


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


async def _results(admin: Redis, rail: str) -> dict[uuid.UUID, Result]:
    entries: Any = await admin.xrange(results_stream(rail))
    told = [Result.model_validate_json(fields[b"body"]) for _, fields in entries]
    return {result.job_id: result for result in told}


async def _left(admin: Redis, rail: str) -> int:
    """Entries that were not read, or were given back."""
    [group] = await admin.xinfo_groups(jobs_stream(rail))
    pending = await admin.xpending(jobs_stream(rail), ADAPTERS_GROUP)
    return int(group["lag"]) + int(pending["pending"])
