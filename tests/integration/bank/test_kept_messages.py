"""The bank's messages by way of a real core: each is read from the bank once, whichever process starts later."""

from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest

from adapters.bank.kept import KeptMessages
from adapters.runtime.core_client import CoreClient
from core.api.serve import internal_app
from core.domain.context import Context
from fleet.stack.processes import free_port
from fleet.stack.provision import RoleUrls
from tests.integration.permits.conftest import RAIL, NeverThrottled, World, open_world
from tests.support.live_api import serving


class Bank:
    """Keeps its messages for ever, and counts how often each is read."""

    def __init__(self, count: int) -> None:
        self.messages = {number: f"<message>{number} \u0e3f</message>".encode() for number in range(1, count + 1)}
        self.read: Counter[int] = Counter()

    async def message(self, number: int) -> bytes | None:
        self.read[number] += number in self.messages
        return self.messages.get(number)


@pytest.fixture
async def world(fresh_database: RoleUrls, admin_connection: asyncpg.Connection) -> AsyncIterator[World]:
    async with open_world(fresh_database, admin_connection) as world:
        yield world


@pytest.fixture
async def core(world: World) -> AsyncIterator[CoreClient]:
    made = await world.core.keys.create(
        Context(None, "test"), tenant_id=world.caller.tenant_id, name="adapter", rail=RAIL
    )
    async with serving(world.core, internal_app(world.core, NeverThrottled())) as url:
        client = CoreClient(url, key_id=made.id, secret=made.secret)
        yield client
        await client.close()


async def read_all(messages: KeptMessages) -> list[bytes]:
    """Read as the mailbox does: from the first until there is none."""
    found: list[bytes] = []
    while (body := await messages.message(len(found) + 1)) is not None:
        found.append(body)
    return found


def started(bank: Bank, core: CoreClient) -> KeptMessages:
    """Return what a new process reads by."""
    return KeptMessages(bank, core, "bank-1", "sandbox")


async def test_what_one_process_read_is_asked_of_the_bank_by_none_that_starts_later(
    world: World, core: CoreClient
) -> None:
    bank = Bank(120)
    first = started(bank, core)
    assert await read_all(first) == list(bank.messages.values())
    assert bank.read == Counter(list(bank.messages))
    bank.messages[121] = b"<new/>"
    bank.read.clear()
    later = started(bank, core)
    assert await read_all(later) == list(bank.messages.values())
    # The last of each page is compared with the bank's: were it another, the numbers would mean something else.
    assert bank.read == Counter([50, 100, 120, 121])
    bank.messages[122] = b"<newer/>"
    assert await first.message(121) == b"<new/>"
    assert await first.message(122) == b"<newer/>"
    sealed = await world.admin.fetchval("SELECT ciphertext FROM fleet.rail_messages WHERE number = 1")
    assert b"message" not in sealed


async def test_a_bank_that_numbers_anew_is_read_and_not_what_was_kept(core: CoreClient) -> None:
    await read_all(started(Bank(3), core))
    other = Bank(3)
    other.messages = {number: body + b"<!-- other -->" for number, body in other.messages.items()}
    assert await read_all(started(other, core)) == list(other.messages.values())


async def test_while_the_core_is_away_the_bank_is_read(core: CoreClient) -> None:
    bank = Bank(3)
    await read_all(started(bank, core))
    away = CoreClient(f"http://127.0.0.1:{free_port()}", key_id="k", secret="s", timeout_s=0.2, budget_s=0.2)
    assert await read_all(started(bank, away)) == list(bank.messages.values())
    await away.close()
