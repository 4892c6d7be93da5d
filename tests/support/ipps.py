"""The PromptPay provider's simulator as a process of its own, with its durable book and quick faults."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters.promptpay.simulator.book import Executed, read_book
from tests.support.simulators import running_simulator

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
    with running_simulator("adapters.promptpay.simulator", book, SECRET, *options) as url:
        yield RunningIpps(url, book)
