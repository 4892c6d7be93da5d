"""Hosts run tasks, and each step they take over the network is where they may be slowed, stopped or killed."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

START: Final = datetime(2026, 11, 21, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the trace; `subject` is what it is about, empty for the world."""

    at_s: float
    host: str
    what: str
    subject: str = ""


@dataclass(slots=True)
class Rates:
    """How likely each fault is at one step of one host. All become zero when the calm begins."""

    kill: float = 0.0
    pause: float = 0.0
    rollback: float = 0.0
    commit_unknown: float = 0.0
    lost_permit_reply: float = 0.0
    lost_publish_reply: float = 0.0
    publish_delayed: float = 0.0
    evidence_refused: float = 0.0
    entry_doubled: float = 0.0
    entry_lost: float = 0.0
    result_garbled: float = 0.0


@dataclass(slots=True)
class Clockwork:
    """What all hosts share: time, chance and the trace."""

    loop: asyncio.AbstractEventLoop
    seed: str
    rates: Rates
    trace: list[Event] = field(default_factory=list)
    chance: random.Random = field(init=False)
    steps: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.seed}:steps")

    @property
    def now(self) -> datetime:
        """The true time, which is the database's."""
        return START + timedelta(seconds=self.loop.time())

    def happens(self, rate: float) -> bool:
        """Whether a fault of this rate strikes now."""
        return rate > 0 and self.chance.random() < rate

    def note(self, host: str, what: str, subject: object = "") -> None:
        """Write a line of the trace."""
        self.trace.append(Event(self.loop.time(), host, what, str(subject)))


class Host:
    """One process: its tasks die together, stand still together, and start again after a while."""

    def __init__(self, world: Clockwork, name: str, start: Callable[["Host"], None], longest_pause_s: float) -> None:
        self.world, self.name = world, name
        self._start, self._longest_pause_s = start, longest_pause_s
        self.context: Context = copy_context()
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused_until_s = 0.0
        self.paused_since_s: float | None = None
        self.lives = 0
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Begin a life; harmless while one lasts."""
        if not self._tasks:
            self.lives += 1
            self._start(self)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task of this process. What it raises ends the simulation: shipping code must not leak errors."""
        task = self.world.loop.create_task(work, context=self.context)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def kill(self, down_s: float = 3.0) -> None:
        """Kill every task where it stands; start again later."""
        self.world.note(self.name, "killed")
        for task in self._tasks:
            task.cancel()
        self._paused_until_s, self.paused_since_s = 0.0, None
        self.world.loop.call_later(down_s, self.start)

    def stop(self) -> None:
        """End for good."""
        self._start = lambda _: None
        for task in self._tasks:
            task.cancel()

    async def step(self) -> None:
        """Take one step over the network: it takes time, and here the process may die or stand still."""
        world, rates = self.world, self.world.rates
        world.steps += 1
        drawn = world.chance.random()
        if drawn < 0.2:
            await asyncio.sleep(0.0005 + drawn / 10)
        if rates.kill and world.happens(rates.kill):
            self.kill(world.chance.uniform(1, 20))
            await asyncio.sleep(0)
        if rates.pause and world.happens(rates.pause) and self.paused_since_s is None:
            self.paused_since_s = world.loop.time()
            self._paused_until_s = self.paused_since_s + world.chance.uniform(0.1, self._longest_pause_s)
            world.note(self.name, f"stands still for {self._paused_until_s - self.paused_since_s:.1f} s")
        while self.paused_since_s is not None:
            if self._paused_until_s <= world.loop.time():
                self.paused_since_s = None
                break
            await asyncio.sleep(self._paused_until_s - world.loop.time())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and self.failure is None:
            self.failure = task.exception()
