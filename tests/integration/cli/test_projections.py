"""`projections` on a database of its own: exit codes, the dry run, and what --yes does."""

import time
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.domain.ids import mint_id
from fleet.stack.provision import RoleUrls
from tests.support.commands import Fleet


@pytest.fixture(autouse=True)
def servers(fleet: Fleet, fresh_database: RoleUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_WORKER_URL", fresh_database.worker)


async def account(connection: asyncpg.Connection) -> UUID:
    account_id = mint_id(time.time_ns() // 1_000_000)
    await connection.execute(
        "INSERT INTO fleet.accounts (id, tenant_id, ledger, code, flags) VALUES ($1, $2, 764, 1, 0)",
        account_id,
        uuid4(),
    )
    return account_id


async def test_what_differs_is_shown_first_and_made_anew_when_told_to(
    fleet: Fleet, admin_connection: asyncpg.Connection
) -> None:
    account_id = await account(admin_connection)
    assert (await fleet("projections", "verify")).code == 0
    await admin_connection.execute("UPDATE fleet.accounts SET debits_posted = 5")
    shown = await fleet("projections", "verify", "--json")
    assert shown.code == 1
    (found,) = shown.document["differences"]
    assert (found["id"], found["stored"], found["history"]) == (str(account_id), "0/5/0/0", "0/0/0/0")
    assert (await fleet("projections", "verify", "--only", "intents")).code == 0
    assert "add --yes" in (await fleet("projections", "rebuild")).out
    assert await admin_connection.fetchval("SELECT debits_posted FROM fleet.accounts") == 5
    assert (await fleet("projections", "verify", "--only", "account_balance")).code == 1
    assert (await fleet("projections", "verify", "--only", "tx_history")).code == 0, "it is no wallet's"
    assert (await fleet("projections", "rebuild", "--yes", "--json")).document["remade"] == [str(account_id)]
    assert (await fleet("projections", "verify")).code == 0
