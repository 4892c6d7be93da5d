"""The PromptPay provider's simulator as a process of its own, with its durable book and quick faults."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from adapters.promptpay.simulator.book import Executed, read_book
from fleet.stack.processes import free_port

SECRET = "simulator-test-secret"


@dataclass(frozen=True, slots=True)
class RunningIpps:
    """A simulator that answers."""

    url: str
    book: Path

    def executed(self, reference: str) -> list[Executed]:
        """Return what the provider's own book shows as paid under a reference."""
        return [entry for entry in read_book(self.book) if entry.reference == reference]


@contextmanager
def running_ipps(book: Path, *options: str) -> Iterator[RunningIpps]:
    """Run a simulator that withholds timed-out answers for 3 s and settles slow ones after 0.3 s."""
    port = free_port()
    argv = [sys.executable, "-m", "adapters.promptpay.simulator", "--port", str(port), "--db", str(book)]
    argv += ["--secret", SECRET, "--timeout-delay-s", "3", "--settle-after-s", "0.3", *options]
    process = subprocess.Popen(argv)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_it_answers(url)
        yield RunningIpps(url, book)
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
