"""Entries that nobody can read yet: pending for a newer consumer, then in PostgreSQL, and back when one comes."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from adapters.runtime.messages import dead_letter_completion
from core.bus.gate import GateBounds
from core.bus.healer import heal_rail
from core.bus.inbox import Inbox
from core.bus.parking import Readder
from core.bus.receivers import DeadLettersReceiver
from core.domain.context import Context
from core.services.settling.rails import register
from core.store.on_call.dead_letters import DeadLetterStore
from core.store.settling import rails
from core.store.settling.parking import PostgresParking
from core.store.vault import PostgresVault
from schemas.dead_letters import DeadLetter
from schemas.envelope import Envelope, UnknownVersionError, raw_text
from schemas.jobs import JOB_TYPE
from schemas.operations import OperationType
from schemas.rails import Capabilities, PayeeType, RailRegistration, Timing
from schemas.streams import ADAPTERS_GROUP, CORE_GROUP, jobs_dlq_stream, jobs_stream
from tests.integration.bus.conftest import JOBS, RAIL, World
from tests.integration.bus.test_inbox import GARBAGE, kept, running
from tests.support.waiting import until_async
from wire import functions
from wire.consumer import Delivery

DLQ = jobs_dlq_stream(RAIL)
VAULT = PostgresVault(b"k" * 32)


def receiver(world: World) -> DeadLettersReceiver:
    parking = PostgresParking(world.database, VAULT)
    return DeadLettersReceiver(
        DeadLetterStore(VAULT), parking, lambda: world.database.unit_of_work(Context(None, "core"))
    )


def readder(world: World, bounds: GateBounds | None = None) -> Readder:
    return Readder(world.redis, PostgresParking(world.database, VAULT), RAIL, bounds)


async def announce(world: World, *versions: int) -> None:
    registration = RailRegistration(
        rail=RAIL,
        provider="p",
        provider_account="a",
        operations={
            OperationType.PAYOUT: Capabilities(not_found_horizon_s=600, max_amount_minor=10, currencies=["THB"])
        },
        payee_types={"any": PayeeType(pattern=".+", example="x", remedy="write it")},
        timing=Timing(send_by_s=5, call_total_s=10, claim_idle_s=60),
        schema_versions=versions,
    )
    async with world.database.unit_of_work(Context(None, "test")) as uow:
        await register(uow, rails, registration)


async def entry_of_newer_core(world: World, version: int = 2) -> tuple[UUID, str]:
    (job_id,) = await world.queue(1)
    async with world.store.take_due(RAIL, JOBS, 1) as batch:
        envelope = Envelope(str(job_id), JOB_TYPE, batch.rows[0].body, v=version)
        [entry_id] = await functions.dispatch(world.redis, JOBS, [envelope])
        await batch.mark([entry_id])
    return job_id, entry_id


async def given_up_by_adapter(world: World) -> None:
    """What the runtime's lane does once its bound has passed, and the core's receiving of it."""
    [[_, [(entry_id, fields)]]] = await world.redis.xreadgroup(ADAPTERS_GROUP, "old", {JOBS: ">"})
    error = UnknownVersionError(int(fields[b"v"]))
    delivery = Delivery(JOBS, entry_id.decode(), None, error, 1, raw=raw_text(fields))
    letter = dead_letter_completion(delivery, RAIL, None, "unknown_version", str(error))
    [settled] = await functions.settle(world.redis, RAIL, JOBS, "old", [letter])
    assert settled.acked
    async with running(Inbox(world.redis, RAIL, DLQ, "c", receiver(world))):
        await until_async(lambda: _drained(world, DLQ))


async def _drained(world: World, stream: str) -> bool:
    (group,) = await world.redis.xinfo_groups(stream)
    return not group["lag"] and not group["pending"]


async def _job(connection: asyncpg.Connection, job_id: UUID) -> tuple[str, str]:
    [row] = await connection.fetch("SELECT state, entry_id FROM fleet.jobs WHERE id = $1", job_id)
    return row["state"], row["entry_id"]


async def test_a_parked_job_is_left_alone_until_an_adapter_announces_that_it_reads_its_version(
    world: World, admin_connection: asyncpg.Connection
) -> None:
    await announce(world, 1)
    job_id, entry_id = await entry_of_newer_core(world)
    [(_, before)] = await world.redis.xrange(JOBS)
    await given_up_by_adapter(world)
    assert await kept(admin_connection) == [], "it is parked, not dead"
    sweeper = world.sweeper(0)
    for _ in range(3):
        assert await sweeper.sweep_once() == 0, "its entry is acked, yet not lost"
        assert await readder(world).readd_once() == 0, "nobody reads version 2"
    assert await _job(admin_connection, job_id) == ("QUEUED", entry_id)

    await announce(world, 1, 2)
    assert sum(await asyncio.gather(*(readder(world).readd_once() for _ in range(4)))) == 1
    [(_, _), (added, after)] = await world.redis.xrange(JOBS)
    assert after == before
    assert await _job(admin_connection, job_id) == ("QUEUED", added.decode())
    await world.redis.xreadgroup(ADAPTERS_GROUP, "new", {JOBS: ">"})
    assert await functions.delivery_counts(world.redis, JOBS, ADAPTERS_GROUP, [added.decode()]) == [1]
    assert await readder(world).readd_once() == 0
    assert await sweeper.sweep_once() == 0


async def test_a_parked_job_that_was_decided_meanwhile_is_not_added_again(
    world: World, admin_connection: asyncpg.Connection
) -> None:
    job_id, _ = await entry_of_newer_core(world)
    await given_up_by_adapter(world)
    await admin_connection.execute("UPDATE fleet.jobs SET state = 'CLOSED', closed_at = now() WHERE id = $1", job_id)
    await announce(world, 2)
    assert await readder(world).readd_once() == 0
    assert await admin_connection.fetchval("SELECT readded_at IS NOT NULL FROM fleet.parked_entries")


async def test_parked_entries_wait_for_the_gate_like_any_other(world: World) -> None:
    await entry_of_newer_core(world)
    await given_up_by_adapter(world)
    await announce(world, 2)
    await world.redis.xadd(JOBS, {"v": "1"})
    closed = readder(world, GateBounds(high=1, low=0))
    assert await closed.readd_once() == 0
    assert await readder(world).readd_once() == 1


async def test_a_wiped_server_takes_nothing_from_what_is_parked(
    world: World, admin_connection: asyncpg.Connection
) -> None:
    job_id, entry_id = await entry_of_newer_core(world)
    await given_up_by_adapter(world)
    await world.redis.flushall()
    await heal_rail(world.redis, world.store, RAIL)
    assert await world.sweeper(0).sweep_once() == 0
    assert await _job(admin_connection, job_id) == ("QUEUED", entry_id)
    await announce(world, 2)
    assert await readder(world).readd_once() == 1
    assert await world.sweeper(0).sweep_once() == 0, "it is of the new epoch"


async def test_an_entry_for_a_newer_core_stays_pending_is_parked_and_added_again_by_it(
    world: World, admin_connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[Any, Any] = GARBAGE | {"v": "2", "name": b"\xff\x00 Thai \xe0\xb8\x81"}
    await world.redis.xadd(DLQ, fields, id="1-1")
    young = (await world.redis.xadd(DLQ, fields)).decode()
    received: list[Delivery] = []
    store = receiver(world)

    async def receive(rail: str, batch: Sequence[Delivery]) -> Sequence[str]:
        received.extend(batch)
        return await store(rail, batch)

    async def only_the_young_is_pending() -> bool:
        waiting = await world.redis.xpending_range(DLQ, CORE_GROUP, "-", "+", 10)
        return [each["message_id"].decode() for each in waiting] == [young]

    async with running(Inbox(world.redis, RAIL, DLQ, "c", receive)):
        await until_async(only_the_young_is_pending)
        await asyncio.sleep(0.1)
        assert await only_the_young_is_pending()
    [waiting] = await world.redis.xpending_range(DLQ, CORE_GROUP, "-", "+", 10)
    assert waiting["times_delivered"] == 0, "its delivery does not count, and it can be claimed at once"
    assert [each.entry_id for each in received] == ["1-1"]
    assert await kept(admin_connection) == []

    await world.redis.xdel(DLQ, "1-1", young)
    assert await readder(world).readd_once() == 0, "this core does not read version 2"
    monkeypatch.setattr("core.store.settling.parking.ENVELOPE_VERSION", 2)
    assert await readder(world).readd_once() == 1
    [(_, again)] = await world.redis.xrange(DLQ)
    assert again == {name.encode(): v if isinstance(v, bytes) else v.encode() for name, v in fields.items()}


async def test_a_dead_letter_that_names_another_rails_job_harms_only_itself(
    world: World, admin_connection: asyncpg.Connection
) -> None:
    job_id, entry_id = await entry_of_newer_core(world, version=1)
    honest = DeadLetter(
        job_id=job_id,
        rail=RAIL,
        stream=JOBS,
        entry_id=entry_id,
        error_class="unknown_version",
        fingerprint="f",
        message="m",
        deliveries=1,
        body=raw_text({b"v": b"2", b"id": str(job_id).encode()}),
    )
    forged = [
        Delivery(DLQ, f"{at}-1", Envelope("x", "dead_letter", letter.model_dump_json()), None, 1)
        for at, letter in enumerate(
            [
                honest.model_copy(update={"error_class": "poison"}),
                honest,
                honest.model_copy(update={"rail": "mallory", "stream": jobs_stream(RAIL)}),
                honest.model_copy(update={"rail": "mallory", "stream": "fleet:keys"}),
            ],
            1,
        )
    ]
    store = receiver(world)
    assert len(await store("mallory", [replace(each, stream=jobs_dlq_stream("mallory")) for each in forged])) == 4
    assert (await _job(admin_connection, job_id))[0] == "QUEUED"
    assert await admin_connection.fetchval("SELECT count(*) FROM fleet.parked_entries") == 0
    classes = await admin_connection.fetch("SELECT DISTINCT error_class, rail FROM fleet.dead_letters")
    assert [tuple(row) for row in classes] == [("unreadable_dead_letter", "mallory")]
