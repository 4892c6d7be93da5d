"""`streams status` on streams with work in them, and `recover` on a database of its own."""

from uuid import uuid4

import asyncpg
import pytest

from core.domain.context import Context
from core.store.database import Database
from core.store.rails import register_rail
from fleet.stack.provision import RoleUrls
from schemas.streams import ADAPTERS_GROUP, jobs_stream
from tests.support.commands import Fleet
from wire.client import connect_redis
from wire.functions import ensure_groups


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
