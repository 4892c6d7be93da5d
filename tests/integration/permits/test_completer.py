"""The completer finishes or parks whatever stands, once, and touches nothing that moves."""

import asyncio
from uuid import UUID, uuid4

import orjson
import pytest

from core.domain.ids import derive_id
from core.domain.operations import hold_id
from core.domain.stranded import StrandedKind
from core.services.payments.confirm import confirm
from core.services.settling.completer import Completer, look
from core.store.settling.jobs import JOB_COLUMNS, job_of
from core.store.settling.outbox import BODY_OF_ROW, job_body
from core.store.settling.stranded import StrandedStore
from schemas.api import ConfirmRequest
from tests.integration.permits.conftest import World, lookup_job, pay_job
from tests.integration.permits.test_lookups_and_deadlines import found as looked_up
from tests.support.unguarded import without_guards


def completer(world: World, limit: int = 1000) -> Completer:
    """Return one that leaves nothing to anybody else."""
    return Completer(
        world.core.worker_ports, StrandedStore(), world.uow, every_s=1, lookback_days=45, limit=limit, grace_s=0
    )


async def found(world: World, grace_s: int = 0) -> list[tuple[str, UUID]]:
    """Return kind and intent of everything that stands."""
    seen = await look(StrandedStore(), world.uow, None, lookback_days=45, limit=1000, grace_s=grace_s)
    return [(each.kind, each.intent_id) for each in seen.found]


async def forget_jobs(world: World, intent: UUID) -> None:
    """Lose an intent's jobs, as no transaction of ours does."""
    await world.admin.execute(
        "DELETE FROM fleet.outbox WHERE job_id IN (SELECT id FROM fleet.jobs WHERE intent_id = $1)", intent
    )
    await without_guards(world.admin, "DELETE FROM fleet.jobs WHERE intent_id = $1", intent)


async def completed(world: World, kind: StrandedKind, intent: UUID) -> None:
    """Show that this alone stands, complete it, and show that nothing stands, now or the second time."""
    assert await found(world) == [(kind, intent)]
    await completer(world).step()
    assert await found(world) == []
    await completer(world).step()
    await world.prove()


async def test_nothing_of_a_sound_system_stands(world: World) -> None:
    await world.register(inquiry=True, lookup=False)
    wallet = await world.wallet(1000)
    paid, sent, _ready = [await world.pay(wallet) for _ in range(3)]
    for intent in (paid, sent):
        await world.sent(intent)
    await world.tell(pay_job(paid), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="T1")
    await world.tell(pay_job(sent), "UNKNOWN")
    assert await found(world) == []


