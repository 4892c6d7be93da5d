"""The adapter's processes: a small lane over simulated streams around the shipping execution, verdicts and messages."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from adapters.runtime.execution import Executor, disagreement
from adapters.runtime.messages import (
    dead_letter_completion,
    evidence_of,
    lookup_without_evidence,
    result_completion,
)
from adapters.runtime.port import Rail
from adapters.runtime.verdicts import Action
from schemas.envelope import Envelope
from schemas.jobs import Job
from schemas.permits import Closed, Granted, NotFound, PermitAnswer, PermitRequest, Sending
from tests.simulation.core_side import RAIL, Api, Bus
from tests.simulation.database import DatabaseError
from tests.simulation.hosts import Host
from tests.simulation.rails import TIMING
from tests.simulation.streams import Entry, Stream
from wire.consumer import Delivery
from wire.functions import Completion

_SLOTS = 6
_MOST_DELIVERIES = 3
_BEAT_S = 5.0
_PERMIT_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Reply:
    """The answers, and when the request that was answered was sent."""

    answers: Sequence[PermitAnswer]
    sent_at_s: float


def _heard(answering: "asyncio.Future[list[PermitAnswer]]") -> None:
    if not answering.cancelled():
        answering.exception()


class Adapter:
    """One life of one adapter process."""

    def __init__(self, host: Host, api: Api, bus: Bus, rail: Rail) -> None:
        self._host, self._api, self._bus = host, api, bus
        self._world = host.world
        self._ids = random.Random(f"{host.world.seed}:{host.name}:{host.lives}")
        self._incarnation = UUID(int=self._ids.getrandbits(128), version=4)
        self._executor = Executor(rail, RAIL, TIMING.call_total_s)
        self._held: dict[str, float] = {}
        self._life = host.lives

    def alive_until_s(self, entry_id: str) -> float:
        """The last heartbeat for an entry; hung work is let go of after ten times I."""
        if entry_id not in self._held or self._life != self._host.lives:
            return 0.0
        now_s, since_s = self._world.loop.time(), self._host.paused_since_s
        if now_s - self._held[entry_id] > 10 * TIMING.claim_idle_s:
            return 0.0
        return now_s if since_s is None else since_s

    async def run(self, stream: Stream) -> None:
        """Read one stream for ever: claim on each beat, read what arrives, start what has slots."""
        claimed_at_s = 0.0
        slots = asyncio.Semaphore(_SLOTS)
        while True:
            await slots.acquire()
            slots.release()
            await self._host.step()
            stream.arrived.clear()
            now_s, entries = self._world.loop.time(), []
            if now_s - claimed_at_s >= _BEAT_S:
                claimed_at_s = now_s
                entries = stream.claim(self, TIMING.claim_idle_s, 2)
            entries += stream.read(self, max(0, _SLOTS - len(entries)))
            entries = [entry for entry in entries if entry.entry_id not in self._held]
            if not entries:
                timer = self._world.loop.call_later(_BEAT_S if stream.pending else 600.0, stream.arrived.set)
                await stream.arrived.wait()
                timer.cancel()
                continue
            self._held |= dict.fromkeys((entry.entry_id for entry in entries), now_s)
            await self._start(stream, slots, entries)

    async def _start(self, stream: Stream, slots: asyncio.Semaphore, entries: list[Entry]) -> None:
        jobs: list[tuple[Entry, Job]] = []
        for entry in entries:
            job = Job.model_validate_json(entry.body)
            if entry.deliveries > _MOST_DELIVERIES:
                await self._bury(stream, entry, job.job_id, "deliveries_exhausted")
            else:
                jobs.append((entry, job))
        if not jobs:
            return
        reply = await self._permits_of([job.job_id for _, job in jobs])
        slow_s = 0.0
        for (entry, job), answer in zip(jobs, reply.answers, strict=True):
            if isinstance(answer, Granted):
                await slots.acquire()
                self._host.spawn(self._work(stream, slots, entry, job, answer, reply.sent_at_s))
            elif isinstance(answer, Closed):
                await self._host.step()
                stream.ack(self, [entry.entry_id])
                self._held.pop(entry.entry_id, None)
            elif isinstance(answer, NotFound):
                await self._bury(stream, entry, job.job_id, "permit_not_found")
            else:
                await self._release(stream, [entry])
                slow_s = max(slow_s, 0.0 if answer.answer == "BUSY" else float(answer.after_s))
        if slow_s:
            await asyncio.sleep(min(slow_s, 5.0))

    async def _permits_of(self, job_ids: list[UUID]) -> Reply:
        """Ask for permits, as the lane does: as one asking until it is answered, though the entries may be lost."""
        sending = Sending.of(UUID(int=self._ids.getrandbits(128), version=4))._replace(number=0)
        while True:
            await self._host.step()
            sending, sent_at_s = sending._replace(number=sending.number + 1), self._world.loop.time()
            asked = PermitRequest(request_id=sending.request_id, incarnation=self._incarnation, job_ids=job_ids)
            # The core works on, though whoever asked has gone: what arrives late takes effect all the same.
            answering = asyncio.ensure_future(self._api.permits(asked))
            answering.add_done_callback(_heard)
            try:
                async with asyncio.timeout(_PERMIT_TIMEOUT_S):
                    answers = await asyncio.shield(answering)
                if not self._world.happens(self._world.rates.lost_permit_reply):
                    await self._host.step()
                    return Reply(answers, sent_at_s)
                self._world.note(self._host.name, "loses the reply to a permit request")
            except (DatabaseError, TimeoutError):
                pass
            await asyncio.sleep(self._world.chance.uniform(0, 2))

    async def _work(
        self, stream: Stream, slots: asyncio.Semaphore, entry: Entry, job: Job, granted: Granted, sent_at_s: float
    ) -> None:
        try:
            if disagreement(job, granted):
                await self._bury(stream, entry, job.job_id, "permit_mismatch")
                return
            self._world.note(
                self._host.name,
                f"{granted.kind} {granted.mode} fence {granted.fence}",
                granted.instruction.target_reference or granted.reference,
            )
            executed = await self._executor.execute(granted, sent_at_s)
            item = evidence_of(granted, executed)
            kept = item is not None and await self._keep(item)
            if item is not None and not kept and executed.action is Action.LOOKUP:
                executed = lookup_without_evidence(executed)
            evidence_id = item.id if item is not None and kept else None
            completion = result_completion(
                _delivery(stream, entry), RAIL, granted, executed, evidence_id, self._incarnation
            )
            self._world.note(
                self._host.name,
                f"{granted.kind} fence {granted.fence} {executed.outcome.verdict} {executed.outcome.reason}",
                granted.instruction.target_reference or granted.reference,
            )
            await self._publish(stream, completion)
        finally:
            slots.release()

    async def _keep(self, item: object) -> bool:
        if self._world.happens(self._world.rates.evidence_refused):
            return False
        try:
            await self._api.keep_evidence(item)  # type: ignore[arg-type]
        except DatabaseError:
            return False
        return True

    async def _bury(self, stream: Stream, entry: Entry, job_id: UUID, error_class: str) -> None:
        self._world.note(self._host.name, f"gives up: {error_class}", job_id)
        completion = dead_letter_completion(_delivery(stream, entry), RAIL, job_id, error_class, error_class)
        await self._publish(stream, completion)

    async def _publish(self, stream: Stream, completion: Completion) -> None:
        """The function fleet_settle, as Publisher calls it: repeated until an answer comes."""
        target = self._bus.dead if completion.target == "dead" else self._bus.results
        if self._world.happens(self._world.rates.publish_delayed):
            # The streams do not answer this host for a while; what it learned goes out late, and out of order.
            await asyncio.sleep(self._world.chance.uniform(0, 60))
        while True:
            await self._host.step()
            body = completion.envelope.body
            garbled = self._world.happens(self._world.rates.result_garbled)
            target.add(body[: len(body) // 2] if garbled and target is self._bus.results else body)
            stream.ack(self, [completion.entry_id])
            if not self._world.happens(self._world.rates.lost_publish_reply):
                break
            self._world.note(self._host.name, "loses the reply to its publishing")
            await asyncio.sleep(0.1)
        await self._host.step()
        self._held.pop(completion.entry_id, None)

    async def _release(self, stream: Stream, entries: list[Entry]) -> None:
        await self._host.step()
        ids = [entry.entry_id for entry in entries]
        stream.release(self, ids, TIMING.claim_idle_s)
        for entry_id in ids:
            self._held.pop(entry_id, None)


def _delivery(stream: Stream, entry: Entry) -> Delivery:
    envelope = Envelope(entry.entry_id, "job", entry.body)
    return Delivery(stream.name, entry.entry_id, envelope, None, entry.deliveries, first_seen_monotonic=0.0)
