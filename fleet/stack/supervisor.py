"""Keeps named child processes running: starts them, restarts the one that dies, stops them all, leaves no orphan."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleet.stack.processes import die_with_parent

_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 5.0
_STEADY_S = 10.0
"""A child that lived this long starts its next restart without having to wait."""

_SAID_CHARACTERS = 300

# What a child must not inherit: addresses and secrets that belong to whoever started us.
_NOT_INHERITED = frozenset(
    {"DATABASE_URL", "DATABASE_WORKER_URL", "DATABASE_DIRECT_URL", "REDIS_URL", "FLEET_MASTER_KEY"}
)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One process: its name, its command and what its environment has beyond ours."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


class Supervisor:
    """Children by name. Use from the main thread's event loop: the death signal is tied to the forking thread."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self.restarts: Counter[str] = Counter()

    async def start(self, spec: ChildSpec) -> None:
        """Start a child and keep it running until `stop`."""
        self._log_dir.mkdir(parents=True, exist_ok=True)
        self._processes[spec.name] = await self._spawn(spec)
        self._watchers[spec.name] = asyncio.create_task(self._watch(spec), name=f"watch {spec.name}")

    def pid(self, name: str) -> int:
        """Return the current process id of a child."""
        return self._processes[name].pid

    def pids(self) -> dict[str, int]:
        """Return the process id of every child that runs now."""
        return {name: process.pid for name, process in self._processes.items() if process.returncode is None}

    def restarted(self) -> str:
        """Say which children had to be started again, how often, and with what last words; empty where none."""
        return "".join(
            f"; {name} was restarted {times} times, last: {_last_line(self.log(name))}"
            for name, times in sorted(self.restarts.items())
        )

    def log(self, name: str) -> Path:
        """Return the path of a child's log."""
        return self._log_dir / f"{name}.log"

    async def stop(self, *stages: Collection[str], grace_s: float = 20) -> None:
        """Ask the children of each stage to end, and at last all others; kill what is left of a stage after `grace_s`.

        Who needs another to finish its work comes in an earlier stage.
        """
        self._stopping = True
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        for stage in (*stages, self._processes):
            running = [
                process for name, process in self._processes.items() if name in stage and process.returncode is None
            ]
            _signal_all(running, signal.SIGCONT)  # a stopped process would not hear what follows
            _signal_all(running, signal.SIGTERM)
            _, late = await _wait_all(running, grace_s)
            _signal_all(late, signal.SIGKILL)
            await _wait_all(late, grace_s)

    async def _spawn(self, spec: ChildSpec) -> asyncio.subprocess.Process:
        inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        with self.log(spec.name).open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *spec.argv,
                env={**inherited, **spec.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    async def _watch(self, spec: ChildSpec) -> None:
        backoff_s, started = _FIRST_BACKOFF_S, time.monotonic()
        while True:
            await self._processes[spec.name].wait()
            if self._stopping:
                return
            backoff_s = _FIRST_BACKOFF_S if time.monotonic() - started > _STEADY_S else backoff_s
            await asyncio.sleep(backoff_s)
            backoff_s, started = min(backoff_s * 2, _LONGEST_BACKOFF_S), time.monotonic()
            self.restarts[spec.name] += 1
            self._processes[spec.name] = await self._spawn(spec)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").rstrip().splitlines() if log.exists() else []
    return lines[-1][:_SAID_CHARACTERS] if lines else "nothing"


def _signal_all(processes: list[asyncio.subprocess.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


async def _wait_all(
    processes: list[asyncio.subprocess.Process], timeout_s: float
) -> tuple[list[asyncio.subprocess.Process], list[asyncio.subprocess.Process]]:
    """Return (ended, still running) after at most `timeout_s`."""
    if processes:
        await asyncio.wait([asyncio.create_task(process.wait()) for process in processes], timeout=timeout_s)
    ended = [process for process in processes if process.returncode is not None]
    return ended, [process for process in processes if process.returncode is None]
