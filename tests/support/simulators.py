"""A provider's simulator as a process of its own, with its durable book and quick faults."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from adapters.testkit.serving import SECRET_VARIABLE
from fleet.stack.processes import free_port

CALL_S: Final = 2.0
"""How long tests wait for a provider: a simulator that was starved for more than a second has not timed out."""


@contextmanager
def running_simulator(module: str, book: Path, secret: str, *options: str) -> Iterator[str]:
    """Yield a simulator's address. It withholds timed-out answers for 3 CALL_S and ends slow payments after 0.3 s."""
    port = free_port()
    argv = [sys.executable, "-m", module, "--port", str(port), "--db", str(book)]
    argv += ["--timeout-delay-s", str(3 * CALL_S), "--settle-after-s", "0.3", *options]
    process = subprocess.Popen(argv, env={**os.environ, SECRET_VARIABLE: secret})
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_it_answers(url)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_it_answers(url: str) -> None:
    for _ in range(200):
        try:
            if httpx.get(f"{url}/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError(f"the simulator at {url} does not answer")
