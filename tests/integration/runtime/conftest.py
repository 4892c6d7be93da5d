"""A worker's world: a real Valkey, a core that answers over real sockets, and a rail that does what a test says."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from adapters.runtime.core_client import CoreClient
from adapters.runtime.port import Order, Outcome
from adapters.runtime.worker import Worker, WorkerSettings
from adapters.testkit.permit_server import KEY_ID, SECRET, PermitServer
from schemas.dead_letters import DeadLetter
from schemas.envelope import Envelope
from schemas.ids import mint_id
from schemas.jobs import Job
from schemas.operations import JobKind, OperationType
from schemas.rails import Capabilities, PayeeType, RailRegistration, Timing
from schemas.results import Result, Verdict
from schemas.streams import ADAPTERS_GROUP, control_stream, jobs_dlq_stream, jobs_stream, results_stream
from tests.support.waiting import PATIENCE_S
from wire import functions
from wire.client import StreamServers, connect_redis

RAIL = "scripted"
PAID = Outcome(Verdict.SUCCEEDED, amount_minor=12_500, currency="THB", provider_tx_id="tx-1")


@dataclass
class ScriptedRail:
    """A rail whose every call does what the test says, and which remembers what it was asked."""

    on_pay: Callable[[Order], Awaitable[Outcome]]
    calls: list[tuple[str, str]] = field(default_factory=list)
    idle_s: float = 1.0
    running: int = 0
    most_running: int = 0
    name: str = RAIL
    call_s: float = 0.4

    def registration(self) -> RailRegistration:
        capabilities = Capabilities(inquiry=True, not_found_horizon_s=60, max_amount_minor=10**9, currencies=["THB"])
        return RailRegistration(
            rail=self.name,
            provider="scripted",
            provider_account="acct",
            operations={OperationType.PAYOUT: capabilities},
            payee_types={"any": PayeeType(pattern=".+", example="x", remedy="write it")},
            timing=Timing(send_by_s=0.3, call_total_s=self.call_s, claim_idle_s=self.idle_s),
        )

    async def pay(self, order: Order) -> Outcome:
        self.calls.append(("pay", order.reference))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self.on_pay(order)
        finally:
            self.running -= 1

    async def lookup(self, order: Order) -> Outcome:
        self.calls.append(("lookup", order.reference))
        return Outcome(Verdict.FOUND, payee_name="Somchai Jaidee", evidence="{}")

    async def inquire(self, order: Order) -> Outcome:
        self.calls.append(("inquire", order.reference))
        return PAID

    async def close(self) -> None:
        pass


async def pays(_: Order) -> Outcome:
    return PAID


def a_job(kind: JobKind = JobKind.PAY, amount_minor: int = 12_500, rail: str = RAIL) -> Job:
    now = datetime.now(UTC)
    return Job(
        job_id=mint_id(int(now.timestamp() * 1000)),
        tenant_id=uuid.uuid4(),
        intent_id=uuid.uuid4(),
        rail=rail,
        provider="scripted",
        operation=OperationType.PAYOUT,
        kind=kind,
        amount_minor=amount_minor,
        currency="THB",
        deadline=now + timedelta(minutes=5),
    )


@dataclass
class Bench:
    admin: Redis
    core: PermitServer
    url: str
    started: list[tuple[Worker, StreamServers, CoreClient]] = field(default_factory=list)

    async def work(self, rail: ScriptedRail, name: str = "a", concurrency: int = 20, **more: Any) -> Worker:
        servers = StreamServers(self.url, name)
        core = CoreClient(self.core.url, key_id=KEY_ID, secret=SECRET, timeout_s=0.5, budget_s=1.0)
        settings = WorkerSettings(name, core.incarnation, 20, concurrency, block_ms=50, evidence_within_s=0.3, **more)
        worker = Worker(rail, servers, core, core, settings)
        worker.start()
        self.started.append((worker, servers, core))
        return worker

    async def send(self, *jobs: Job, stream: str = "") -> None:
        for job in jobs:
            where = stream or (control_stream if job.kind.on_control_stream else jobs_stream)(job.rail)
            await functions.dispatch(self.admin, where, [Envelope(str(job.job_id), "job", job.model_dump_json())])

    async def results(self, count: int, rail: str = RAIL) -> list[Result]:
        raw = await self._bodies(results_stream(rail), count)
        return [Result.model_validate_json(body) for body in raw]

    async def dead(self, count: int) -> list[DeadLetter]:
        raw = await self._bodies(jobs_dlq_stream(RAIL), count)
        return [DeadLetter.model_validate_json(body) for body in raw]

    async def _bodies(self, stream: str, count: int) -> list[bytes]:
        async with asyncio.timeout(PATIENCE_S):
            while await self.admin.xlen(stream) < count:  # noqa: ASYNC110 - bounded by the time-out
                await asyncio.sleep(0.02)
        found: Any = await self.admin.xrange(stream)
        return [fields[b"body"] for _, fields in found]

    async def pending(self, rail: str = RAIL) -> int:
        found = await self.admin.xpending(jobs_stream(rail), ADAPTERS_GROUP)
        return int(found["pending"])


@pytest.fixture
async def bench(fresh_redis: str) -> AsyncIterator[Bench]:
    admin = connect_redis(fresh_redis, "admin")
    await functions.load_functions(admin)
    for rail in (RAIL, "noop", "neighbour"):
        await functions.ensure_groups(admin, rail)
    core = PermitServer()
    await core.start()
    made = Bench(admin, core, fresh_redis)
    yield made
    for worker, client, spoken in made.started:
        await worker.drain(1)
        await client.aclose()
        await spoken.close()
    await core.stop()
    await admin.aclose()
