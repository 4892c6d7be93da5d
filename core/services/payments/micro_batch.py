"""Micro-batching by back-pressure: while work is under way arrivals gather, and share the next run.

An idle system runs each arrival at once, a busy one batches as deep as it is busy.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

_PATIENCE_S: Final = 0.1
"""How long a few wait at most for a run under way; one that takes longer waits for something itself."""
_SEVERAL: Final = 8
"""Of so many who were answered at once most are likely to be back at once; so many wait for no others."""
_RETURN_S: Final = 0.01
"""How long a run waits for them: to read fifty requests takes about as long."""
_REST_LONGEST_S: Final = 0.025
"""How long who came during a run waits at most for others, beyond its end."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class _Run(NamedTuple):
    """A run under way: how many items it has, and when it began."""

    items: int
    began_s: float


class MicroBatcher(Generic[Item, Answer]):
    """Runs `run` on batches of at most `limit` items, at most `in_flight` at a time; answers align with items.

    Beside a run that is under way another one starts only for `worth` items or more: fewer wait for its end, since two
    small runs cost twice what one does, and mostly wait for each other's locks. But none waits for one that hangs.
    Of clients who each wait for their answer before they ask again, half would else gather while the other half is run:
    where a run answered several, they have `_RETURN_S` to come back and share the next one with those who wait.
    A few who came during a run wait as long again as it took, and share the next one with who comes meanwhile: what a
    transaction costs is mostly that it is one, here and in each stage behind. Who comes while none is run goes at once.
    When a shared run raises, its items are run again one by one, so that a neighbour never suffers; a fault named in
    `shared_faults` is everybody's, and is raised to all at once.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        limit: int,
        in_flight: int,
        worth: int = 1,
        shared_faults: tuple[type[Exception], ...] = (OSError,),
    ) -> None:
        self._run, self._limit, self._free, self._shared_faults = run, limit, in_flight, shared_faults
        self._worth = worth
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._tasks: dict[asyncio.Task[None], _Run] = {}
        self._scheduled = False
        self._patience: asyncio.TimerHandle | None = None
        self._returning: asyncio.TimerHandle | None = None
        self._expected = 0

    async def submit(self, item: Item) -> Answer:
        """Return the item's answer, or raise what its run raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, future))
        self._schedule(loop)
        return await future

    async def submit_all(self, items: Sequence[Item]) -> list[Answer | Exception]:
        """Return the answer of each item, or what its run raised."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        self._schedule(loop)
        answers: list[Answer | Exception] = []
        for future in futures:
            try:
                answers.append(await future)
            except Exception as error:  # noqa: BLE001 - each item hears its own
                answers.append(error)
        return answers

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled:
            # Started at the end of this turn of the loop: all that was read from the sockets at once goes together.
            self._scheduled = True
            loop.call_soon(self._start)

    def _start(self, *, anyway: bool = False) -> None:
        self._scheduled = False
        while self._waiting and self._free and (anyway or self._is_worth_it()):
            self._end_waits()
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            self._free -= 1
            task = asyncio.create_task(self._execute(batch))
            self._tasks[task] = _Run(len(batch), task.get_loop().time())
            task.add_done_callback(self._finish)
        if self._waiting and self._free and self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(_PATIENCE_S, self._lose_patience)

    def _is_worth_it(self) -> bool:
        waiting = len(self._waiting)
        return waiting >= self._worth or (not self._tasks and waiting >= self._expected)

    def _lose_patience(self) -> None:
        self._end_waits()
        self._start(anyway=True)

    def _finish(self, task: asyncio.Task[None]) -> None:
        ended, waiting = self._tasks.pop(task), len(self._waiting)
        self._free += 1
        if not self._tasks and ended.items >= _SEVERAL:
            self._expect(waiting + ended.items, _RETURN_S)
        elif not self._tasks and 0 < waiting < _SEVERAL:
            self._expect(_SEVERAL, min(task.get_loop().time() - ended.began_s, _REST_LONGEST_S))
        self._start()

    def _expect(self, so_many: int, within_s: float) -> None:
        """Let the next run begin once so many wait, or the time is over."""
        self._end_waits()
        self._expected = so_many
        self._returning = asyncio.get_running_loop().call_later(within_s, self._start_without)

    def _start_without(self) -> None:
        self._end_waits()
        self._start()

    def _end_waits(self) -> None:
        self._expected = 0
        for timer in (self._patience, self._returning):
            if timer is not None:
                timer.cancel()
        self._patience = self._returning = None

    async def _execute(self, batch: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._run([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, each waiting request hears its own answer
            if len(batch) == 1 or isinstance(error, self._shared_faults):
                for _, future in batch:
                    _fail(future, error)
                return
            for single in batch:
                await self._execute([single])
            return
        except BaseException as error:
            for _, future in batch:
                _fail(future, error)
            raise
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)


def _fail(future: "asyncio.Future[Answer]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
