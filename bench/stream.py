"""The stream leg: the adapters' runtime with a no-op provider and permits of its own process, beside raw redis-py."""

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from redis.asyncio import Redis

from adapters.noop.adapter import NoopRail, NoopSettings
from adapters.runtime.core_client import Asking, PermitReply
from adapters.runtime.timing import clock_s
from adapters.runtime.worker import Worker, WorkerSettings
from bench.measurement import Measurement, at_least, shown
from bench.peers import PEERS
from fleet.stack.valkey import EmbeddedValkey
from schemas.collections import PaymentFate, ProviderPaymentAnswers, ProviderPaymentBatch
from schemas.envelope import Envelope
from schemas.jobs import JOB_TYPE, Job
from schemas.operations import JobKind, OperationType
from schemas.permits import Granted, Instruction, Payee, PermitMode
from schemas.rails import EvidenceItem, Timing
from schemas.streams import ADAPTERS_GROUP, jobs_stream, results_stream
from wire import functions
from wire.client import StreamServers, connect_redis
from wire.memory import settle_memory

RAIL = "noop"
_PEER_JOBS = 3_000
_ROUNDS = 3
_ROOT = Path(__file__).parent.parent


_INSTRUCTION = Instruction(payee=Payee(type="any", value="someone"))


class Leg(NamedTuple):
    """What one run over all jobs reached: jobs per second, and microseconds of our process's CPU a job."""

    rate: float
    cpu_us: float


