"""Micro-batching by back-pressure: while work is under way arrivals gather, and share the next run.

An idle system runs each arrival at once, a busy one batches as deep as it is busy.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

_PATIENCE_S: Final = 0.1
"""How long a few wait at most for a run under way; one that takes longer waits for something itself."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class MicroBatcher(Generic[Item, Answer]):
    """Runs `run` on batches of at most `limit` items, at most `in_flight` at a time; answers align with items.

    Beside a run that is under way another one starts only for `worth` items or more: fewer wait for its end, since two
    small runs cost twice what one does, and mostly wait for each other's locks. But none waits for one that hangs.
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
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._patience: asyncio.TimerHandle | None = None

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
        while self._waiting and self._free and (anyway or not self._tasks or len(self._waiting) >= self._worth):
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            self._free -= 1
            task = asyncio.create_task(self._execute(batch))
            self._tasks.add(task)
            task.add_done_callback(self._finish)
        if self._waiting and self._free and self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(_PATIENCE_S, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patience = None
        self._start(anyway=True)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free += 1
        self._start()

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
