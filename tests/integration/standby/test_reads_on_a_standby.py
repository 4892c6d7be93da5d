"""A real standby answers what may be a little old; the primary answers it where the standby is away or behind."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.bootstrap import Core, open_core
from core.domain.context import Context
from core.services.access.keys import Caller
from core.services.payments.read_intents import IntentFilter
from core.services.wallets.histories import EntryFilter, read_history
from core.settings import Settings
from core.store.database import Database
from core.store.replica import Replica
from fleet.stack.postgres import EmbeddedPostgres
from fleet.stack.provision import RoleUrls, Secrets, create_database, provision, role_urls, with_database
from schemas.api import IntentRequest, WalletRequest
from tests.support.servers import scratch_directory
from tests.support.standby import standby_of
from tests.support.waiting import until_async

pytestmark = pytest.mark.timeout(240)


@dataclass
class Pair:
    primary: EmbeddedPostgres
    standby: EmbeddedPostgres
    urls: RoleUrls
    read_url: str
    caller: Caller


@pytest.fixture(scope="module")
async def pair() -> AsyncIterator[Pair]:
    """Two servers, the second following the first; a migrated database with a tenant."""
    with scratch_directory() as home:
        primary = EmbeddedPostgres(home / "primary", fsync="off")
        primary.start()
        kept = Secrets.generate()
        urls = await provision(await create_database(primary.admin_url, "fleet"), kept)
        tenant = uuid4()
        connection = await asyncpg.connect(urls.admin)
        await connection.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'shop')", tenant)
        await connection.close()
        standby = standby_of(primary, home / "standby")
        read_url = role_urls(with_database(standby.admin_url, "fleet"), kept).app
        yield Pair(primary, standby, urls, read_url, Caller("key", tenant, "service", None, frozenset({"*"}), None))
        standby.stop()
        primary.stop()


def settings(pair: Pair, read_url: str | None) -> Settings:
    return Settings(
        DATABASE_URL=pair.urls.app,
        DATABASE_WORKER_URL=pair.urls.worker,
        DATABASE_READ_URL=read_url,
        REDIS_URL="redis://127.0.0.1:1/0",
        master_key=base64.b64encode(bytes(32)).decode(),
        read_behind_max_s=5,
    )


async def in_recovery(core: Core) -> bool:
    """Whether what may be old is read on the standby now."""
    async with core.read_ports.unit_of_work(Context(None, "test")) as uow:
        found: bool = await uow.connection.fetchval("SELECT pg_is_in_recovery()")
    return found


async def funded(core: Core, caller: Caller) -> UUID:
    view, _ = await core.wallets.create(caller, WalletRequest(owner="anna", currency="THB"))
    asked = {"operation": "MANUAL_ADJUSTMENT", "wallet_id": view.id, "amount_minor": 700, "currency": "THB"}
    may = Caller(
        caller.key_id,
        caller.tenant_id,
        "service",
        None,
        frozenset({"*", "MANUAL_ADJUSTMENT", "ADJUSTMENT_ALONE"}),
        None,
    )
    await core.accept.accept(may, uuid4().hex, IntentRequest.model_validate(asked))
    return view.id


async def test_lists_and_histories_come_from_the_standby_and_writes_go_to_the_primary(pair: Pair) -> None:
    async with open_core(settings(pair, pair.read_url)) as core:
        wallet = await funded(core, pair.caller)
        assert await in_recovery(core)

        async def has_come() -> bool:
            rows, _ = await core.read.page(pair.caller, IntentFilter(wallet_id=wallet), None, 10)
            return [row.amount_minor for row in rows] == [700]

        await until_async(has_come)
        wanted = EntryFilter()
        shown = await read_history(core.ports, pair.caller, wallet, wanted, None, 10, core.read_ports.unit_of_work)
        assert [(entry.amount_minor, entry.balance_minor) for entry in shown.items] == [(700, 700)]
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            async with core.read_ports.unit_of_work(pair.caller.context()) as uow:
                await uow.connection.execute("DELETE FROM fleet.outbox")


async def test_without_a_standby_nothing_changes(pair: Pair) -> None:
    async with open_core(settings(pair, None)) as core:
        assert core.read_ports is core.ports
        assert not await in_recovery(core)


async def test_a_standby_that_is_behind_is_not_read_until_it_has_caught_up(pair: Pair) -> None:
    primary, standby = await Database.connect(pair.urls.app), await Database.connect(pair.read_url)
    owner = await asyncpg.connect(with_database(pair.standby.admin_url, "fleet"))
    writer = await asyncpg.connect(pair.urls.admin)
    await owner.execute("SELECT pg_wal_replay_pause()")
    await writer.execute("UPDATE fleet.tenants SET name = name || '!'")

    async def came() -> bool:
        behind = "SELECT pg_last_wal_receive_lsn() > pg_last_wal_replay_lsn() AND pg_is_wal_replay_paused()"
        return bool(await owner.fetchval(behind))

    await until_async(came)

    async def recovers(behind_max_s: float) -> bool:
        async with Replica(primary, standby, behind_max_s).unit_of_work(Context(None, "test")) as uow:
            return bool(await uow.connection.fetchval("SELECT pg_is_in_recovery()"))

    assert not await recovers(0.0)
    await owner.execute("SELECT pg_wal_replay_resume()")
    await until_async(lambda: recovers(0.0))
    for each in (owner, writer):
        await each.close()
    for database in (primary, standby):
        await database.close()


async def test_a_standby_that_is_away_costs_nothing_but_its_help(pair: Pair) -> None:
    async with open_core(settings(pair, pair.read_url)) as core:
        assert await in_recovery(core)
        pair.standby.stop()
        wallet = await funded(core, pair.caller)
        rows, _ = await core.read.page(pair.caller, IntentFilter(wallet_id=wallet), None, 10)
        assert [row.amount_minor for row in rows] == [700], "the primary shows it at once"
    async with open_core(settings(pair, pair.read_url)) as core:
        assert not await in_recovery(core), "a process starts without its standby"
