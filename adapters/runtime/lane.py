"""One stream's way through an adapter: held entries become permits, calls, verdicts. Slots are bounded per lane."""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from adapters.runtime import metrics
from adapters.runtime.core_client import (
    Asking,
    CoreRefusedError,
    CoreUnavailableError,
    PaymentsPort,
    PermitPort,
    PermitReply,
)
from adapters.runtime.evidence import EvidenceKeeper
from adapters.runtime.execution import Call, Executed, Executor, disagreement
from adapters.runtime.further import told_apart
from adapters.runtime.guard import Guard, Held, rest
from adapters.runtime.messages import (
    dead_letter_completion,
    evidence_of,
    has_evidence,
    lookup_without_evidence,
    result_completion,
)
from adapters.runtime.tracing import trace_call, trace_of
from adapters.runtime.verdicts import Action
from schemas.dead_letters import UNKNOWN_VERSION
from schemas.envelope import UnknownVersionError
from schemas.jobs import Job
from schemas.permits import Closed, Granted, NotFound, Wait
from schemas.streams import ADAPTERS_GROUP, shard_of
from wire.consumer import ConsumerSettings, Delivery, StreamConsumer
from wire.failpoints import failpoint
from wire.functions import Completion, ServerUnpreparedError, ack
from wire.publisher import Publisher
from wire.tracing import end_each, is_on

log = logging.getLogger(__name__)

MAX_DELIVERIES: Final = 3
SLOWEST_S: Final = 5.0
"""The longest that reading pauses before the core is asked again."""
_FEW: Final = 4
_ASKS_OF_FEW: Final = 3
"""So few jobs do not wait for the answers to those asked before them; where more come, one request asks for all."""


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """Which stream, as whom, and how much at once."""

    rail: str
    stream: str
    consumer: str
    incarnation: UUID
    batch: int
    claim_idle_s: float
    block_ms: int = 2_000


Permitted = tuple[Held, Granted]


