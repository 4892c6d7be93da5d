"""One rail's provider is dead for minutes: what do the payments of another rail notice?"""

import asyncio
import itertools
import os
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import aiohttp

from bench.load import Load
from bench.measurement import Measurement, at_most, shown
from core.domain.context import Context
from core.store.database import Database
from fleet.stack.profile import STANDARD
from fleet.stack.stack import Stack, StackPlan, running

_RATE: Final = 50
_ROUNDS: Final = 5
_ROUND_S: Final = 6.0
_OTHER_PER_S: Final = 20
_GOAL: Final = 1.2
_WAIT_S: Final = 60

_SETTLED: Final = """
    SELECT i.id, extract(epoch FROM e.at)::double precision AS settled_at
      FROM fleet.intents i JOIN fleet.intent_events e ON e.intent_id = i.id AND e.state = 'SETTLED'
     WHERE i.id = ANY($1)
"""


async def run(rounds: int = _ROUNDS, round_s: float = _ROUND_S) -> list[Measurement]:
    """Measure p99 of the live rail before and while the other's provider stands still, each the median of rounds."""
    async with _two_rails() as (stack, load, database):
        numbers = itertools.count()
        # The other rail is paid through all the time: only its provider's death differs.
        feeding = asyncio.create_task(_feed(load, numbers))
        await _p99_ms(load, database, numbers, round_s)  # warm
        before = [await _p99_ms(load, database, numbers, round_s) for _ in range(rounds)]
        with _dead(stack):
            await asyncio.sleep(stack.plan.profile.call_total_s)  # until the dead rail's calls begin to time out
            meanwhile = [await _p99_ms(load, database, numbers, round_s) for _ in range(rounds)]
        feeding.cancel()
        with suppress(asyncio.CancelledError):
            await feeding
    calm_ms, dead_ms = statistics.median(before), statistics.median(meanwhile)
    return [
        shown(f"p99 of a rail at {_RATE}/s beside another at {_OTHER_PER_S}/s, median of {rounds}", calm_ms, "ms"),
        shown("the same while the other's provider is dead", dead_ms, "ms"),
        at_most("p99 beside a dead rail against before", dead_ms / calm_ms, "times", _GOAL),
    ]


@asynccontextmanager
async def _two_rails() -> AsyncIterator[tuple[Stack, Load, Database]]:
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as home:
        plan = StackPlan(Path(home), profile=STANDARD, rails={"noop": 1, "promptpay": 1})
        async with running(plan) as stack:
            database = await Database.connect(stack.info.database_url, max_size=1, application_name="bench")
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200)) as http:
                load = Load(stack.info, http)
                await load.open_wallet()
                yield stack, load, database
            await database.close()


@contextmanager
def _dead(stack: Stack) -> Iterator[None]:
    """Let PromptPay's provider stand still: it takes connections and never answers."""
    pid = stack.supervisor.pids()["promptpay-simulator"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def _feed(load: Load, numbers: Iterator[int]) -> None:
    """Go on asking for payments through the other rail, alive or dead."""
    while True:
        number = next(numbers)
        payee = {"type": "mobile", "value": f"08{number % 10**8:08d}"}
        body: dict[str, Any] = {**load.intent(number), "payee": payee, "auto_confirm": {"max_fee_minor": 0}}
        try:
            await load.call("POST", "/v1/intents", body, key=f"other-{number}")
        except RuntimeError as error:
            if ": 503 " not in str(error):  # a core that is busy asks to be asked later
                raise
        await asyncio.sleep(1 / _OTHER_PER_S)


async def _p99_ms(load: Load, database: Database, numbers: Iterator[int], seconds: float) -> float:
    """Return the p99 from sending a request to its settling event, at a steady rate. Raises TimeoutError."""
    sent_at: dict[UUID, float] = {}

    async def one() -> None:
        at = time.time()
        sent_at[await load.pay_one(next(numbers))] = at

    started, total = time.monotonic(), int(_RATE * seconds)
    async with asyncio.TaskGroup() as tasks:
        for number in range(total):
            await asyncio.sleep(max(0.0, started + number / _RATE - time.monotonic()))
            tasks.create_task(one())
    async with asyncio.timeout(_WAIT_S):
        while len(rows := await _settled(database, list(sent_at))) < total:  # noqa: ASYNC110 - the core is elsewhere
            await asyncio.sleep(0.2)
    spans = sorted((at - sent_at[intent]) * 1_000 for intent, at in rows)
    return spans[min(total - 1, total * 99 // 100)]


async def _settled(database: Database, ids: list[UUID]) -> list[tuple[UUID, float]]:
    async with database.unit_of_work(Context(None, "bench")) as uow:
        return [(row["id"], row["settled_at"]) for row in await uow.connection.fetch(_SETTLED, ids)]
