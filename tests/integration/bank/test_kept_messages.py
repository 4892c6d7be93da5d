"""The bank's messages by way of a real core: each is read from the bank once, whichever process starts later."""

from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from adapters.bank.kept import KeptMessages
from adapters.bank.mailbox import Mailbox
from adapters.bank.settings import BankSettings
from adapters.bank.watcher import Watcher
from adapters.runtime.core_client import CoreClient, CoreRefusedError
from adapters.runtime.watching import CoreListener
from adapters.testkit.files import FilesInMemory
from core.api.serve import internal_app
from core.domain.context import Context
from fleet.stack.processes import free_port
from fleet.stack.provision import RoleUrls
from schemas.bank_messages import MessagesAsked, MessagesKept, MessageToKeep
from tests.integration.permits.conftest import RAIL, NeverThrottled, World, open_world
from tests.support.live_api import serving
from tests.unit.bank.test_announced_returns import announcement, pacs004
from tests.unit.bank.test_unnamed_movements import ACCOUNT
from wire.client import StreamServers


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
    # Both ends of each page are compared with the bank's: were one another, the numbers would mean something else.
    assert bank.read == Counter([1, 50, 51, 100, 101, 120, 121])
    bank.messages[122] = b"<newer/>"
    assert await first.message(121) == b"<new/>"
    assert await first.message(122) == b"<newer/>"
    sealed = await world.admin.fetchval("SELECT ciphertext FROM fleet.rail_messages WHERE number = 1")
    assert b"message" not in sealed


async def test_an_announced_return_outlives_the_process_that_read_it_and_is_kept_once(
    world: World, core: CoreClient
) -> None:
    bank = Bank(0)
    bank.messages = {1: pacs004(1, announcement("SOMEBODYELSES"))}
    for _ in range(2):  # the second is another process, after the first one ended
        mailbox = Mailbox(started(bank, core), ACCOUNT)
        settings = BankSettings(base_url="http://bank", account=ACCOUNT)
        watcher = Watcher("bank", mailbox, FilesInMemory(), settings)
        await mailbox.read()
        await watcher.tell(CoreListener(core, StreamServers("redis://127.0.0.1:9", "test")))
    rows = await world.admin.fetch(
        "SELECT rail, provider_account, name, reference, amount_minor, provider_reason FROM fleet.announced_returns"
    )
    assert [tuple(row) for row in rows] == [(RAIL, "bank-1", "R-1", "SOMEBODYELSES", 4_000, "AC04")]
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.evidence WHERE kind = 'announced_return'") == 1


async def test_a_bank_that_numbers_anew_is_read_and_not_what_was_kept(core: CoreClient) -> None:
    await read_all(started(Bank(3), core))
    other = Bank(3)
    other.messages = {number: body + b"<!-- other -->" for number, body in other.messages.items()}
    assert await read_all(started(other, core)) == list(other.messages.values())


async def test_what_a_process_read_past_the_end_of_the_old_numbers_hides_none_of_the_new_ones(
    world: World, core: CoreClient
) -> None:
    old = Bank(20)
    running = started(old, core)
    assert len(await read_all(running)) == 20
    # The bank begins anew, and by the time the running process asks again it is past where that one stands.
    new = Bank(0)
    new.messages = {number: f"<new>{number}</new>".encode() for number in range(1, 41)}
    old.messages = new.messages
    for number in range(21, 41):
        assert await running.message(number) == new.messages[number]
    assert await read_all(started(new, core)) == list(new.messages.values())
    # From there the new numbers are kept, and the old ones lie beside them, unused.
    new.read.clear()
    assert await read_all(started(new, core)) == list(new.messages.values())
    assert new.read == Counter([1, 40])
    rows = await world.admin.fetch("SELECT series, count(*) FROM fleet.rail_messages GROUP BY series ORDER BY series")
    assert [tuple(row) for row in rows] == [(1, 40), (2, 40)]


async def test_a_bank_that_has_sent_less_since_it_numbers_anew_is_read_and_its_next_messages_are_not_hidden(
    core: CoreClient,
) -> None:
    await read_all(started(Bank(20), core))
    new = Bank(0)
    new.messages = {number: f"<new>{number}</new>".encode() for number in range(1, 6)}
    reader = started(new, core)
    assert await read_all(reader) == list(new.messages.values())
    new.messages |= {number: f"<new>{number}</new>".encode() for number in range(6, 31)}
    assert [await reader.message(number) for number in range(6, 31)] == list(new.messages.values())[5:]
    assert await read_all(started(new, core)) == list(new.messages.values())


@pytest.mark.parametrize("shared", [False, True])
async def test_a_key_for_some_tenants_neither_reads_nor_forges_messages_of_an_account_that_is_anothers_too(
    world: World, core: CoreClient, *, shared: bool
) -> None:
    bank = Bank(3)
    await read_all(started(bank, core))
    ours, theirs = world.caller.tenant_id, uuid4()
    for tenant in (theirs, ours) if shared else (theirs,):
        await world.admin.execute(
            "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account, environment)"
            " VALUES ($1, 'PAYOUT', 'THB', $2, 'p', 'bank-1', 'sandbox')", tenant, RAIL
        )  # fmt: skip
    made = {
        name: await world.core.keys.create(Context(None, "test"), tenant_id=ours, name=name, rail=RAIL, serves=serves)
        for name, serves in (("ours", [ours]), ("both", [ours, theirs]))
    }
    forged = MessageToKeep.model_construct(provider_account="bank-1", environment="sandbox", number=4, body=b"<f/>")
    asked = MessagesAsked(provider_account="bank-1", environment="sandbox", first=1).model_dump_json().encode()
    async with serving(world.core, internal_app(world.core, NeverThrottled())) as url:
        limited, both = (CoreClient(url, key_id=key.id, secret=key.secret) for key in made.values())
        for path, body in (("/kept", asked), ("", forged.model_dump_json().encode())):
            with pytest.raises(CoreRefusedError, match="operation_not_permitted"):
                await limited.ask(f"/internal/v1/messages{path}", body)
        # Who serves every tenant of the account reads it.
        found = MessagesKept.model_validate_json(await both.ask("/internal/v1/messages/kept", asked))
        # The one that is refused loses nothing: it reads from the bank.
        assert await read_all(started(bank, limited)) == list(bank.messages.values())
        await limited.close()
        await both.close()
    assert [each.number for each in found.items] == [1, 2, 3]
    assert await world.admin.fetchval("SELECT max(number) FROM fleet.rail_messages") == 3


async def test_while_the_core_is_away_the_bank_is_read(core: CoreClient) -> None:
    bank = Bank(3)
    await read_all(started(bank, core))
    away = CoreClient(f"http://127.0.0.1:{free_port()}", key_id="k", secret="s", timeout_s=0.2, budget_s=0.2)
    assert await read_all(started(bank, away)) == list(bank.messages.values())
    await away.close()
