"""`fleet purge` on a real database: what goes, what stays, and the wall around money."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.ids import mint_id
from core.services.on_call.purge import Purger
from core.services.recon.recon import reconcile_intents
from core.store.database import Database
from core.store.on_call.audit import AuditStore
from core.store.on_call.purge import PurgeStore
from fleet.stack.provision import RoleUrls
from tests.integration.permits.conftest import World, open_world, pay_job
from tests.support.commands import Fleet

OLD = datetime.now(UTC) - timedelta(days=3000)
MONEY = (
    "accounts", "transfers", "transfer_resolutions", "intents", "jobs", "attempts", "facts", "idempotency_keys",
    "wallets", "wallet_events", "provider_payments", "provider_payment_names", "provider_payment_sources",
    "suspense_decisions", "collections", "audit_entries", "intent_events",
)  # fmt: skip
PLANTED = (
    "INSERT INTO fleet.request_nonces (tenant_id, key_id, nonce, seen_at) VALUES ($1, 'k', gen_random_uuid(), $2)",
    (
        "INSERT INTO fleet.quotes (id, tenant_id, service_key_id, wallet_id, counterparty_wallet_id, from_currency,"
        " to_currency, from_minor, to_minor, spread_minor, side, base, counter, rate_units, rate_scale, rate_version,"
        " spread_basis_points, created_at, expires_at, intent_id) VALUES (fleet.first_id_at($2), $1, 'k',"
        " gen_random_uuid(), gen_random_uuid(), 'THB', 'EUR', 1, 1, 0, 'FROM', 'THB', 'EUR', 1, 0, 1, 0, $2, $2, NULL)"
    ),
    (
        "WITH one AS (INSERT INTO fleet.people (id, tenant_id, name, role, secret, created_by)"
        " VALUES (gen_random_uuid(), $1, gen_random_uuid()::text, 'viewer', '', 'test') RETURNING id)"
        " INSERT INTO fleet.console_sessions (hash, tenant_id, person_id, expires_at)"
        " SELECT sha256(gen_random_uuid()::text::bytea), $1, id, $2 FROM one"
    ),
    (
        "INSERT INTO fleet.webhook_deliveries (endpoint_id, position, tenant_id, intent_id, seq, type, state,"
        " created_at, ended_at) VALUES (gen_random_uuid(), 1, $1, gen_random_uuid(), 1, 'settled', 'DELIVERED', $2, $2)"
    ),
    (
        "INSERT INTO fleet.alerts (id, tenant_id, severity, kind, detail, raised_at, closed_at, closed_by,"
        " closed_because) VALUES (gen_random_uuid(), $1, 'ticket', 'x', 'x', $2, $2, 'person:anna', 'seen')"
    ),
    (
        "INSERT INTO fleet.dead_letters (id, tenant_id, stream, entry_id, rail, error_class, fingerprint, message,"
        " deliveries, body, state, received_at, closed_at) VALUES (gen_random_uuid(), $1, 's', gen_random_uuid(), 'r',"
        " 'c', 'f', 'm', 3, '', 'CLOSED', $2, $2)"
    ),
    (
        "INSERT INTO fleet.paid_transactions (claim, tenant_id, intent_id)"
        " VALUES (uuid_send(gen_random_uuid()), $1, fleet.first_id_at($2))"
    ),
    (
        "INSERT INTO fleet.evidence (id, tenant_id, rail, kind, ciphertext, received_at)"
        " VALUES (gen_random_uuid(), $1, 'r', 'k', '', $2)"
    ),
)
KINDS = ("nonces", "quotes", "sessions", "webhooks", "alerts", "dead_letters", "evidence", "paid_transactions")


@pytest.fixture(autouse=True)
def servers(fleet: Fleet, fresh_database: RoleUrls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_WORKER_URL", fresh_database.worker)


async def plant(connection: asyncpg.Connection, at: datetime) -> None:
    """Plant one row of each kind that was over at that time."""
    for statement in PLANTED:
        await connection.execute(statement, UUID(int=7), at)


def rows(document: dict[str, list[dict[str, object]]]) -> dict[object, object]:
    return {each["kind"]: each["rows"] for each in document["purged"] if each["rows"]}


async def test_what_is_old_is_counted_first_and_lost_when_told_to(
    fleet: Fleet, admin_connection: asyncpg.Connection
) -> None:
    for at in (OLD, datetime.now(UTC)):
        await plant(admin_connection, at)
    for _ in range(2):
        assert rows((await fleet("purge", "--json")).document) == dict.fromkeys(KINDS, 1)
    assert rows((await fleet("purge", "--yes", "--json")).document) == dict.fromkeys(KINDS, 1)
    assert rows((await fleet("purge", "--yes", "--json")).document) == {}, "what is young stays"
    told = await admin_connection.fetch(
        "SELECT action, subject, data FROM fleet.audit_entries WHERE actor = 'fleet-cli' ORDER BY seq"
    )
    assert [(row["action"], row["subject"]) for row in told] == [("purged", kind) for kind in KINDS]
    assert all('"rows":1' in row["data"] for row in told)


async def test_what_somebody_still_needs_stays_however_old(
    fleet: Fleet, fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    async with open_world(fresh_database, admin_connection) as world:
        await world.register()
        intent = await world.pay(await world.wallet(1000))
        await world.sent(intent)
        await plant(admin_connection, OLD)
        await admin_connection.execute("UPDATE fleet.evidence SET job_id = $1", pay_job(intent))
        await admin_connection.execute("UPDATE fleet.quotes SET intent_id = $1", intent)
        await admin_connection.execute("UPDATE fleet.webhook_deliveries SET state = 'PENDING', ended_at = NULL")
        await admin_connection.execute("UPDATE fleet.dead_letters SET state = 'OPEN', closed_at = NULL")
        await admin_connection.execute("UPDATE fleet.alerts SET closed_at = NULL")
        await admin_connection.execute("UPDATE fleet.console_sessions SET expires_at = now() + interval '1 hour'")
        assert rows((await fleet("purge", "--yes", "--json")).document) == {"nonces": 1, "paid_transactions": 1}
        await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="T1")
        assert (await world.state(intent))[0] == "SETTLED"
        assert rows((await fleet("purge", "--yes", "--json")).document) == {"evidence": 1}
        await world.prove()


async def test_a_run_that_was_killed_is_run_again_to_its_end(
    fleet: Fleet, fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    for _ in range(7):
        await admin_connection.execute(PLANTED[-1], UUID(int=7), OLD)
    database = await Database.connect(fresh_database.worker)
    left = iter((True, True, True))

    def dying():  # type: ignore[no-untyped-def]
        next(left)  # StopIteration is the kill: two batches of two were lost before it
        return database.unit_of_work(Context(None, "test"))

    with pytest.raises((StopIteration, RuntimeError)):
        await Purger(PurgeStore(), AuditStore(), dying, "test", 2).run({"evidence": timedelta(days=400)}, lose=True)
    await database.close()
    assert await admin_connection.fetchval("SELECT count(*) FROM fleet.evidence") == 3
    assert rows((await fleet("purge", "--yes", "--batch", "2", "--json")).document) == {"evidence": 3}
    told = await admin_connection.fetch("SELECT action FROM fleet.audit_entries ORDER BY seq")
    assert [row["action"] for row in told] == ["purge_began", "purge_began", "purged"]


async def test_neither_the_command_nor_the_owner_loses_what_is_about_money(
    fleet: Fleet, fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    worker = await asyncpg.connect(fresh_database.worker)
    for table in MONEY:
        parts = await admin_connection.fetch(
            "SELECT relid::text FROM pg_partition_tree($1::regclass)", f"fleet.{table}"
        )
        for name in [row["relid"] for row in parts] or [f"fleet.{table}"]:
            for statement in (f"DELETE FROM {name}", f"TRUNCATE {name} CASCADE"):
                with pytest.raises(asyncpg.RestrictViolationError):
                    await admin_connection.execute(statement)
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await worker.execute(statement)
        with pytest.raises(asyncpg.RestrictViolationError, match="nothing of kind"):
            await worker.fetchval("SELECT fleet.purge($1, now() - interval '9 years', 10, true)", table)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await worker.execute("INSERT INTO fleet.retention VALUES ('intents', 'intents', 'id', 'true', '1 day')")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await worker.execute("DROP TABLE fleet.intents")
    await worker.close()
    (await fleet("purge", "--keep", "evidence=1", "--yes")).must_fail(3, "keep_too_short")
    (await fleet("purge", "--keep", "intents=1", "--yes")).must_fail(2, "keep_malformed")
    (await fleet("purge", "--only", "intents", "--yes")).must_fail(2, "kind_unknown")


async def old_months_of_events(connection: asyncpg.Connection) -> None:
    """Make months of events back to `OLD`, and of nothing else: nine tables for each month take seconds to make."""
    await connection.execute("DELETE FROM fleet.partitioned_tables WHERE table_name <> 'intent_events'")
    await connection.execute("SELECT fleet.ensure_partitions(102, 1)")


async def old_intent(world: World, state: str) -> UUID:
    """Leave an intent of years ago, as the tables would hold it."""
    intent = mint_id(int(OLD.timestamp() * 1000))
    await world.admin.execute(
        "INSERT INTO fleet.intents (id, tenant_id, service_key_id, operation, state, version, wallet_id, amount_minor,"
        " currency, accept_state) VALUES ($1, $2, 'k', 'PAYOUT', $3, 1, $4, 5, 'THB', 'FAILED')",
        intent,
        world.caller.tenant_id,
        state,
        uuid4(),
    )
    await world.admin.execute(
        "INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor, at)"
        " VALUES ($1, 1, $2, 'failed', $3, 'k', $4)",
        intent,
        world.caller.tenant_id,
        state,
        OLD,
    )
    return intent


async def test_a_month_of_events_is_dropped_once_all_in_it_is_decided(
    fleet: Fleet, fresh_database: RoleUrls, admin_connection: asyncpg.Connection
) -> None:
    await old_months_of_events(admin_connection)
    month = f"{OLD:%Y%m}"
    async with open_world(fresh_database, admin_connection) as world:
        parked = await old_intent(world, "UNRESOLVED")
        events = (await fleet("purge", "--only", "events", "--json")).document["purged"][0]
        assert events["kept"] == [{"month": month, "kept_because": "a payment of it is undecided"}]
        kept = (await fleet("purge", "--only", "events", "--yes", "--json")).document["purged"][0]
        assert month not in kept["months"]
        assert await admin_connection.fetchval("SELECT count(*) FROM fleet.intent_events") == 1
        await admin_connection.execute("UPDATE fleet.intents SET state = 'FAILED' WHERE id = $1", parked)
        gone = (await fleet("purge", "--only", "events", "--json")).document["purged"][0]
        assert gone["months"] == [month]
        assert (await fleet("purge", "--only", "events", "--yes", "--json")).document["purged"][0]["months"] == [month]
        assert await admin_connection.fetchval("SELECT count(*) FROM fleet.intents WHERE id = $1", parked) == 1
        assert await admin_connection.fetchval("SELECT count(*) FROM fleet.intent_events") == 0
        report = await reconcile_intents(world.core.worker_ports, Context(None, "test"), None)
        assert report.found == {}, "what was dropped contradicts nothing"
        await world.register()
        assert (await world.state(await world.pay(await world.wallet(500))))[0] == "AUTHORIZED"


async def test_a_month_stays_while_payments_are_under_way_on_its_table(
    fleet: Fleet, fresh_database: RoleUrls, admin_connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await old_months_of_events(admin_connection)
    database = await Database.connect(fresh_database.worker)
    async with admin_connection.transaction():
        await admin_connection.execute("LOCK TABLE fleet.intent_events IN ROW EXCLUSIVE MODE")
        async with database.unit_of_work(Context(None, "test")) as uow:
            assert not await PurgeStore().lose_month(uow, f"{OLD:%Y%m}", datetime.now(UTC) - timedelta(days=1000))
    async with database.unit_of_work(Context(None, "test")) as uow:
        assert await PurgeStore().lose_month(uow, f"{OLD:%Y%m}", datetime.now(UTC) - timedelta(days=1000))
    await database.close()