async def test_a_payment_whose_lookup_was_lost_expires_with_nothing_held(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    assert (await world.state(intent))[0] == "VALIDATED"
    await world.admin.execute("UPDATE fleet.jobs SET state = 'CLOSED', closed_at = now() WHERE id = $1",
                              lookup_job(intent))  # fmt: skip
    await world.admin.execute("DELETE FROM fleet.outbox")
    await completed(world, StrandedKind.UNASKED, intent)
    assert await world.state(intent) == ("EXPIRED", "abandoned")


async def test_a_held_payment_whose_job_was_never_made_is_voided(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await forget_jobs(world, intent)
    await completed(world, StrandedKind.UNSENT, intent)
    assert await world.state(intent) == ("FAILED", "abandoned")
    assert await world.money(wallet) == (1000, 0)


async def test_a_held_payment_without_a_job_that_had_a_permit_is_parked_and_never_voided(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await forget_jobs(world, intent)
    await completed(world, StrandedKind.UNSENT, intent)
    assert (await world.state(intent))[0] == "UNRESOLVED"
    assert await world.money(wallet) == (1000, 100)
    assert await world.alerts() == [("page", "stranded_unsent")]


async def test_a_payment_whose_jobs_are_all_closed_is_parked(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.admin.execute(
        "UPDATE fleet.jobs SET state = 'CLOSED', closed_at = now(), outcome = 'SUCCEEDED' WHERE intent_id = $1", intent
    )
    await world.admin.execute("DELETE FROM fleet.outbox")
    await completed(world, StrandedKind.UNANSWERED, intent)
    assert (await world.state(intent))[0] == "UNRESOLVED"
    assert await world.alerts() == [("page", "stranded_unanswered")]


async def test_a_ready_job_without_an_outbox_row_gets_it_again(world: World) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    before = await world.admin.fetchrow("SELECT job_id, rail, stream, body::jsonb FROM fleet.outbox")
    await world.admin.execute("DELETE FROM fleet.outbox")
    await completed(world, StrandedKind.UNQUEUED, intent)
    assert await world.admin.fetchrow("SELECT job_id, rail, stream, body::jsonb FROM fleet.outbox") == before


@pytest.mark.parametrize("microseconds", [0, 120_000, 123_456])
async def test_a_job_has_the_same_body_whoever_queues_it(world: World, microseconds: int) -> None:
    await world.register()
    job_id = pay_job(await world.pay(await world.wallet(1000)))
    await world.admin.execute(
        "UPDATE fleet.jobs SET deadline = date_trunc('second', deadline) + $2 * interval '1 microsecond' WHERE id = $1",
        job_id,
        microseconds,
    )
    row = await world.admin.fetchrow(
        f"SELECT {JOB_COLUMNS}, {BODY_OF_ROW} AS body FROM fleet.jobs j JOIN fleet.jobs r USING (id) WHERE j.id = $1",
        job_id,
    )
    assert row is not None
    assert orjson.loads(job_body(job_of(row))) == orjson.loads(row["body"])


async def test_a_waiting_job_that_the_resolver_was_never_told_of_is_looked_at_now(world: World) -> None:
    await world.register(inquiry=True)
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    await world.tell(pay_job(intent), "UNKNOWN")
    await world.admin.execute(
        "UPDATE fleet.jobs SET next_check_at = NULL, deadline = now() + interval '2 hours' WHERE id = $1",
        pay_job(intent),
    )
    await completed(world, StrandedKind.UNCHECKED, intent)
    assert (await world.job(pay_job(intent)))["next_check_at"] is not None


async def test_a_parked_payment_that_nobody_was_told_of_is_told_of(world: World) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    await world.admin.execute("UPDATE fleet.intents SET state = 'UNRESOLVED', version = version + 1 WHERE id = $1",
                              intent)  # fmt: skip
    await world.admin.execute(
        "INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor)"
        " SELECT id, version, tenant_id, 'unresolved', state, 'test' FROM fleet.intents WHERE id = $1",
        intent,
    )
    await completed(world, StrandedKind.UNTOLD, intent)
    assert await world.alerts() == [("page", "stranded_untold")]


async def test_an_open_job_of_an_ended_payment_is_closed(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="T1")
    await world.admin.execute("UPDATE fleet.jobs SET state = 'QUEUED', closed_at = NULL WHERE intent_id = $1", intent)
    await completed(world, StrandedKind.UNCLOSED, intent)
    assert (await world.job(pay_job(intent)))["outcome"] == "intent_settled"


async def test_a_lookup_that_is_open_again_voids_nothing_that_was_sent(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.settle(looked_up(world, intent))
    await confirm(world.core.ports, world.caller, intent, ConfirmRequest(amount_minor=100, fee_minor=0))
    await world.sent(intent)
    await world.admin.execute(
        "UPDATE fleet.jobs SET closed_at = NULL, state = 'WAITING', next_check_at = now() WHERE id = $1",
        lookup_job(intent),
    )
    await world.pass_time(10_000)
    await world.resolve()
    assert ((await world.state(intent))[0], await world.money(wallet)) == ("UNRESOLVED", (1000, 100))
    await world.tell(pay_job(intent), "SUCCEEDED")
    assert ((await world.state(intent))[0], await world.money(wallet)) == ("SETTLED", (900, 0))
    await world.prove()


@pytest.mark.parametrize(("ended", "left"), [("SETTLED", (900, 0)), ("FAILED", (1000, 0))])
async def test_money_that_is_held_after_the_end_is_released_as_the_payment_ended(
    world: World, ended: str, left: tuple[int, int]
) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    decision = "POST" if ended == "SETTLED" else "VOID"
    await forget_jobs(world, intent)
    await world.admin.execute("UPDATE fleet.intents SET state = $2, decision = $3, version = 2 WHERE id = $1",
                              intent, ended, decision)  # fmt: skip
    await world.admin.execute(
        "INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor)"
        " SELECT id, 2, tenant_id, 'settled', state, 'test' FROM fleet.intents WHERE id = $1",
        intent,
    )
    await completed(world, StrandedKind.UNRELEASED, intent)
    assert await world.money(wallet) == left
    assert await world.alerts() == [("ticket", "stranded_unreleased")]


async def test_a_hold_of_no_payment_is_shown_to_a_person_once_and_left_held(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await forget_jobs(world, intent)
    await without_guards(world.admin, "DELETE FROM fleet.intents WHERE id = $1", intent)
    for _ in range(2):
        assert await found(world) == [(StrandedKind.UNOWNED, intent)]
        await completer(world).step()
    assert await world.alerts() == [("page", "stranded_unowned")]
    assert await world.money(wallet) == (1000, 100)
    assert hold_id(intent, "principal") == derive_id(intent, "hold", "principal")


async def test_what_changed_a_moment_ago_is_left_to_whoever_is_at_it(world: World) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    await forget_jobs(world, intent)
    assert await found(world, grace_s=60) == []
    assert await found(world) == [(StrandedKind.UNSENT, intent)]


async def test_a_walk_in_small_pages_finds_the_same_and_begins_anew_at_its_end(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intents = [await world.pay(wallet) for _ in range(5)]
    for intent in intents:
        await forget_jobs(world, intent)
    walking = completer(world, limit=2)
    waits = [await walking.step() for _ in range(6)]
    assert waits == [0, 0, 0, 0, 1, 1], "the first walk takes no rest; what follows has time"
    assert {(await world.state(intent))[0] for intent in intents} == {"FAILED"}


async def test_two_completers_beside_live_payments_have_no_effect(world: World) -> None:
    await world.register(inquiry=True)
    wallet = await world.wallet(10_000)
    paying = True

    async def pay(n: int) -> None:
        for _ in range(5):
            intent = await world.pay(wallet, 10)
            await world.sent(intent)
            await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=10, currency="THB", provider_tx_id=str(uuid4()))
            assert (await world.state(intent))[0] == "SETTLED", n

    async def complete() -> None:
        walking = completer(world, limit=3)
        while paying:
            await walking.step()
            await asyncio.sleep(0)

    walkers = [asyncio.create_task(complete()) for _ in range(2)]
    try:
        for n in range(2):
            await pay(n)
    finally:
        paying = False
        await asyncio.gather(*walkers)
    assert await world.money(wallet) == (9900, 0)
    assert await world.alerts() == []
    await world.prove()
