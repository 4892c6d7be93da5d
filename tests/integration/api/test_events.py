"""Events as pages: each change once, in an order that skips nothing, seen by whom they concern."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.domain.context import Context
from core.store.settling.epochs import raise_ledger_epoch
from core.store.told.events import EventHorizon, EventWatch
from core.store.unit_of_work import UnitOfWork
from tests.integration.api.conftest import World, payout


async def items(world: World, path: str, **query: str) -> list[dict[str, Any]]:
    """Return the whole list, page after page."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await world.api.get(path, **query, **cursor)
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return found
        cursor = {"cursor": answer.json()["next_cursor"]}


async def test_an_intents_events_are_listed_oldest_first_and_page_by_page(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    await world.register()
    intent = (await world.api.post("/v1/intents", payout(wallet), key="a")).json()["id"]
    await world.api.post(f"/v1/intents/{intent}/cancel", {})
    path = f"/v1/intents/{intent}/events"
    whole = await items(world, path)
    assert [(each["seq"], each["type"], each["state"]) for each in whole] == [
        (1, "accepted", "AUTHORIZED"),
        (2, "cancelled_by_client", "CANCELLED"),
    ]
    assert await items(world, path, limit="1") == whole
    assert await items(world, path, cursor=whole[0]["id"]) == whole[1:]
    assert await items(world, path, cursor=whole[1]["id"]) == []


async def test_the_tenants_events_are_those_of_its_intents_in_one_order(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    await world.register()
    ids = [(await world.api.post("/v1/intents", payout(wallet), key=f"k{n}")).json()["id"] for n in range(3)]
    for intent in ids[1:]:
        await world.api.post(f"/v1/intents/{intent}/cancel", {})
    whole = await items(world, "/v1/events", limit="2")
    positions = [int(each["id"]) for each in whole]
    assert positions == sorted(set(positions))
    assert len(whole) == await world.admin.fetchval("SELECT count(*) FROM fleet.intent_events")
    cancelled = await items(world, "/v1/events", type="cancelled_by_client,expired")
    assert [each["intent_id"] for each in cancelled] == ids[1:]
    assert await items(world, "/v1/events", cursor=whole[-1]["id"]) == []


async def test_an_end_is_found_by_its_state_whatever_its_event_is_called(world: World) -> None:
    wallet, other = await world.funded_wallet(1000), await world.funded_wallet(1)
    await world.register()
    ends: dict[str, list[str]] = {"SETTLED": [], "FAILED": [], "CANCELLED": []}
    for amount_minor, state in ((100, "SETTLED"), (5000, "FAILED")):
        transfer = {"operation": "INTERNAL_P2P", "wallet_id": wallet, "counterparty_wallet_id": other}
        asked = transfer | {"amount_minor": amount_minor, "currency": "THB"}
        ends[state].append((await world.api.post("/v1/intents", asked, key=state)).json()["id"])
    ends["CANCELLED"].append((await world.api.post("/v1/intents", payout(wallet), key="payout")).json()["id"])
    await world.api.post(f"/v1/intents/{ends['CANCELLED'][0]}/cancel", {})
    for state, ids in ends.items():
        found = await items(world, "/v1/events", type=state.lower())
        assert {each["state"] for each in found} == {state}
        assert set(ids) <= {each["intent_id"] for each in found}
        assert len({each["intent_id"] for each in found}) == len(found)


async def test_who_goes_on_behind_an_event_that_a_restore_lost_misses_none_that_came_since(world: World) -> None:
    wallet = await world.funded_wallet(1000)
    await world.register()
    kept: int = await world.admin.fetchval("SELECT last_value FROM fleet.event_positions")
    for n in range(5):
        await world.api.post("/v1/intents", payout(wallet), key=f"lost{n}")
    told = (await items(world, "/v1/events"))[-1]["id"]
    # As a backup leaves it that was made before those five; then the step of docs/backup.md, and a process that starts.
    await world.admin.execute("SET session_replication_role = replica")
    await world.admin.execute("DELETE FROM fleet.intent_events WHERE position > $1", kept)
    await world.admin.execute("SELECT setval('fleet.event_positions', $1)", kept)
    async with world.core.worker_database.unit_of_work(Context(None, "fleet-cli")) as uow:
        await raise_ledger_epoch(uow, "restored")
    world.core.events.hub._watch = EventWatch(world.core.worker_database)
    intent = (await world.api.post("/v1/intents", payout(wallet), key="since")).json()["id"]
    found = await items(world, "/v1/events", cursor=told)
    assert [each["intent_id"] for each in found] == [intent]
    assert int(found[0]["id"]) > int(told) + 100_000_000


async def test_a_key_of_some_wallets_sees_their_events_alone(world: World) -> None:
    mine, other = await world.funded_wallet(10), await world.funded_wallet(20)
    narrow = await world.other(accounts=[UUID(mine)])
    found = (await narrow.get("/v1/events")).json()["items"]
    assert {each["intent_id"] for each in found} == {
        str(row["id"]) for row in await world.admin.fetch("SELECT id FROM fleet.intents WHERE wallet_id = $1", mine)
    }
    theirs = await world.admin.fetchval("SELECT id FROM fleet.intents WHERE wallet_id = $1", other)
    assert (await narrow.get(f"/v1/intents/{theirs}/events")).json()["code"] == "not_found"


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 19, "\N{ARABIC-INDIC DIGIT ONE}"])
async def test_a_cursor_that_is_no_event_of_ours_is_refused(world: World, cursor: str) -> None:
    answer = await world.api.get("/v1/events", cursor=cursor)
    assert (answer.status_code, answer.json()["code"]) == (422, "cursor_malformed")


