"""What the demo says while it runs: a bar on a terminal; elsewhere, where no bar moves, a line now and then."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.console import Console

LINE_EVERY_S = 10.0


@asynccontextmanager
async def lines_of_progress(
    console: Console, tell: Callable[[], str], every_s: float = LINE_EVERY_S
) -> AsyncIterator[None]:
    """Print what `tell` says every `every_s` seconds for the length of the block, unless this is a terminal."""
    if console.is_terminal:
        yield
        return
    began_s = time.monotonic()

    async def repeat() -> None:
        while True:
            await asyncio.sleep(every_s)
            console.print(f"{time.monotonic() - began_s:.0f} s: {tell()}", markup=False, highlight=False)

    telling = asyncio.create_task(repeat())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
