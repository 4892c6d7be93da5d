"""The SBP provider's simulator as a process of its own, with its durable book and quick faults."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from adapters.runtime.http import provider_client
from adapters.sbp.adapter import SbpRail
from adapters.sbp.client import QpClient
from adapters.sbp.settings import SbpSettings
from adapters.sbp.simulator.book import Executed, read_book
from fleet.stack.processes import free_port
from schemas.rails import Timing

SECRET = "qp-test-secret"
PHONE, BANK = "79161234567", "100000000004"


@dataclass(frozen=True, slots=True)
class RunningQp:
    """A simulator that answers."""

    url: str
    book: Path

    def executed(self, reference: str) -> list[Executed]:
        """Return what the provider's own book shows as paid under a reference."""
        return [entry for entry in read_book(self.book) if entry.reference == reference]

    async def script(self, fault: str, **rule: object) -> None:
        """Add a fault in front of the others."""
        async with httpx.AsyncClient(base_url=self.url) as control:
            assert (await control.post("/_control/faults", json={"fault": fault, **rule})).is_success


def rail_at(url: str, **settings: object) -> SbpRail:
    """Return the rail over its own connections to a simulator, with a short time-out."""
    chosen = SbpSettings.model_validate({"base_url": url, "secret": SECRET, **settings})
    http = provider_client(url, call_total_s=0.5, connect_s=0.5, max_connections=20)
    return SbpRail(QpClient(http, SECRET), chosen, Timing(send_by_s=1, call_total_s=2, claim_idle_s=4))


@contextmanager
def running_qp(book: Path, *options: str) -> Iterator[RunningQp]:
    """Run a simulator that withholds timed-out answers for 3 s and ends slow payouts after 0.3 s."""
    port = free_port()
    argv = [sys.executable, "-m", "adapters.sbp.simulator", "--port", str(port), "--db", str(book)]
    argv += ["--secret", SECRET, "--timeout-delay-s", "3", "--settle-after-s", "0.3", *options]
    process = subprocess.Popen(argv)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_it_answers(url)
        yield RunningQp(url, book)
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
