"""Resident memory of every process while 100,000 intents queue: it must not grow with the backlog."""

import asyncio
import os
import signal

import psutil

from bench.loop import bench_stack
from bench.measurement import Measurement, shown
from fleet.stack.stack import Stack

_MIB = 1 << 20
_TOLERANCE = 0.2


async def run(total: int = 100_000) -> list[Measurement]:
    """Stop the adapter, queue `total` intents, and compare each process at a tenth of them and at the end."""
    async with bench_stack() as (stack, load, _):
        await load.pay_many(2_000, 500, 2)
        os.kill(stack.supervisor.pid("noop-1"), signal.SIGSTOP)
        await load.open_wallet()
        await load.pay_many(total // 10, 500, 4)
        await asyncio.sleep(2)
        before = _resident(stack)
        await load.open_wallet()
        await load.pay_many(total, 500, 4)
        await asyncio.sleep(2)
        after = _resident(stack)
        os.kill(stack.supervisor.pid("noop-1"), signal.SIGCONT)
    found = []
    for name in sorted(before):
        grown = after[name] / before[name] - 1
        judged = name not in ("postgres", "valkey")  # a database caches and a queue holds: shown, not judged
        goal = "within 20 %" if judged else ""
        found.append(Measurement(f"{name}: growth while {total:,} queue", round(grown * 100, 1), "%", goal,
                                 abs(grown) <= _TOLERANCE if judged else None))  # fmt: skip
        found.append(shown(f"{name}: resident", after[name] / _MIB, "MiB"))
    return found


def _resident(stack: Stack) -> dict[str, float]:
    sizes = {name: _tree_bytes(pid) for name, pid in stack.supervisor.pids().items()}
    if stack.postgres is not None:
        sizes["postgres"] = _tree_bytes(stack.postgres.pid)
    if stack.valkey is not None:
        sizes["valkey"] = _tree_bytes(stack.valkey.pid)
    return sizes


def _tree_bytes(pid: int) -> float:
    """Resident bytes of a process and its children; memory shared between them is counted once each (PSS)."""
    process = psutil.Process(pid)
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().pss if psutil.LINUX else each.memory_info().rss
        except psutil.Error:
            continue
    return float(total)
