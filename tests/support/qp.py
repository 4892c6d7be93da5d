"""The SBP provider's simulator as a process of its own, with its durable book and quick faults."""

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
from schemas.rails import Timing
from tests.support.simulators import CALL_S, running_simulator

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
    http = provider_client(url, call_total_s=CALL_S, connect_s=CALL_S, max_connections=20)
    timing = Timing(send_by_s=1, call_total_s=2 * CALL_S, claim_idle_s=4 * CALL_S)
    return SbpRail(QpClient(http, SECRET), chosen, timing)


@contextmanager
def running_qp(book: Path, *options: str) -> Iterator[RunningQp]:
    """Run a simulator that withholds timed-out answers for three times CALL_S and ends slow payouts after 0.3 s."""
    with running_simulator("adapters.sbp.simulator", book, SECRET, *options) as url:
        yield RunningQp(url, book)