async def add_event(uow: UnitOfWork, tenant_id: UUID, intent_id: UUID) -> int:
    """Write an event as a payment does, after a change of the same transaction."""
    await uow.connection.execute("SELECT pg_current_xact_id()")
    position: int = await uow.connection.fetchval(
        "INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor)"
        " VALUES ($1, 1, $2, 'accepted', 'VALIDATED', 'test') RETURNING position",
        intent_id,
        tenant_id,
    )
    return position


async def test_an_event_that_commits_behind_a_later_one_is_not_skipped(world: World) -> None:
    worker = world.core.worker_database
    tenant = world.tenant_id
    slow = worker.unit_of_work(Context(None, "slow"))
    uow = await slow.__aenter__()
    first = await add_event(uow, tenant, uuid4())
    async with worker.unit_of_work(Context(None, "fast")) as quick:
        second = await add_event(quick, tenant, uuid4())
    assert first < second
    assert await items(world, "/v1/events") == [], "the first may still commit: nothing behind it is handed out"
    await slow.__aexit__(None, None, None)
    assert [int(each["id"]) for each in await items(world, "/v1/events")] == [first, second]


async def test_a_reader_beside_many_writers_skips_nothing_and_keeps_the_order(world: World) -> None:
    worker = world.core.worker_database
    seen: list[int] = []
    writing = True

    async def write(n: int) -> None:
        for step in range(25):
            async with worker.unit_of_work(Context(None, "w")) as uow:
                await add_event(uow, world.tenant_id, uuid4())
                await asyncio.sleep(0.001 * ((n * 7 + step) % 5))

    async def read() -> None:
        horizon, after = EventHorizon(worker), 0
        while True:
            last = not writing
            upto = await horizon.settled()
            async with worker.acquire() as connection:
                rows = await connection.fetch(
                    "SELECT position FROM fleet.intent_events WHERE position > $1 AND position <= $2 ORDER BY 1",
                    after,
                    upto,
                )
            seen.extend(row["position"] for row in rows)
            after = upto
            if last:
                return

    reading = asyncio.create_task(read())
    await asyncio.gather(*(write(n) for n in range(5)))
    writing = False
    await reading
    every = [row["position"] for row in await world.admin.fetch("SELECT position FROM fleet.intent_events ORDER BY 1")]
    assert seen == every
    assert len(seen) == 125
