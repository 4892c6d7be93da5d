"""The held connection that wakes who waits: LISTEN on a direct connection, checked, and made anew when it dies."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable

import asyncpg

from core.services.settling.bus_ports import EVERY_STREAM
from core.store.database import AWAY

log = logging.getLogger(__name__)
_LOST: tuple[type[Exception], ...] = (*AWAY, asyncpg.PostgresError)


async def listen(url: str, channel: str, wake: Callable[[str], None], check_s: float = 5.0) -> None:
    """Call `wake` with the payload of each notification, until cancelled; after a reconnect with EVERY_STREAM."""
    failures = 0
    while True:
        try:
            connection = await asyncpg.connect(url, timeout=5.0, statement_cache_size=0)
        except _LOST as error:
            failures += 1
            if failures == 1:
                log.warning("no connection to listen on: %s; the slow poll goes on", type(error).__name__)
            await asyncio.sleep(random.uniform(0.1, min(5.0, 0.2 * 2 ** min(failures, 6))))  # noqa: S311 - jitter
            continue
        failures = 0
        try:
            await _hold(connection, channel, wake, check_s)
        except _LOST as error:
            log.warning("the listening connection ended: %s", type(error).__name__)
        finally:
            with contextlib.suppress(Exception):
                connection.terminate()


async def _hold(
    connection: "asyncpg.Connection[asyncpg.Record]", channel: str, wake: Callable[[str], None], check_s: float
) -> None:
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())
    await connection.add_listener(channel, lambda _connection, _pid, _channel, payload: wake(payload))
    wake(EVERY_STREAM)
    while not ended.is_set():
        try:
            async with asyncio.timeout(check_s):
                await ended.wait()
        except TimeoutError:
            await connection.fetchval("SELECT 1", timeout=check_s)
