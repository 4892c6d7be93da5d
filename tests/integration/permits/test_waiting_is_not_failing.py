"""What waits for streams or for a provider voids nothing, whoever pauses, dies or stays away; whose keys carry whom."""

import asyncio
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from core.bus.receivers import ResultsReceiver
from core.services.settling.rails import pause, resume
from core.store.settling import rails
from core.store.settling.dispatch import PostgresDispatch, PostgresUpkeep
from core.store.settling.parking import PostgresParking
from core.store.terms.routes import RouteStore
from core.store.vault import PostgresVault
from schemas.envelope import Envelope
from schemas.rails import RAIL_CUT_OFF_TYPE, RailCutOff
from schemas.streams import results_stream
from tests.integration.permits.conftest import RAIL, World, pay_job
from tests.support.lock_waits import somebody_waits
from wire.consumer import Delivery


async def _events(world: World) -> list[tuple[str, str, int]]:
    rows = await world.admin.fetch("SELECT type, operation, moved FROM fleet.rail_events ORDER BY id")
    return [tuple(row) for row in rows]


async def _deadline(world: World, intent: UUID) -> Any:
    return await world.admin.fetchval("SELECT deadline FROM fleet.jobs WHERE intent_id = $1", intent)


async def _end_waits(world: World, lasted_s: int) -> None:
    """Let the wait have begun that long ago and be over now, as the resolver then finds it."""
    await world.admin.execute(
        f"UPDATE fleet.rail_waits SET began_at = now() - interval '{lasted_s} seconds', holds_until = now();"
        f"UPDATE fleet.jobs SET created_at = created_at - interval '{lasted_s} seconds'"
    )
    async with world.uow() as uow:
        assert await rails.end_waits(uow) > 0


