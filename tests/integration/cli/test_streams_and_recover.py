"""`streams status` on streams with work in them, and `recover` on a database of its own."""

import time
from typing import cast
from uuid import uuid4

import asyncpg
import pytest

from core.domain.context import Context
from core.domain.ids import mint_id
from core.store.database import Database
from core.store.settling.rails import register_rail
from fleet.stack.provision import RoleUrls
from schemas.streams import ADAPTERS_GROUP, CORE_GROUP, jobs_stream, results_stream
from tests.support.commands import Fleet
from wire.client import connect_redis
from wire.functions import ensure_groups, load_functions

WHY = ("--reason", "its host is gone")


@pytest.fixture(autouse=True)
def servers(fleet: Fleet, fresh_database: RoleUrls, fresh_redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_WORKER_URL", fresh_database.worker)
    monkeypatch.setenv("REDIS_URL", fresh_redis)


async def register(worker_url: str, *rails: str) -> None:
    database = await Database.connect(worker_url, max_size=1)
    async with database.unit_of_work(Context(None, "test")) as uow:
        for rail in rails:
            await register_rail(uow, rail, "{}", b"hash")
    await database.close()


async def test_a_core_without_a_rail_has_no_streams(fleet: Fleet) -> None:
    assert (await fleet("streams", "status", "--json")).document == []
    assert (await fleet("streams", "status")).out == "no rail has registered: start an adapter\n"


async def test_what_waits_and_what_is_held_is_shown_for_each_rail(
    fleet: Fleet, fresh_database: RoleUrls, fresh_redis: str
) -> None:
    await register(fresh_database.worker, "noop", "sbp", "sbp")
    client, jobs = connect_redis(fresh_redis, "test"), jobs_stream("sbp")
    await ensure_groups(client, "sbp")
    for number in range(5):
        await client.xadd(jobs, {"n": number})
    await client.xreadgroup(ADAPTERS_GROUP, "sbp-1", {jobs: ">"}, count=2)
    await client.xreadgroup(ADAPTERS_GROUP, "sbp-2", {jobs: ">"}, count=1)
    # A stream whose group is gone is not an empty one.
    await client.xadd(jobs_stream("noop"), {"n": 0})
    await client.aclose()
    rows = {row["stream"]: row for row in (await fleet("streams", "status", "--json")).document}
    assert len(rows) == 8
    busy = rows["{sbp}:jobs"]
    assert (busy["length"], busy["lag"], busy["pending"], busy["oldest_idle_s"]) == (5, 2, 3, 0)
    assert [(each["name"], each["pending"]) for each in busy["consumers"]] == [("sbp-1", 2), ("sbp-2", 1)]
    lost = rows["{noop}:jobs"]
    assert (lost["group_exists"], lost["length"], lost["lag"]) == (False, 1, None)
    table = (await fleet("streams", "status", "--rail", "sbp", "--rail", "sbp")).out
    assert table.count("{sbp}:jobs ") == 1
    assert "sbp-1=2, sbp-2=1" in table
    assert "noop" not in table


async def test_recover_changes_nothing_until_it_is_told_yes(fleet: Fleet, admin_connection: asyncpg.Connection) -> None:
    reason = f"restored {uuid4().hex}"
    epochs = "SELECT epoch, reason FROM fleet.ledger_epochs WHERE reason = $1"
    shown = (await fleet("recover", "--reason", reason, "--json")).document
    assert (shown["dry_run"], shown["raised_to"], shown["open_jobs"]) == (True, None, 0)
    assert await admin_connection.fetch(epochs, reason) == []
    done = (await fleet("recover", "--reason", reason, "--yes", "--json")).document
    assert (done["dry_run"], done["raised_to"]) == (False, shown["epoch"] + 1)
    assert [row["epoch"] for row in await admin_connection.fetch(epochs, reason)] == [done["raised_to"]]


async def test_an_epoch_is_cleared_once_and_only_after_it_was_raised(
    fleet: Fleet, admin_connection: asyncpg.Connection
) -> None:
    clear = ("recover", "--clear", "--reason", "the register was compared")
    (await fleet(*clear, "--yes")).must_fail(2, "epoch_not_raised")
    await fleet("recover", "--reason", "restored", "--yes")
    shown = (await fleet(*clear, "--json")).document
    assert (shown["dry_run"], shown["cleared"], shown["unanswered"]) == (True, False, 0)
    done = (await fleet(*clear, "--yes", "--json")).document
    assert done["cleared"]
    assert await admin_connection.fetchval("SELECT count(*) FROM fleet.ledger_epochs WHERE cleared_at IS NULL") == 0
    (await fleet(*clear, "--yes")).must_fail(2, "epoch_not_raised")


async def test_what_a_stuck_consumer_holds_is_shown_given_back_and_handed_over(fleet: Fleet, fresh_redis: str) -> None:
    client, jobs = connect_redis(fresh_redis, "test"), jobs_stream("sbp")
    await load_functions(client)
    await ensure_groups(client, "sbp")
    for number in range(3):
        await client.xadd(jobs, {"n": number})
    await client.xreadgroup(ADAPTERS_GROUP, "gone", {jobs: ">"}, count=3)
    held = (await fleet("streams", "pending", "sbp", "--stuck-s", "0", "--json")).document
    assert [(row["consumer"], row["deliveries"]) for row in held] == [("gone", 1)] * 3
    assert (await fleet("streams", "pending", "sbp", "--consumer", "other", "--json")).document == []
    release = ("streams", "release", "sbp", "--consumer", "gone", "--idle-s", "0", "--json")
    dry = (await fleet(*release)).document
    assert (dry["held"], dry["released"], dry["dry_run"]) == (3, 0, True)
    (await fleet(*release, "--yes")).must_fail(2, "reason_missing")
    assert (await fleet(*release, *WHY, "--yes")).document["released"] == 3
    again = (await fleet("streams", "pending", "sbp", "--json")).document
    assert {(row["stuck"], row["deliveries"]) for row in again} == {(True, 0)}
    claim = ("streams", "claim", "sbp", "--from", "gone", "--to", "new", "--json")
    assert (await fleet(*claim)).document["claimed"] == 0
    assert (await fleet(*claim, *WHY, "--yes")).document["claimed"] == 3
    assert {row["consumer"] for row in (await fleet("streams", "pending", "sbp", "--json")).document} == {"new"}
    await client.xack(jobs, ADAPTERS_GROUP, *[row["id"] for row in again])
    trimmed = {
        row["stream"]: row["trimmed"] for row in (await fleet("streams", "janitor", "sbp", *WHY, "--json")).document
    }
    assert trimmed[jobs] == 2
    await client.aclose()


async def test_a_silent_relief_that_holds_nothing_is_never_stuck_and_one_that_holds_is(
    fleet: Fleet, fresh_redis: str
) -> None:
    client, results = connect_redis(fresh_redis, "test"), results_stream("sbp")
    await ensure_groups(client, "sbp")
    await client.xgroup_createconsumer(results, CORE_GROUP, "core-1-relief")
    await client.xadd(results, {"n": 0})
    await client.xreadgroup(CORE_GROUP, "core-1", {results: ">"}, count=1)
    shown = {row["stream"]: row for row in (await fleet("streams", "status", "--rail", "sbp", "--json")).document}
    assert {each["name"]: each["pending"] for each in shown[results]["consumers"]} == {"core-1": 1, "core-1-relief": 0}
    everything = ("streams", "pending", "sbp", "--stuck-s", "0")
    assert {row["consumer"] for row in (await fleet(*everything, "--json")).document} == {"core-1"}
    assert "relief" not in (await fleet(*everything)).out
    await client.xadd(results, {"n": 1})
    await client.xreadgroup(CORE_GROUP, "core-1-relief", {results: ">"}, count=1)
    [line] = [each for each in (await fleet(*everything)).out.split("pending")[0].splitlines() if "-relief" in each]
    stream, consumer, holds, _, stuck = line.split()
    assert (stream, consumer, holds, stuck) == (results, "core-1-relief", "1", "yes")
    await client.aclose()


_QUEUE = """
INSERT INTO fleet.jobs (id, tenant_id, intent_id, kind, operation, rail, provider, provider_account, environment, state,
    reference, amount_minor, currency, deadline, stream, entry_id, stream_epoch, queued_at)
VALUES ($1, gen_random_uuid(), $1, 'pay', 'PAYOUT', 'sbp', 'p', 'a', 'sandbox', $2, 'R', 1, 'THB', now(), $3, $4, 1,
    now() - interval '1 minute')
"""


async def test_a_lost_job_is_found_and_rebuilt_from_postgresql_and_an_entry_too_many_is_told(
    fleet: Fleet, fresh_redis: str, admin_connection: asyncpg.Connection
) -> None:
    (await fleet("streams", "lost", "sbp")).must_fail(4, "stream_missing")
    client, jobs = connect_redis(fresh_redis, "test"), jobs_stream("sbp")
    await ensure_groups(client, "sbp")
    await admin_connection.execute("INSERT INTO fleet.stream_epochs (rail, epoch, token) VALUES ('sbp', 1, 't')")
    there, gone, acked, closed = (uuid4() for _ in range(4))
    entries = {}
    for job in (there, gone, acked, closed):
        entries[job] = cast(
            "bytes", await client.xadd(jobs, {"v": "1", "id": str(job), "type": "job", "body": "{}"})
        ).decode()
        state = "CLOSED" if job == closed else "QUEUED"
        await admin_connection.execute(_QUEUE, job, state, jobs, entries[job])
    await client.xreadgroup(ADAPTERS_GROUP, "sbp-1", {jobs: ">"}, count=4)
    await client.xack(jobs, ADAPTERS_GROUP, entries[acked])
    await client.xdel(jobs, entries[gone])
    found = await fleet("streams", "lost", "sbp", "--json")
    assert (found.code, found.document["lost"], found.document["acked"]) == (1, [str(gone)], [str(acked)])
    assert [each["job"] for each in found.document["stale"]] == [f"{closed} CLOSED"]
    assert (found.document["queued"], found.document["entries"]) == (3, 2)
    assert (await fleet("streams", "rebuild", "sbp", "--json")).document["requeued"] is None
    assert await admin_connection.fetchval("SELECT count(*) FROM fleet.outbox") == 0
    assert (await fleet("streams", "rebuild", "sbp", *WHY, "--yes", "--json")).document["requeued"] == 2
    rebuilt = await admin_connection.fetch("SELECT job_id FROM fleet.outbox")
    assert {row["job_id"] for row in rebuilt} == {gone, acked}
    assert (await fleet("streams", "lost", "sbp")).code == 0
    await client.aclose()


async def test_a_scan_of_what_stands_lists_it_and_changes_nothing(fleet: Fleet, fresh_database: RoleUrls) -> None:
    nothing = await fleet("recover", "scan")
    assert "looked at 0 payments" in nothing.out
    connection = await asyncpg.connect(fresh_database.admin)
    intent, tenant = mint_id(time.time_ns() // 1_000_000), uuid4()
    await connection.execute(
        "INSERT INTO fleet.intents (id, tenant_id, service_key_id, operation, state, version, wallet_id, amount_minor,"
        " currency, accept_state, updated_at) VALUES ($1, $2, 'k', 'PAYOUT', 'VALIDATED', 1, $2, 1, 'THB', 'VALIDATED',"
        " now() - interval '1 hour')",
        intent,
        tenant,
    )
    document = (await fleet("recover", "scan", "--json")).document
    assert (document["scanned"], [(each["kind"], each["intent_id"]) for each in document["found"]]) == (
        1,
        [("unasked", str(intent))],
    )
    assert await connection.fetchval("SELECT state FROM fleet.intents") == "VALIDATED"
    await connection.close()
