"""What permits cost: the whole loop with the core's permits and fences, beside the same with permits that lie ready.

A result counts only under an attempt that the core has written, so no loop runs without one. In the rounds that leave
permits out, the same permits are granted before the clock runs, and the adapter answers them to itself. Both kinds of
rounds accept all payments first and then work them off, by one adapter in this process, in turns.
"""

import base64
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from statistics import median
from typing import NamedTuple, Self
from uuid import UUID, uuid4

from adapters.noop.adapter import NoopRail, NoopSettings
from adapters.runtime.core_client import Asking, CoreClient, LearnedPort, PermitPort, PermitReply
from adapters.runtime.timing import clock_s
from adapters.runtime.worker import Worker, WorkerSettings
from bench.load import Load
from bench.loop import bench_stack, settled
from bench.measurement import Measurement, at_most, own_cpu_s, shown
from bench.stream import NothingLearned
from core.api.internal import InternalPorts
from core.domain.context import Context
from core.services.settling.permits import grant_permits
from core.store.database import Database
from core.store.settling import attempts, rails
from core.store.settling.evidence import EvidenceStore
from core.store.vault import PostgresVault
from fleet.stack.profile import STANDARD
from fleet.stack.stack import WORKER, Stack
from schemas.permits import PermitAnswer, PermitRequest
from schemas.rails import Timing
from wire.client import StreamServers
from wire.memory import settle_memory

_RAIL = "noop"
_GOAL = 1.15
_PAGE = 500


class Cost(NamedTuple):
    """Seconds by the clock, and of CPU in this process and all that it started."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> Self:
        """Return both clocks."""
        return cls(time.monotonic(), own_cpu_s())

    def since(self, begun: Self) -> Self:
        """Return what has passed."""
        return type(self)(self.wall_s - begun.wall_s, self.cpu_s - begun.cpu_s)


def _rate(costs: Sequence[Cost], total: int) -> float:
    return total / median(cost.wall_s for cost in costs)


class ReadyPermits:
    """Answers permits that were granted before."""

    def __init__(self, ready: Mapping[UUID, PermitAnswer]) -> None:
        self._ready = ready

    async def request(self, job_ids: Sequence[UUID], asking: Asking) -> PermitReply:  # noqa: ARG002 - the port's
        """Return each job's permit."""
        return PermitReply([self._ready[job_id] for job_id in job_ids], clock_s())


class Unthrottled:
    """Nothing is throttled: the results stream is empty where permits are granted ahead."""

    def throttled(self, rail: str) -> bool:  # noqa: ARG002 - the port's
        """Return False."""
        return False


async def run(total: int = 5_000, rounds: int = 3) -> list[Measurement]:
    """Measure `rounds` rounds of either kind over `total` payments each, and what the first costs more."""
    settle_memory()
    async with bench_stack() as (stack, load, database), AsyncExitStack() as closing:
        await _stand_aside(stack)
        key = json.loads((stack.home / "keys.json").read_text())[_RAIL]
        core = CoreClient(stack.info.internal_url, key_id=key["id"], secret=key["secret"], timeout_s=10, budget_s=20)
        closing.push_async_callback(core.close)
        await _round(stack, load, database, core, 500)  # warm
        pairs = []
        for _ in range(rounds):
            ready = await _round(stack, load, database, None, total)
            pairs.append((await _round(stack, load, database, core, total), ready))
    asked, ready = zip(*pairs, strict=True)
    times, work = (median(getattr(a, of) / getattr(b, of) for a, b in pairs) for of in ("wall_s", "cpu_s"))
    return [
        shown(f"whole loop of {total:,}, permits that lie ready, median of {rounds}", _rate(ready, total), "intents/s"),
        shown("the same with the core's permits and fences", _rate(asked, total), "intents/s"),
        at_most("time with permits asked for against without, median", times, "times", _GOAL),
        at_most("CPU of all processes with permits asked for against without, median", work, "times", _GOAL),
    ]


async def _stand_aside(stack: Stack) -> None:
    """Stop the stack's own adapter and cut its connections: nothing may be delivered to a process that stands still."""
    os.kill(stack.supervisor.pid(f"{_RAIL}-1"), signal.SIGSTOP)
    servers = StreamServers(stack.info.redis_url, "bench")
    for client in await servers.each():
        for each in await client.client_list():
            if each["name"] == f"{_RAIL}-1":
                await client.client_kill_filter(_id=each["id"])
        await client.aclose()
    await servers.aclose()


async def _round(stack: Stack, load: Load, database: Database, core: CoreClient | None, total: int) -> Cost:
    """Return what it takes to accept and to settle so many payments."""
    await load.open_wallet()
    first, worker = UUID(int=time.time_ns() // 1_000_000 << 80), stack.supervisor.pid(WORKER)
    os.kill(worker, signal.SIGSTOP)
    try:
        begun = Cost.now()
        await load.pay_many(total, _PAGE, 4)
        accepting = Cost.now().since(begun)
        ready = None if core is not None else ReadyPermits(await _granted(stack, database))
    finally:
        os.kill(worker, signal.SIGCONT)
    servers = StreamServers(stack.info.redis_url, "bench")
    permits: PermitPort = core or ready or ReadyPermits({})
    adapter = _adapter(servers, permits, core or NothingLearned())
    begun = Cost.now()
    adapter.start()
    await settled(database, first, total)
    settling = Cost.now().since(begun)
    await adapter.drain(5)
    await servers.aclose()
    return Cost(accepting.wall_s + settling.wall_s, accepting.cpu_s + settling.cpu_s)


def _adapter(servers: StreamServers, permits: PermitPort, learned: LearnedPort) -> Worker:
    timing = Timing(
        send_by_s=STANDARD.send_by_s, call_total_s=STANDARD.call_total_s, claim_idle_s=STANDARD.claim_idle_s
    )
    settings = WorkerSettings(f"bench-{uuid4().hex[:6]}", uuid4(), batch=1_000, concurrency=1_000, block_ms=100)
    return Worker(NoopRail(timing, NoopSettings()), servers, permits, learned, settings)


async def _granted(stack: Stack, database: Database) -> dict[UUID, PermitAnswer]:
    """Grant every open job its permit, as the core does when it is asked."""
    vault = PostgresVault(base64.b64decode(stack.info.master_key))
    ports = InternalPorts(attempts, rails, vault, Unthrottled(), EvidenceStore(vault))
    granted: dict[UUID, PermitAnswer] = {}
    async with database.unit_of_work(Context(None, "bench")) as uow:
        rows = await uow.connection.fetch("SELECT id FROM fleet.jobs WHERE closed_at IS NULL AND rail = $1", _RAIL)
    ids = [row["id"] for row in rows]
    for at in range(0, len(ids), _PAGE):
        asked = PermitRequest(request_id=uuid4(), incarnation=uuid4(), job_ids=ids[at : at + _PAGE])
        begin = partial(database.unit_of_work, Context(None, "bench"))
        answers = await grant_permits(begin, ports, _RAIL, "bench", asked)
        granted |= {answer.job_id: answer for answer in answers}
    return granted