class Stopwatch:
    """Runs from its making; `lap` says what it took."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def lap(self, jobs: int) -> Leg:
        """Return the leg that ended now, after so many jobs."""
        wall_s, cpu_s = time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s
        return Leg(jobs / wall_s, 1e6 * cpu_s / jobs)


class OwnPermits:
    """Grants every job at once, in this process. Its answers lie ready: what a core costs the whole loop measures."""

    def __init__(self, job_ids: Sequence[UUID]) -> None:
        self._ready = {job_id: _granted(job_id) for job_id in job_ids}

    async def request(self, job_ids: Sequence[UUID], asking: Asking) -> PermitReply:  # noqa: ARG002 - the port's
        """Return one SEND permit a job."""
        return PermitReply([self._ready[job_id] for job_id in job_ids], clock_s())


class NothingLearned:
    """The no-op rail brings verdicts alone."""

    async def post_evidence(self, items: Sequence[EvidenceItem]) -> None:
        """Keep nothing."""

    async def post_payments(self, batch: ProviderPaymentBatch) -> ProviderPaymentAnswers:
        """Take nothing."""
        return ProviderPaymentAnswers(fates=[PaymentFate.NOTED] * len(batch.facts))


async def run(jobs: int = 20_000) -> list[Measurement]:
    """Measure the runtime, raw redis-py, and each peer that is installed."""
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as home:
        server = EmbeddedValkey(Path(home))
        url = os.environ.get("REDIS_URL", "")
        if not url:
            server.start()
            url = server.admin_url
        # As every adapter's main program does; it serves the raw loop as well.
        settle_memory()
        try:
            # In turns, so that what else the machine does meets both alike.
            rounds = [(await _raw(url, jobs), await _ours(url, jobs)) for _ in range(_ROUNDS)]
            peers = {name: await asyncio.to_thread(_peer, name, url) for name in PEERS}
        finally:
            server.stop()
    known = {name: rate for name, rate in peers.items() if rate is not None}
    raw, ours = (max(leg.rate for leg in legs) for legs in zip(*rounds, strict=True))
    found = [
        shown("raw redis-py, 500 a read, pipelined", raw, "jobs/s"),
        shown("raw redis-py, CPU of its process", min(leg.cpu_us for leg, _ in rounds), "us/job"),
        shown("runtime, no-op provider, own permits", ours, "jobs/s"),
        shown("runtime, CPU of its process", min(leg.cpu_us for _, leg in rounds), "us/job"),
        at_least(
            f"runtime against raw, median of {_ROUNDS} rounds", median(b.rate / a.rate for a, b in rounds), "x", 0.8
        ),
        *(shown(f"peer {name}", rate, "jobs/s") for name, rate in known.items()),
    ]
    if known:
        found.append(at_least("runtime against the best peer", ours / max(known.values()), "x", 8))
    missing = sorted(peers.keys() - known.keys())
    if missing:
        hint = "python3 -m venv .venv-peers && .venv-peers/bin/pip install --require-hashes -r requirements/peers.txt"
        found.append(Measurement(f"not measured: {', '.join(missing)} ({hint})", 0, "", "", None))
    return found


async def _fill(client: Redis, jobs: int) -> list[UUID]:
    await client.flushall()
    await functions.load_functions(client)
    await functions.ensure_groups(client, RAIL)
    deadline = datetime.now(UTC) + timedelta(hours=1)
    job_ids = [uuid4() for _ in range(jobs)]
    for at in range(0, jobs, 1000):
        page = [_envelope(job_id, deadline) for job_id in job_ids[at : at + 1000]]
        await functions.dispatch(client, jobs_stream(RAIL), page)
    return job_ids


def _envelope(job_id: UUID, deadline: datetime) -> Envelope:
    job = Job(
        job_id=job_id,
        tenant_id=job_id,
        intent_id=job_id,
        rail=RAIL,
        provider=RAIL,
        operation=OperationType.PAYOUT,
        kind=JobKind.PAY,
        amount_minor=100,
        currency="THB",
        deadline=deadline,
    )
    return Envelope(str(job_id), JOB_TYPE, job.model_dump_json())


def _granted(job_id: UUID) -> Granted:
    return Granted(
        job_id=job_id,
        kind=JobKind.PAY,
        mode=PermitMode.SEND,
        fence=1,
        first=True,
        send_by_s=5,
        reference=job_id.hex[:24].upper(),
        amount_minor=100,
        currency="THB",
        provider_account=RAIL,
        environment="sandbox",
        instruction=_INSTRUCTION,
    )


async def _ours(url: str, jobs: int) -> Leg:
    servers = StreamServers(url, "bench")
    client = servers.of(RAIL)
    permits = OwnPermits(await _fill(client, jobs))
    rail = NoopRail(Timing(send_by_s=5, call_total_s=10, claim_idle_s=60), NoopSettings())
    settings = WorkerSettings("bench", uuid4(), batch=500, concurrency=500, block_ms=100)
    worker = Worker(rail, servers, permits, NothingLearned(), settings)
    watch = Stopwatch()
    worker.start()
    while await client.xlen(results_stream(RAIL)) < jobs:  # noqa: ASYNC110 - the count is the server's
        await asyncio.sleep(0.01)
    leg = watch.lap(jobs)
    await worker.drain(5)
    await servers.aclose()
    return leg


async def _raw(url: str, jobs: int) -> Leg:
    """Read 500, add 500 results and acknowledge 500 in one pipeline: what a careful script would do.

    It does less than the runtime: it parses no job, asks for no permit, makes no verdict, and passes the fields on.
    """
    client = connect_redis(url, "bench")
    await _fill(client, jobs)
    stream, results, done = jobs_stream(RAIL), results_stream(RAIL), 0
    watch = Stopwatch()
    while done < jobs:
        read: Any = await client.xreadgroup(ADAPTERS_GROUP, "raw", {stream: ">"}, count=500)
        [(_, entries)] = read.items() if isinstance(read, dict) else read
        entries = entries[0] if entries and isinstance(entries[0], list) else entries
        pipeline = client.pipeline(transaction=False)
        for entry_id, fields in entries:
            pipeline.xadd(results, fields)
            pipeline.xack(stream, ADAPTERS_GROUP, entry_id)
        await pipeline.execute()
        done += len(entries)
    leg = watch.lap(jobs)
    await client.aclose()
    return leg


def _peer(name: str, url: str) -> float | None:
    """Return the peer's jobs per second, None where it is not installed."""
    python = Path(os.environ.get("BENCH_PEERS_PYTHON", _ROOT / ".venv-peers" / "bin" / "python"))
    if not python.exists():
        return None
    command = [str(python), str(_ROOT / "bench" / "peers.py"), name, url, str(_PEER_JOBS)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return None
    lines = ran.stdout.split()
    return float(lines[-1]) if ran.returncode == 0 and lines else None
