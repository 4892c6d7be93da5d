"""What each database role may touch, tried as that role."""

from uuid import UUID, uuid4

import asyncpg
import pytest

from fleet.stack.provision import RoleUrls
from schemas.ids import mint_id

_INTENT = """INSERT INTO fleet.intents (id, tenant_id, service_key_id, operation, state, version, wallet_id,
    amount_minor, currency, accept_state) VALUES ($1, $2, 'k', 'PAYOUT', 'VALIDATED', 1, $2, 5, 'THB', 'VALIDATED')"""
_EVENT = """INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor)
    VALUES ($1, 1, $2, 'accepted', 'VALIDATED', 'test')"""


async def intent_of(url: str, tenant: UUID) -> UUID:
    connection = await asyncpg.connect(url)
    intent_id = mint_id(1_800_000_000_000)
    async with connection.transaction():
        await connection.execute("SELECT set_config('fleet.tenant', $1, true)", str(tenant))
        await connection.execute(_INTENT, intent_id, tenant)
        await connection.execute(_EVENT, intent_id, tenant)
    await connection.close()
    return intent_id


async def test_a_tenant_sees_its_own_intents_and_background_work_sees_all(fresh_database: RoleUrls) -> None:
    mine, other = uuid4(), uuid4()
    await intent_of(fresh_database.app, mine)
    await intent_of(fresh_database.app, other)
    app = await asyncpg.connect(fresh_database.app)
    assert await app.fetchval("SELECT count(*) FROM fleet.intents") == 0
    async with app.transaction():
        await app.execute("SELECT set_config('fleet.tenant', $1, true)", str(mine))
        assert [row["tenant_id"] for row in await app.fetch("SELECT tenant_id FROM fleet.intents")] == [mine]
        assert await app.fetchval("SELECT max(epoch) FROM fleet.ledger_epochs") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with app.transaction():
                await app.execute(_INTENT, mint_id(1_800_000_000_000), other)
    await app.close()
    worker = await asyncpg.connect(fresh_database.worker)
    assert await worker.fetchval("SELECT count(*) FROM fleet.intents") == 2
    await worker.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE fleet.intent_events SET type = 'other'",
        "DELETE FROM fleet.intent_events",
        "TRUNCATE fleet.intents",
        "DELETE FROM fleet.intents",
        "UPDATE fleet.intents SET amount_minor = 6",
        "UPDATE fleet.jobs SET reference = 'OTHER'",
        "UPDATE fleet.jobs SET amount_minor = 6",
        "UPDATE fleet.attempts SET granted_at = now()",
        "DELETE FROM fleet.attempts",
        "UPDATE fleet.facts SET body = '{}'",
        "DELETE FROM fleet.facts",
        "DELETE FROM fleet.evidence",
        "DELETE FROM fleet.idempotency_keys",
        "DELETE FROM fleet.dead_letters",
    ],
)
async def test_no_process_rewrites_history_or_money(fresh_database: RoleUrls, statement: str) -> None:
    for url in (fresh_database.app, fresh_database.worker):
        connection = await asyncpg.connect(url)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
        await connection.close()


async def test_the_application_grants_no_permit_and_reads_no_evidence(fresh_database: RoleUrls) -> None:
    app = await asyncpg.connect(fresh_database.app)
    for statement in (
        "UPDATE fleet.jobs SET fence = 2",
        "INSERT INTO fleet.attempts (job_id) VALUES (NULL)",
        "SELECT ciphertext FROM fleet.evidence",
        "UPDATE fleet.facts SET applied_at = now()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(statement)
    await app.close()


async def test_even_the_owner_cannot_edit_an_event(
    fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    await intent_of(fresh_database.app, uuid4())
    with pytest.raises(asyncpg.RestrictViolationError):
        await admin_connection.execute("DELETE FROM fleet.intent_events")
    options = await admin_connection.fetch(
        "SELECT reloptions FROM pg_class WHERE relname LIKE 'jobs\\_p%' AND relkind = 'r'"
    )
    assert options
    assert all("fillfactor=40" in row["reloptions"] for row in options)
