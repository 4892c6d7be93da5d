"""A tenant sees and moves its own money alone; background work sees all."""

from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest

from core.domain.context import Context
from core.services.ledger_port import LedgerUnavailableError
from core.store.database import Database
from core.store.ledger.ledger import PostgresLedger
from tests.support.ledger_world import LedgerWorld, linked

STRANGER = Context(uuid4(), "stranger")


async def test_a_stranger_sees_nothing(app: Database, ledger: PostgresLedger, world: LedgerWorld) -> None:
    moved = world.move(world.bank, world.wallet, 5)
    assert await ledger.apply(None, [moved]) == ["ok"]
    assert (await ledger.verify(None)).transfers == 1
    for context in (STRANGER, Context(None, "nobody")):
        stranger = PostgresLedger(app, context)
        assert await stranger.lookup_accounts(None, [world.bank]) == {}
        assert await stranger.lookup_transfers(None, [moved.id]) == {}
        assert (await stranger.account_history(None, world.wallet, None, 10)).entries == []
        assert (await stranger.verify(None)).accounts == 0


async def test_a_stranger_moves_nothing(app: Database, ledger: PostgresLedger, world: LedgerWorld) -> None:
    stranger = PostgresLedger(app, STRANGER)
    own = world.move(world.bank, world.wallet, 5)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await stranger.apply(None, [own])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await PostgresLedger(app, Context(None, "nobody")).apply(None, [own])
    # Under the stranger's own name the accounts do not exist for it, on the fast path and on the exact one.
    renamed = replace(own, tenant_id=STRANGER.tenant_id or own.id)
    assert await stranger.apply(None, [renamed]) == ["debit_account_not_found"]
    assert await stranger.apply(None, linked(renamed, renamed)) == ["debit_account_not_found", "linked_event_failed"]
    hold = world.hold(world.bank, world.wallet, 5)
    assert await ledger.apply(None, [hold]) == ["ok"]
    taken = replace(world.void(hold), tenant_id=STRANGER.tenant_id or own.id)
    assert await stranger.apply(None, [taken]) == ["debit_account_not_found"]
    assert (await ledger.verify(None)).pending_minor == 5


async def test_background_work_is_not_fooled_into_crossing_tenants(
    app: Database, worker: Database, world: LedgerWorld
) -> None:
    other = LedgerWorld(uuid4())
    strangers = PostgresLedger(app, Context(other.tenant_id, "other"))
    assert set(await strangers.create_accounts(None, other.accounts())) == {"ok"}
    everywhere = PostgresLedger(worker, Context(None, "worker"))
    mixed = [
        world.move(world.bank, world.wallet, 5),
        other.move(other.bank, other.wallet, 5),
        world.move(world.bank, other.wallet, 5),
        other.move(world.bank, other.wallet, 5),
    ]
    assert await everywhere.apply(None, mixed) == ["ok", "ok", "credit_account_not_found", "debit_account_not_found"]
    report = await everywhere.verify(None)
    assert report.holds
    assert (report.accounts, report.transfers) == (len([*world.accounts(), *other.accounts()]), 2)


async def test_an_id_of_another_tenant_is_unavailable_and_writes_nothing(
    app: Database, ledger: PostgresLedger, world: LedgerWorld
) -> None:
    other = LedgerWorld(uuid4())
    strangers = PostgresLedger(app, Context(other.tenant_id, "other"))
    assert set(await strangers.create_accounts(None, other.accounts())) == {"ok"}
    theirs = other.move(other.bank, other.wallet, 5)
    assert await strangers.apply(None, [theirs]) == ["ok"]
    with pytest.raises(LedgerUnavailableError):
        await ledger.apply(None, [world.move(world.bank, world.wallet, 1), replace(theirs, tenant_id=world.tenant_id,
            debit_account_id=world.bank, credit_account_id=world.wallet)])  # fmt: skip
    with pytest.raises(LedgerUnavailableError):
        await ledger.create_accounts(None, [replace(other.account(other.wallet), tenant_id=world.tenant_id)])
    assert (await ledger.verify(None)).transfers == 0