class Lane:
    """Reads one stream, asks permits for the free slots only, executes, publishes."""

    def __init__(
        self,
        client: Redis,
        settings: LaneSettings,
        permits: PermitPort,
        executor: Executor,
        evidence: EvidenceKeeper,
        payments: PaymentsPort,
        guard: Guard,
    ) -> None:
        self._client, self._own, self.guard = client, settings, guard
        self._permits, self._executor, self._evidence = permits, executor, evidence
        self._payments = payments
        self._queue: list[Held] = []
        self._solo_runs = False
        self._changed = asyncio.Event()
        guard.join(self._changed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: asyncio.Task[None] | None = None
        self._asks: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self._wakes_at_s = 0.0
        self._quiet_until_s = 0.0
        self._core_failures = 0
        self.stopping = False
        consumer_settings = ConsumerSettings(
            settings.stream,
            ADAPTERS_GROUP,
            settings.consumer,
            claim_idle_s=settings.claim_idle_s,
            max_age_s=10 * settings.claim_idle_s,
            max_records=settings.batch,
            block_ms=settings.block_ms,
        )
        self.consumer = StreamConsumer(client, consumer_settings, self._take, self._room, self._deleted)
        self._publisher = Publisher(
            client, shard_of(settings.stream), settings.stream, settings.consumer, self.consumer, max_waiting=10_000
        )

    def start(self) -> list[asyncio.Task[None]]:
        """Begin to read and to work; return the tasks that end by `drain` alone."""
        self._asking = asyncio.create_task(self._ask_forever(), name=f"ask {self._own.stream}")
        self.consumer.start()
        return [self._publisher.start(), self._asking]

    async def drain(self, timeout_s: float) -> None:
        """Stop reading, finish what is in flight for at most `timeout_s`, release the unstarted."""
        self.stopping = True
        self._changed.set()
        self.guard.open_again(self._changed)
        try:
            await self.consumer.drain(timeout_s)
            await self._publisher.stop(timeout_s)
        except (RedisError, ServerUnpreparedError, OSError, TimeoutError) as error:
            log.warning("drain of %s was cut short: %s", self._own.stream, type(error).__name__)
        doomed = [*self._tasks, *([self._asking] if self._asking else [])]
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)

    def _room(self) -> int:
        # No more than it can soon begin: what one instance holds, no other can take.
        most = min(self._own.batch, 2 * self.guard.limit)
        return 0 if self.stopping else max(0, most - len(self._queue))

    def _deleted(self, entry_ids: list[str]) -> None:
        metrics.DELETED.labels(self._own.rail, self._own.stream).inc(len(entry_ids))
        log.error("entries deleted while pending in %s: %s", self._own.stream, entry_ids)

    async def _take(self, batch: list[Delivery]) -> None:
        for delivery in batch:
            if delivery.waits_for_newer(self._own.claim_idle_s):
                await self._give_back([delivery])
            elif delivery.envelope is None:
                unknown = isinstance(delivery.error, UnknownVersionError)
                await self._bury(delivery, None, UNKNOWN_VERSION if unknown else "poison", str(delivery.error))
            else:
                await self._sort(delivery, delivery.envelope.body)
        # Those behind the one that runs alone did nothing: were it to take us along, they must not be buried with it.
        if came := {delivery.entry_id for delivery in batch if delivery.must_run_alone}:
            await self.consumer.set_aside(
                [held.delivery for held in self._queue if held.delivery.entry_id in came and not held.delivery.started]
            )
        self._changed.set()

    async def _sort(self, delivery: Delivery, body: str) -> None:
        try:
            job = Job.model_validate_json(body)
        except ValidationError as error:
            # The first error's place and type; its input may hold anything and is not repeated.
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            await self._bury(delivery, None, "poison", f"{first['type']} at {first['loc']}")
            return
        if delivery.deliveries > MAX_DELIVERIES:
            await self._bury(delivery, job.job_id, "deliveries_exhausted", "delivered too often")
            return
        held = Held(delivery, job)
        self._queue.append(held)

    async def _ask_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # A read that is under way still brings what came meanwhile: it waits here.
            await asyncio.sleep(max(0.0, self._quiet_until_s - loop.time()))
            self._changed.clear()
            if self._failed is not None:
                # What nobody foresaw ends the lane, as if it had been asked for here, and with it the process.
                raise self._failed
            chosen = await self._choose()
            taken, wait_s = await self.guard.tokens(len(chosen))
            await self._put_off(chosen[taken:])
            if 0 < taken <= _FEW and len(self._asks) < _ASKS_OF_FEW:
                self._asks.add(task := self._spawn(self._ask(chosen[:taken])))
                task.add_done_callback(self._asked)
            elif taken:
                await self._ask(chosen[:taken])
            else:
                await rest(self._changed, wait_s)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asks.discard(task)
        if not task.cancelled():
            self._failed = self._failed or task.exception()
        # What it put off waits in the queue again, and nothing else may come to wake us.
        self._changed.set()

    async def _choose(self) -> list[Held]:
        """Take what may start now. A second delivery runs alone, before anything new starts."""
        if self.stopping or self._solo_runs or self.guard.closed_to(self._changed):
            return []
        kept = [held for held in self._queue if self._is_ours(held)]
        alone = [held for held in kept if held.delivery.must_run_alone]
        if alone:
            self.guard.keep_for(self._changed)
        if alone and self.guard.in_flight:
            self._queue = kept
            return []
        chosen, waiting, blocked = self.guard.choose(alone[:1] or kept)
        self._solo_runs = bool(alone and chosen)
        if not self._solo_runs:
            self.guard.open_again(self._changed)
        self._queue = [*kept_but(kept, alone[0]), *waiting] if alone else waiting
        self.guard.begun(chosen)
        if self._solo_runs:
            await self._count(chosen[0].delivery)
        if blocked:
            await self._give_back([held.delivery for held in blocked])
            if not chosen and not self._queue:
                self._rest_reading(self.guard.pause_s())
            self._changed.set()
        return chosen

    def _is_ours(self, held: Held) -> bool:
        # What was lost or released meanwhile is not; a later delivery of it is another object.
        return self.consumer.held.get(held.delivery.entry_id) is held.delivery

    async def _count(self, delivery: Delivery) -> None:
        try:
            await self.consumer.count_again([delivery])
        except (RedisError, ServerUnpreparedError, OSError) as error:
            log.warning("a delivery of %s is not counted: %s", self._own.stream, type(error).__name__)

    async def _put_off(self, helds: Sequence[Held]) -> None:
        """Provider or core leave no room for these now: they wait here, unstarted."""
        if helds:
            self._queue[:0] = helds
            self._end(helds)
            await self._unstart(helds)

    async def _unstart(self, helds: Sequence[Held]) -> None:
        for held in helds:
            held.delivery.started = False
        try:
            # A wait is no failure, should we die in it.
            await self.consumer.set_aside([held.delivery for held in helds if held.delivery.must_run_alone])
        except (RedisError, ServerUnpreparedError, OSError) as error:
            log.warning("what waits in %s stays counted: %s", self._own.stream, type(error).__name__)

    async def _restart(self, helds: Sequence[Held]) -> None:
        """Begin anew with these. Work that has begun goes on where its entry is lost: a drain waits for it, too."""
        for held in helds:
            held.delivery.started = True
            self.consumer.hold_again(held.delivery)
            if held.delivery.must_run_alone:
                await self._count(held.delivery)

    async def _ask(self, chosen: Sequence[Held]) -> None:
        failpoint("adapter.before_permit")
        chosen, reply = await self._permits_of(chosen)
        if reply is None:
            return
        failpoint("adapter.after_permit")
        self._core_failures = 0
        released: list[Held] = []
        throttled: list[Held] = []
        closed: list[Held] = []
        together: list[Permitted] = []
        slow_s = 0.0
        for word, count in Counter(each.answer for each in reply.answers).items():
            metrics.PERMITS.labels(self._own.rail, word).inc(count)
        for held, answer in zip(chosen, reply.answers, strict=True):
            if isinstance(answer, Granted):
                if self._executor.pays_together(answer):
                    together.append((held, answer))
                else:
                    self._spawn(self._work(held, answer, reply.sent_at_s))
            elif isinstance(answer, Closed):
                closed.append(held)
            elif isinstance(answer, NotFound):
                self._freed([held])
                await self._bury(held.delivery, held.job.job_id, "permit_not_found", "the core has no such job")
            elif answer.answer == "THROTTLED":
                # What holds back this rail holds back whoever would claim it: given back, it only travels.
                throttled.append(held)
                self._be_quiet(float(answer.after_s))
            else:
                released.append(held)
                slow_s = max(slow_s, _slowing_s(answer))
        if together:
            self._spawn(self._work_together(together, reply.sent_at_s))
        await self._put_off(throttled)
        await self._acknowledge(closed)
        await self._release(released)
        if slow_s:
            self._slow_down(slow_s)

    async def _permits_of(self, chosen: Sequence[Held]) -> tuple[Sequence[Held], PermitReply | None]:
        """Ask until the core answers; return its answers with what they are about, or None where all was let go.

        Asked anew, the core could not know whether a permit whose answer was lost had been used: it would be asked
        about at the provider and, unpaid as it is, never paid. So the same request is repeated, though its entries may
        be lost meanwhile: the permit says who may send, and what an entry that comes again asks for is BUSY.
        """
        asking = Asking()
        while True:
            try:
                return chosen, await self._permits.request([held.job.job_id for held in chosen], asking)
            except CoreUnavailableError as error:
                wait_s = await self._core_is_away(error)
            except CoreRefusedError as error:
                await self._core_is_away(error)
                break
            await self._unstart(chosen)
            if not self.stopping:
                await asyncio.sleep(wait_s)
            await self._restart(chosen)
            if self.stopping:
                break
        await self._release(chosen)
        return [], None

    async def _core_is_away(self, error: Exception) -> float:
        """Nothing is sent, nothing failed: what waits goes back, reading backs off. Returns for what time."""
        metrics.CORE_UNREACHABLE.labels(self._own.rail).inc()
        self._core_failures += 1
        if self._core_failures == 1:
            log.warning("no permits from the core: %s", type(error).__name__)
        wait_s = min(SLOWEST_S, 0.1 * 2.0 ** min(self._core_failures, 8))
        self._slow_down(wait_s)
        waiting, self._queue = self._queue, []
        await self._give_back([held.delivery for held in waiting])
        return wait_s

    async def _acknowledge(self, closed: Sequence[Held]) -> None:
        if not closed:
            return
        ids = [held.delivery.entry_id for held in closed]
        try:
            await ack(self._client, self._own.stream, ADAPTERS_GROUP, self._own.consumer, ids)
            self.consumer.forget(ids)
            self._freed(closed)
        except (RedisError, ServerUnpreparedError, OSError):
            await self._release(closed)

    async def _release(self, helds: Sequence[Held]) -> None:
        if helds:
            await self._give_back([held.delivery for held in helds])
            self._freed(helds)

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Release entries; where the server is away too, let them age: they are claimed again after I."""
        ids = [delivery.entry_id for delivery in deliveries]
        try:
            await self.consumer.release(ids)
        except (RedisError, ServerUnpreparedError, OSError) as error:
            log.warning("release to %s failed: %s", self._own.stream, type(error).__name__)
            self.consumer.forget(ids)

    def _be_quiet(self, seconds: float) -> None:
        """Begin nothing for a while: who asks us to wait is not asked again at once."""
        until_s = asyncio.get_running_loop().time() + min(seconds, SLOWEST_S)
        self._quiet_until_s = max(self._quiet_until_s, until_s)
        self._slow_down(seconds)

    def _slow_down(self, seconds: float) -> None:
        self._rest_reading(min(seconds, SLOWEST_S))

    def _rest_reading(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        wakes_at_s = loop.time() + seconds
        if wakes_at_s <= self._wakes_at_s:
            return
        self._wakes_at_s = wakes_at_s
        self.consumer.pause()
        loop.call_at(wakes_at_s, self._speed_up, wakes_at_s)

    def _speed_up(self, wakes_at_s: float) -> None:
        if wakes_at_s == self._wakes_at_s:
            self.consumer.resume()

    def _freed(self, helds: Sequence[Held]) -> None:
        self._end(helds)
        self.guard.changed()

    def _end(self, helds: Sequence[Held]) -> None:
        self.guard.ended(helds)
        if any(held.delivery.must_run_alone for held in helds):
            self._solo_runs = False
            self.guard.open_again(self._changed)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _work(self, held: Held, granted: Granted, sent_at_s: float) -> None:
        traced = trace_of(held, granted, sent_at_s)
        try:
            if disagreement(held.job, granted):
                await self._bury_mismatch(held, granted)
                return
            executed = await self._executor.execute(granted, sent_at_s)
            trace_call(traced, executed)
            self._called([held], executed.call)
            await self._tell(held, granted, executed)
        finally:
            traced.end()
            self._freed([held])

    async def _work_together(self, permitted: Sequence[Permitted], sent_at_s: float) -> None:
        traced = [trace_of(held, granted, sent_at_s) for held, granted in permitted] if is_on() else []
        try:
            agreed: list[Permitted] = []
            for held, granted in permitted:
                if disagreement(held.job, granted):
                    await self._bury_mismatch(held, granted)
                else:
                    agreed.append((held, granted))
            executed = await self._executor.execute_many([granted for _, granted in agreed], sent_at_s)
            for span, each in zip(traced, executed, strict=False):
                trace_call(span, each)
            called = [held for (held, _), each in zip(agreed, executed, strict=True) if each.call is not None]
            self._called(called, next((each.call for each in executed if each.call is not None), None))
            bare: list[Completion] = []
            evident: list[tuple[Held, Granted, Executed]] = []
            for (held, granted), each in zip(agreed, executed, strict=True):
                if has_evidence(each):
                    evident.append((held, granted, each))
                else:
                    bare.append(self._completion(held, granted, each, None))
            await self._publisher.publish(*bare)
            await asyncio.gather(*(self._tell(*each) for each in evident))
        finally:
            end_each(traced)
            self._freed([held for held, _ in permitted])

    async def _bury_mismatch(self, held: Held, granted: Granted) -> None:
        message = f"the stream's {disagreement(held.job, granted)} is not the permit's"
        await self._bury(held.delivery, held.job.job_id, "permit_mismatch", message)

    def _called(self, helds: Sequence[Held], call: Call | None) -> None:
        failpoint("adapter.after_call")
        self.guard.learn(helds, call)
        if call is not None and call.throttled:
            self._be_quiet(call.after_s)
        if self._executor.misconfigured:
            self._slow_down(SLOWEST_S)

    async def _tell(self, held: Held, granted: Granted, executed: Executed) -> None:
        """Publish what was learned, once the core has the evidence behind it or had its time to take it."""
        item = evidence_of(granted, executed)
        kept = item is not None and await self._evidence.keep(item)
        if item is not None and not kept and executed.action is Action.LOOKUP:
            executed = lookup_without_evidence(executed)
        executed = await told_apart(self._payments, granted, executed)
        await self._publisher.publish(self._completion(held, granted, executed, item.id if item and kept else None))

    def _completion(self, held: Held, granted: Granted, executed: Executed, evidence_id: UUID | None) -> Completion:
        own = self._own
        return result_completion(held.delivery, own.rail, granted, executed, evidence_id, own.incarnation)

    async def _bury(self, delivery: Delivery, job_id: UUID | None, error_class: str, message: str) -> None:
        metrics.DEAD_LETTERS.labels(self._own.rail, error_class).inc()
        delivery.started = True
        await self._publisher.publish(dead_letter_completion(delivery, self._own.rail, job_id, error_class, message))


def kept_but(kept: Sequence[Held], one: Held) -> list[Held]:
    """Return those that wait behind the one that runs alone."""
    return [held for held in kept if held is not one]


def _slowing_s(answer: Wait) -> float:
    """A busy job says nothing about the others; a paused rail does."""
    return 0.0 if answer.answer == "BUSY" else float(answer.after_s)
