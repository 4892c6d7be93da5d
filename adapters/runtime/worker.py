"""The worker: two lanes of a rail (jobs and control) for each part it reads, so that neither starves the other."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from adapters.runtime.breaker import BreakerSettings
from adapters.runtime.concurrency import AdaptiveLimit
from adapters.runtime.core_client import LearnedPort, PermitPort
from adapters.runtime.evidence import EvidenceKeeper
from adapters.runtime.execution import Executor
from adapters.runtime.guard import Guard
from adapters.runtime.lane import Lane, LaneSettings
from adapters.runtime.port import Rail
from adapters.runtime.rate import RateBucket, RateSettings
from adapters.runtime.timing import check_timing
from schemas.streams import WHOLE, Part, control_stream, jobs_stream, shard_of
from wire.client import StreamServers


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Who works, and how much at once. Durations come from the rail's registration."""

    consumer: str
    incarnation: UUID
    batch: int = 200
    concurrency: int = 100
    control_concurrency: int = 20
    block_ms: int = 2_000
    evidence_within_s: float = 2.0
    evidence_waiting_most: int = 5_000
    least_concurrency: int = 4
    """What the lane of jobs keeps of its concurrency, however much the provider strains."""
    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    rate: RateSettings = field(default_factory=RateSettings)
    parts: Sequence[Part] = (WHOLE,)
    """The parts of the rail that are read; what runs at once is shared by them."""


class Worker:
    """Runs a rail against its streams. Raises TimingRefusedError where its durations cannot be safe."""

    def __init__(
        self, rail: Rail, servers: StreamServers, permits: PermitPort, learned: LearnedPort, settings: WorkerSettings
    ) -> None:
        registration = rail.registration()
        control_batch = min(settings.batch, settings.control_concurrency)
        for batch, concurrency in (
            (settings.batch, settings.concurrency),
            (control_batch, settings.control_concurrency),
        ):
            check_timing(registration, batch=batch, concurrency=concurrency)
        name, timing = registration.rail, registration.timing
        self._executor = Executor(rail, name, timing.call_total_s)
        self._evidence = EvidenceKeeper(
            learned, name, within_s=settings.evidence_within_s, bound=settings.evidence_waiting_most
        )

        def lane(stream: str, batch: int, guard: Guard) -> Lane:
            own = LaneSettings(
                rail=name,
                stream=stream,
                consumer=settings.consumer,
                incarnation=settings.incarnation,
                # What all lanes hold together must be done within I, as if they were one.
                batch=max(1, batch // len(settings.parts)),
                claim_idle_s=timing.claim_idle_s,
                block_ms=settings.block_ms,
            )
            return Lane(servers.of(shard_of(stream)), own, permits, self._executor, self._evidence, learned, guard)

        def bucket(leave: int) -> RateBucket | None:
            return RateBucket(servers.of(name), name, settings.rate, leave=leave) if settings.rate.limited else None

        most, control = settings.concurrency, settings.control_concurrency
        # A tenth of the rate is for the control lane alone: a flood of payments must not keep doubts from ending.
        limit = AdaptiveLimit(settings.least_concurrency, most)
        paying = Guard(name, "jobs", limit, settings.breaker, bucket(max(1, settings.rate.burst // 10)))
        # What was sent is asked about, and buried, however badly the provider does: the core sets the pace of that.
        asking = Guard(name, "control", AdaptiveLimit(control, control), None, bucket(0))
        shards = [part.shard(name) for part in settings.parts]
        self._lanes = [
            *(lane(jobs_stream(shard), settings.batch, paying) for shard in shards),
            *(lane(control_stream(shard), control_batch, asking) for shard in shards),
        ]
        self.jobs = self._lanes[0]

    @property
    def ready(self) -> bool:
        """False while the rail's own settings are what is wrong."""
        return not self._executor.misconfigured

    def start(self) -> list[asyncio.Task[None]]:
        """Begin to work; return the tasks that end by `drain` alone. One that ends by itself leaves its work undone."""
        return [self._evidence.start(), *(task for lane in self._lanes for task in lane.start())]

    async def drain(self, timeout_s: float) -> None:
        """Stop reading, finish what is in flight for at most `timeout_s`, release what was not started."""
        await asyncio.gather(*(lane.drain(timeout_s) for lane in self._lanes))
        await self._evidence.stop(timeout_s)
