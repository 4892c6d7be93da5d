"""How Ctrl-C ends a program that has children: in order, and only once."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP cancel the current task, the first time; later ones change nothing.

    What stands in a `finally` (draining children, stopping servers) therefore runs to its end, however often somebody
    presses Ctrl-C: each step there has its own time-out. Use it inside a coroutine of the main thread.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    told = False

    def interrupt() -> None:
        nonlocal told
        if not told and task is not None:
            told = True
            task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