async def test_streams_that_stay_away_past_the_deadline_expire_nothing_and_give_the_time_back(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    store = PostgresDispatch(world.core.worker_database)
    for _ in range(3):
        await store.note_stall(RAIL, 8)
    await world.pass_time(10_000)
    await world.check_now()
    await world.resolve()
    assert (await world.state(intent))[0] == "AUTHORIZED"
    assert await world.money(wallet) == (1000, 100)
    before = await _deadline(world, intent)
    await _end_waits(world, 9_000)
    gained = await _deadline(world, intent) - before
    assert timedelta(seconds=9_000) <= gained < timedelta(seconds=9_100)
    assert await _events(world) == [("wait_began", "*", 0), ("wait_ended", "*", 1)]
    await world.check_now()
    await world.resolve()  # just seen open again: adapters have I to catch up
    assert (await world.state(intent))[0] == "AUTHORIZED"
    await world.prove()


async def test_payments_that_no_api_gave_permits_for_expire_not_and_get_the_time_back(world: World) -> None:
    """Whoever notices it: a resolver while it lasts, or the API that comes back after the whole core was away."""
    await world.register()
    upkeep = PostgresUpkeep(world.core.worker_database)
    for came_back_first in (False, True):
        intent = await world.pay(await world.wallet(1000))
        await upkeep.sign_permits(8)
        assert await upkeep.end_waits(8) == 0
        async with world.uow() as uow:
            assert not (await rails.rail_state(uow, RAIL)).waits("PAYOUT"), "who just spoke is not silent"
        await world.pass_time(10_000)
        await world.admin.execute("UPDATE fleet.permit_signs SET seen_at = seen_at - interval '9000 s'")
        await (upkeep.sign_permits(8) if came_back_first else upkeep.end_waits(8))
        await world.check_now()
        await world.resolve()
        assert (await world.state(intent))[0] == "AUTHORIZED"
        await upkeep.sign_permits(8)
        before = await _deadline(world, intent)
        await world.admin.execute("UPDATE fleet.rail_waits SET holds_until = now()")
        assert await upkeep.end_waits(8) == 1
        gained = await _deadline(world, intent) - before
        assert timedelta(seconds=9_000) <= gained < timedelta(seconds=9_100)
        assert await upkeep.end_waits(8) == 0
    assert await _events(world) == [
        ("wait_began", "*", 0),
        ("wait_ended", "*", 1),
        ("wait_began", "*", 0),
        ("wait_ended", "*", 2),
    ]
    await world.prove()


async def test_payments_whose_adapters_do_not_reach_the_core_expire_not_and_get_the_time_back(world: World) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    vault = PostgresVault(b"k" * 32)
    parking = PostgresParking(world.core.worker_database, vault)
    take = ResultsReceiver(world.core.worker_ports, parking, world.uow, cast("Any", None))
    body = RailCutOff(consumer="promptpay-1").model_dump_json()
    said = [Delivery(results_stream(RAIL), f"{n}-0", Envelope("x", RAIL_CUT_OFF_TYPE, body), None, 1) for n in (1, 2)]
    for _ in range(2):
        assert set(await take(RAIL, said)) == {"1-0", "2-0"}
    await world.pass_time(10_000)
    await world.check_now()
    await world.resolve()
    assert (await world.state(intent))[0] == "AUTHORIZED"
    async with world.uow() as uow:
        routes = (await RouteStore().routes_of(uow, world.caller.tenant_id)).values()
    assert not any(each.waits for these in routes for each in these), "another adapter of the rail may well reach it"
    before = await _deadline(world, intent)
    await _end_waits(world, 9_000)
    gained = await _deadline(world, intent) - before
    assert timedelta(seconds=9_000) <= gained < timedelta(seconds=9_100)
    assert await _events(world) == [("wait_began", "*", 0), ("wait_ended", "*", 1)]
    await world.prove()


@pytest.mark.parametrize("first", ["permits", "adapters"])
async def test_of_waits_at_the_same_time_each_moment_is_given_back_once(world: World, first: str) -> None:
    """An API that is away makes its adapters say so, too, and the two waits end seconds apart."""
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    for cause, ago_s in (("permits", 9_000), ("adapters", 8_990)):
        async with world.uow() as uow:
            await rails.note_waits(uow, RAIL, ["*"], cause, 600)
        began = "UPDATE fleet.rail_waits SET began_at = now() - make_interval(secs => $1) WHERE cause = $2"
        await world.admin.execute(began, ago_s, cause)
    await world.admin.execute("UPDATE fleet.jobs SET created_at = created_at - interval '9100 seconds'")
    before = await _deadline(world, intent)
    for causes in ([first], ["permits", "adapters"]):
        over = "UPDATE fleet.rail_waits SET holds_until = now() WHERE cause = ANY ($1)"
        await world.admin.execute(over, causes)
        async with world.uow() as uow:
            assert await rails.end_waits(uow) == 1
    gained = await _deadline(world, intent) - before
    assert timedelta(seconds=9_000) <= gained < timedelta(seconds=9_100)


@pytest.mark.parametrize("ends", [("PAYOUT", "breaker"), ("breaker", "PAYOUT"), ("PAYOUT", "*"), ("*", "PAYOUT")])
@pytest.mark.parametrize("outlasts", [True, False])
async def test_of_a_pause_and_what_stops_a_rail_besides_each_moment_is_given_back_once(
    world: World, ends: tuple[str, str], outlasts: bool
) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    for each, ago_s in zip(ends, (9_000, 8_000) if outlasts else (8_000, 9_000), strict=True):
        async with world.uow() as uow:
            if each == "breaker":
                await rails.note_waits(uow, RAIL, ["PAYOUT"], each, 600)
            else:
                await pause(uow, rails, RAIL, each, reason="maintenance")
        await world.admin.execute(
            f"UPDATE fleet.rail_waits SET began_at = now() - interval '{ago_s} seconds' WHERE cause = '{each}';"
            f"UPDATE fleet.rail_pauses SET paused_at = now() - interval '{ago_s} seconds' WHERE operation = '{each}'"
        )
    await world.admin.execute("UPDATE fleet.jobs SET created_at = created_at - interval '9100 seconds'")
    before = await _deadline(world, intent)
    for each in ends:
        await world.admin.execute("UPDATE fleet.rail_waits SET holds_until = now() WHERE cause = $1", each)
        async with world.uow() as uow:
            await (rails.end_waits(uow) if each == "breaker" else resume(uow, rails, RAIL, each))
    gained = await _deadline(world, intent) - before
    assert timedelta(seconds=9_000) <= gained < timedelta(seconds=9_100)


async def test_of_two_pauses_that_end_at_once_each_moment_is_given_back_once(world: World) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    async with world.uow() as uow:
        for each in ("*", "PAYOUT"):
            await pause(uow, rails, RAIL, each, reason="maintenance")
    await world.admin.execute(
        "UPDATE fleet.rail_pauses SET paused_at = now() - interval '9000 seconds';"
        "UPDATE fleet.jobs SET created_at = created_at - interval '9100 seconds'"
    )
    before = await _deadline(world, intent)

    async def end(operation: str) -> None:
        async with world.uow() as uow:
            await resume(uow, rails, RAIL, operation)

    async with world.uow() as uow:
        await resume(uow, rails, RAIL, "*")
        other = asyncio.create_task(end("PAYOUT"))
        await somebody_waits(world.core.worker_database)
    await other
    gained = await _deadline(world, intent) - before
    assert timedelta(seconds=9_000) <= gained < timedelta(seconds=9_100)


async def test_where_no_api_says_so_yet_a_deadline_counts_as_ever(world: World) -> None:
    """An older release's APIs say nothing."""
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    await world.pass_time(10_000)
    assert await PostgresUpkeep(world.core.worker_database).end_waits(8) == 0
    await world.check_now()
    await world.resolve()
    assert (await world.state(intent))[0] == "EXPIRED"


async def test_a_breaker_that_is_open_for_long_voids_neither_what_was_never_sent_nor_what_is_proven_unsent(
    world: World,
) -> None:
    await world.register(also=["BILL_PAYMENT"])
    wallet = await world.wallet(1000)
    fresh, tried = await world.pay(wallet), await world.pay(wallet)
    await world.sent(tried)
    await world.tell(pay_job(tried), "NOT_SENT", reason="no_connection", retry_after_s=1)
    async with world.uow() as uow:
        assert list(await rails.note_waits(uow, RAIL, ["PAYOUT"], "breaker", 10)) == ["PAYOUT"]
        await rails.note_waits(uow, RAIL, ["BILL_PAYMENT"], "breaker", 10)
    await world.pass_time(10_000)
    await world.check_now()
    await world.resolve()
    assert {(await world.state(each))[0] for each in (fresh, tried)} == {"AUTHORIZED"}
    await _end_waits(world, 12_000)
    for each in (fresh, tried):
        assert (await world.ask([pay_job(each)]))[0].answer == "GRANTED"
    await world.prove()


async def test_a_wait_that_is_renewed_goes_on_and_one_that_is_not_ends_by_itself(world: World) -> None:
    await world.register()
    for holds_s in (60, 1):
        async with world.uow() as uow:
            await rails.note_waits(uow, RAIL, ["PAYOUT"], "breaker", holds_s)
    async with world.uow() as uow:
        assert await rails.end_waits(uow) == 0
        assert (await rails.rail_state(uow, RAIL)).waits("PAYOUT")
    await _end_waits(world, 5)
    async with world.uow() as uow:
        assert not (await rails.rail_state(uow, RAIL)).waits("PAYOUT")


async def test_pausing_and_resuming_an_operation_is_told_with_who_why_and_how_many_got_time_back(world: World) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    async with world.uow() as uow:
        assert await pause(uow, rails, RAIL, "PAYOUT", reason="maintenance")
        assert not await pause(uow, rails, RAIL, "PAYOUT", reason="again")
    assert (await world.ask([pay_job(intent)]))[0].answer == "PAUSED"
    async with world.uow() as uow:
        assert await resume(uow, rails, RAIL, "BILL_PAYMENT") == 0
        assert await resume(uow, rails, RAIL, "PAYOUT") == 1
    told = await world.admin.fetch("SELECT type, operation, actor, reason, moved FROM fleet.rail_events ORDER BY id")
    assert [tuple(row) for row in told] == [
        ("paused", "PAYOUT", "test", "maintenance", 0),
        ("resumed", "PAYOUT", "test", "", 1),
    ]


async def test_no_call_is_permitted_that_would_pass_the_deadline(world: World) -> None:
    await world.register(inquiry=True, deduplicates_reference=True)
    wallet = await world.wallet(1000)
    fresh, doubtful = await world.pay(wallet), await world.pay(wallet)
    await world.sent(doubtful)
    left = await world.admin.fetchval("SELECT extract(epoch FROM min(deadline) - now()) FROM fleet.jobs")
    await world.pass_time(float(left) - 10)  # S + T_psp is 15 s: a call begun at the end of S would end too late
    answers = await world.ask([pay_job(fresh), pay_job(doubtful)])
    assert [answer.answer for answer in answers] == ["BUSY", "GRANTED"]
    assert answers[1].mode == "INQUIRE_ONLY"
    await world.pass_time(20)
    await world.check_now()
    await world.resolve()
    assert await world.state(fresh) == ("EXPIRED", "deadline_unsent")


@pytest.mark.parametrize("own", [True, False])
async def test_a_rails_key_gets_permits_for_the_tenants_that_it_serves_and_for_no_other(
    world: World, own: bool
) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    serves = frozenset({world.caller.tenant_id} if own else {uuid4()})
    (answer,) = await world.ask([pay_job(intent)], serves=serves)
    assert answer.answer == ("GRANTED" if own else "NOT_FOUND")
    attempts = await world.admin.fetchval("SELECT count(*) FROM fleet.attempts")
    assert attempts == (1 if own else 0)


async def test_a_pause_of_one_operation_lets_another_expire_and_gives_back_no_more_than_each_one_waited(
    world: World,
) -> None:
    await world.register(also=["BILL_PAYMENT"])
    wallet = await world.wallet(1000)
    old = await world.pay(wallet)
    async with world.uow() as uow:
        assert await pause(uow, rails, RAIL, "PAYOUT", reason="maintenance")
        state = await rails.rail_state(uow, RAIL)
        assert (state.waits("PAYOUT"), state.waits("BILL_PAYMENT")) == (True, False)
    await world.admin.execute(
        "UPDATE fleet.rail_pauses SET paused_at = now() - interval '10 hours';"
        "UPDATE fleet.jobs SET created_at = created_at - interval '11 hours'"
    )
    young = await world.pay(wallet)
    before = [await _deadline(world, each) for each in (old, young)]
    async with world.uow() as uow:
        assert await resume(uow, rails, RAIL, "PAYOUT") == 2
    longer = [await _deadline(world, each) - was for each, was in zip((old, young), before, strict=True)]
    assert longer[0] >= timedelta(hours=10)
    assert longer[1] < timedelta(minutes=5), "it came a moment before the pause ended"
