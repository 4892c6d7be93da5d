"""The PromptPay provider's simulator as a process of its own, with its durable book and quick faults."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.promptpay.adapter import PromptPayRail
from adapters.promptpay.client import IppsClient
from adapters.promptpay.settings import PromptPaySettings
from adapters.promptpay.simulator.book import Executed, read_book
from adapters.runtime.http import provider_client
from schemas.rails import Timing
from tests.support.simulators import CALL_S, running_simulator

SECRET = "simulator-test-secret"


@dataclass(frozen=True, slots=True)
class RunningIpps:
    """A simulator that answers."""

    url: str
    book: Path

    def executed(self, reference: str) -> list[Executed]:
        """Return what the provider's own book shows as paid under a reference."""
        return [entry for entry in read_book(self.book) if entry.reference == reference]


def rail_at(url: str, *, call_total_s: float = CALL_S, **settings: object) -> PromptPayRail:
    """Return the rail over its own connections to a simulator, with a short time-out."""
    chosen = PromptPaySettings.model_validate({"base_url": url, "secret": SECRET, **settings})
    http = provider_client(url, call_total_s=call_total_s, connect_s=CALL_S, max_connections=20)
    timing = Timing(send_by_s=1, call_total_s=2 * CALL_S, claim_idle_s=4 * CALL_S)
    return PromptPayRail(IppsClient(http, chosen.key_id, SECRET), chosen, timing)


@contextmanager
def running_ipps(book: Path, *options: str) -> Iterator[RunningIpps]:
    """Run a simulator that withholds timed-out answers for three times CALL_S and settles slow ones after 0.3 s."""
    with running_simulator("adapters.promptpay.simulator", book, SECRET, *options) as url:
        yield RunningIpps(url, book)
