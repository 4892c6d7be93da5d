"""What stands between a lane and its provider: breakers per operation, an adaptive limit, the shared rate."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from uuid import UUID

from redis.exceptions import RedisError

from adapters.runtime import metrics
from adapters.runtime.breaker import Breaker, BreakerSettings, BreakerState
from adapters.runtime.concurrency import AdaptiveLimit
from adapters.runtime.execution import Call
from adapters.runtime.fairness import in_turn
from adapters.runtime.rate import RateBucket
from schemas.jobs import Job
from schemas.operations import JobKind, OperationType
from wire.consumer import Delivery
from wire.functions import ServerUnpreparedError

log = logging.getLogger(__name__)

_MIXED_PAUSE_S = 1.0
_RATE_UNKNOWN_S = 0.5

Operation = tuple[OperationType, JobKind]


@dataclass(slots=True)
class Held:
    """A parsed entry that waits for its permit. `ticket` is its breaker's, from when it was chosen until it ended."""

    delivery: Delivery
    job: Job
    ticket: int | None = None

    @property
    def operation(self) -> Operation:
        """What the provider would be asked to do."""
        return self.job.operation, self.job.kind


class Chosen(NamedTuple):
    """What becomes of what waits: `blocked` is behind an open breaker and goes back, unstarted."""

    chosen: list[Held]
    rest: list[Held]
    blocked: list[Held]


H = TypeVar("H")


class Guard:
    """One lane's, or that of several which share what runs at once.

    Without breaker settings nothing is held back: what asks about money goes on.
    """

    def __init__(
        self,
        rail: str,
        lane: str,
        limit: AdaptiveLimit,
        breakers: BreakerSettings | None = None,
        bucket: RateBucket | None = None,
    ) -> None:
        self._rail, self._settings, self._bucket = rail, breakers, bucket
        self._limit = limit
        self._breakers: dict[Operation, Breaker] = {}
        self._running: Counter[UUID] = Counter()
        self._lanes: list[asyncio.Event] = []
        self._alone: asyncio.Event | None = None
        self.in_flight = 0
        metrics.CONCURRENCY.labels(rail, lane).set_function(lambda: self._limit.now)

    @property
    def limit(self) -> int:
        """How many calls may run at once now."""
        return self._limit.now

    @property
    def free(self) -> int:
        """How many calls may begin beside those that run."""
        return self._limit.now - self.in_flight

    @property
    def open_operations(self) -> list[OperationType]:
        """Operations whose first calls are held back now, for the core: what waits for them must not expire."""
        shut = {operation for (operation, _), each in self._breakers.items() if each.state is not BreakerState.CLOSED}
        return sorted(shut)

    def join(self, changed: asyncio.Event) -> None:
        """Let a lane share this guard; its event is set whenever something of it became free."""
        self._lanes.append(changed)

    def changed(self) -> None:
        """Wake every lane: a slot is free, or no lane needs all of them any longer."""
        for lane in self._lanes:
            lane.set()

    def closed_to(self, lane: asyncio.Event) -> bool:
        """Return whether another lane waits for its turn to run one call alone."""
        return self._alone not in (None, lane)

    def keep_for(self, lane: asyncio.Event) -> None:
        """Let this lane alone begin anything, until `open_again`."""
        self._alone = lane

    def open_again(self, lane: asyncio.Event) -> None:
        """Let every lane begin again, if it was this one that all waited for."""
        if self._alone is lane:
            self._alone = None
            for other in self._lanes:
                if other is not lane:
                    other.set()

    def choose(self, waiting: Sequence[Held]) -> Chosen:
        """Divide what waits: each tenant in its turn, as many as slots are free, none behind an open breaker."""
        chosen: list[Held] = []
        rest: list[Held] = []
        blocked: list[Held] = []
        free = self.free
        for held in in_turn(waiting, lambda each: each.job.tenant_id, self._running):
            breaker = self._breaker(held.operation)
            if breaker is not None and breaker.state is BreakerState.OPEN:
                blocked.append(held)
            elif len(chosen) < free and self._admitted(held, breaker):
                chosen.append(held)
            else:
                rest.append(held)
        return Chosen(chosen, rest, blocked)

    def pause_s(self) -> float:
        """How long reading may rest: until the first breaker tries again, or briefly where another operation works."""
        waits = [each.reopens_in_s for each in self._breakers.values()]
        if not any(waits):
            return 0.0
        return min(waits) if all(waits) else min(_MIXED_PAUSE_S, *(wait for wait in waits if wait))

    async def tokens(self, wanted: int) -> tuple[int, float]:
        """Take up to `wanted` calls out of the provider's rate; return how many, and after how long to ask again."""
        if self._bucket is None or wanted == 0:
            return wanted, 0.0
        try:
            taken, wait_s = await self._bucket.take(wanted)
        except (RedisError, ServerUnpreparedError, OSError) as error:
            # What cannot be counted is not sent: two instances would else send twice the rate.
            log.warning("the rate of %s is unknown: %s", self._rail, type(error).__name__)
            taken, wait_s = 0, _RATE_UNKNOWN_S
        if taken < wanted:
            metrics.RATE_WAITS.labels(self._rail).inc(wanted - taken)
        return taken, wait_s

    def begun(self, helds: Sequence[Held]) -> None:
        """These have a slot from now on."""
        self.in_flight += len(helds)
        for held in helds:
            held.delivery.started = True
            self._running[held.job.tenant_id] += 1

    def ended(self, helds: Sequence[Held]) -> None:
        """These have no slot any longer; what made no call gives its ticket back."""
        self.in_flight -= len(helds)
        for held in helds:
            tenant = held.job.tenant_id
            self._running[tenant] -= 1
            if self._running[tenant] <= 0:
                del self._running[tenant]
            breaker = self._breakers.get(held.operation)
            if held.ticket is not None and breaker is not None:
                breaker.unused(held.ticket)
            held.ticket = None

    def learn(self, helds: Sequence[Held], call: Call | None) -> None:
        """Learn from one call that was made for these; None where there was none."""
        if call is None or not helds:
            return
        self._limit.record(
            helds[0].operation,
            call.elapsed_s,
            failed=call.failed,
            throttled=call.throttled,
            in_flight=self.in_flight,
        )
        for held in helds:
            breaker = self._breakers.get(held.operation)
            if breaker is None or held.ticket is None:
                continue
            before = breaker.state
            breaker.record(held.ticket, failed=call.failed)
            held.ticket = None
            if breaker.state is not before:
                self._tell(held.operation, breaker.state)

    def _tell(self, operation: Operation, state: BreakerState) -> None:
        name, kind = operation
        log.warning("breaker of %s %s %s: %s", self._rail, name.value, kind.value, state.name)

    def _breaker(self, operation: Operation) -> Breaker | None:
        if self._settings is None:
            return None
        breaker = self._breakers.get(operation)
        if breaker is None:
            made = breaker = self._breakers[operation] = Breaker(self._settings)
            name, kind = operation
            metrics.BREAKER.labels(self._rail, name.value, kind.value).set_function(lambda: made.state.value)
        return breaker

    def _admitted(self, held: Held, breaker: Breaker | None) -> bool:
        if breaker is None:
            return True
        held.ticket = breaker.admit()
        return held.ticket is not None


async def rest(changed: asyncio.Event, wait_s: float) -> None:
    """Wait for `wait_s`, or for the event where that is 0."""
    if wait_s > 0:
        await asyncio.sleep(wait_s)
    else:
        await changed.wait()
