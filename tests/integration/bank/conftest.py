"""One mock-bank for a file of tests, as new for each of them; the rail at it, and what it is asked to pay and draw."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from adapters.bank.adapter import BankRail
from adapters.bank.client import BankClient
from adapters.runtime.http import provider_client
from adapters.runtime.port import Order, Outcome
from adapters.testkit.files import FilesInMemory
from schemas.operations import OperationType
from schemas.permits import Payee
from schemas.rails import Timing
from tests.support.bank import RunningBank, running_bank

RailAt = Callable[..., BankRail]
"""What makes a rail at a bank with its files; another `base_url` among the settings is where it asks."""


@pytest.fixture(scope="module")
def running() -> Iterator[RunningBank]:
    with running_bank() as bank:
        yield bank


@pytest.fixture
def bank(running: RunningBank) -> RunningBank:
    running.reset()
    return running


@pytest.fixture
async def rail_at() -> AsyncIterator[RailAt]:
    """Makes rails at a bank, and closes them however the test ends: one left open fails a later test."""
    made: list[BankRail] = []

    def make(
        bank: RunningBank, files: FilesInMemory, client: type[BankClient] = BankClient, **settings: Any
    ) -> BankRail:
        given = bank.settings(**settings)
        http = provider_client(given.base_url, call_total_s=2, connect_s=1, max_connections=5)
        made.append(BankRail(client(http), files, given, Timing(send_by_s=1, call_total_s=2, claim_idle_s=4)))
        return made[-1]

    yield make
    for each in made:
        await each.close()


@pytest.fixture
def rail(bank: RunningBank, rail_at: RailAt) -> BankRail:
    return rail_at(bank, FilesInMemory())


def order(amount_minor: int = 2_500, account: str = "0123456789") -> Order:
    payee = Payee(type="bank_account", value=f"004-{account}")
    return Order(uuid4(), uuid4().hex[:30].upper(), amount_minor, "THB", "bank-1", payee, "rent")


def debit(account: str = "004-0123456789") -> Order:
    payee = Payee(type="mandate", value=f"MANDATE-17;2026-01-05;RCUR;{account};Somchai Jaidee")
    operation = OperationType.DIRECT_DEBIT
    return Order(uuid4(), uuid4().hex[:16].upper(), 12_345, "THB", "bank-1", payee, "June", operation=operation)


async def paid(rail: BankRail, *orders: Order) -> list[Outcome]:
    """Return the rail's answers to orders, none of which it may fail to give."""
    answers = await rail.pay_many(orders)
    assert [each for each in answers if isinstance(each, Exception)] == []
    return [each for each in answers if isinstance(each, Outcome)]
