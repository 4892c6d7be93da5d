"""Every kind of what can stand is planted, and the next start finishes or parks each, a bounded page at a time."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from prometheus_client import REGISTRY

from core.domain.stranded import StrandedKind
from core.services.settling.completer import Completer, look
from core.store.settling.stranded import StrandedStore
from core.store.unit_of_work import UnitOfWork
from tests.integration.permits.conftest import World, lookup_job, pay_job
from tests.integration.permits.test_collections import limit, opened, reference, shown, suspense, told
from tests.integration.permits.test_completer import completer, forget_jobs, found
from tests.integration.permits.test_mandates import debit, signed
from tests.integration.permits.test_refunds_by_rail import REFUNDS, collected, permitted, refund
from tests.integration.permits.test_suspense import give_back, open_items, parked
from tests.support.unguarded import without_guards

Plant = Callable[[World, UUID], Awaitable[UUID]]


async def _moved(world: World, intent: UUID, state: str, decision: str | None = None) -> None:
    """Change an intent's state with its event, as no transaction of ours does."""
    await world.admin.execute(
        "UPDATE fleet.intents SET state = $2, decision = $3, version = version + 1 WHERE id = $1",
        intent, state, decision,
    )  # fmt: skip
    await world.admin.execute(
        "INSERT INTO fleet.intent_events (intent_id, seq, tenant_id, type, state, actor)"
        " SELECT id, version, tenant_id, lower(state), state, 'test' FROM fleet.intents WHERE id = $1",
        intent,
    )


async def _closed_jobs(world: World, intent: UUID) -> None:
    close = "UPDATE fleet.jobs SET state = 'CLOSED', closed_at = now(), outcome = 'lost' WHERE intent_id = $1"
    await world.admin.execute(close, intent)
    await world.admin.execute(
        "DELETE FROM fleet.outbox WHERE job_id IN (SELECT id FROM fleet.jobs WHERE intent_id = $1)", intent
    )


async def unasked(world: World, wallet: UUID) -> UUID:
    await world.register(lookup=True)
    world.core.ports.routes._routes.clear()
    intent = await world.pay(wallet)
    await _closed_jobs(world, intent)
    assert (await world.job(lookup_job(intent)))["outcome"] == "lost"
    return intent


async def unreviewed(world: World, wallet: UUID) -> UUID:
    intent = await world.pay(wallet, requires_monitoring=True)
    await world.admin.execute("UPDATE fleet.intents SET review_until = NULL, deadline = NULL WHERE id = $1", intent)
    return intent


async def unsent(world: World, wallet: UUID) -> UUID:
    intent = await world.pay(wallet)
    await forget_jobs(world, intent)
    return intent


async def unanswered(world: World, wallet: UUID) -> UUID:
    intent = await world.pay(wallet)
    await world.sent(intent)
    await _closed_jobs(world, intent)
    return intent


async def unended(world: World, wallet: UUID) -> UUID:
    intent = await world.pay(wallet)
    await world.admin.execute("UPDATE fleet.intents SET decision = 'POST' WHERE id = $1", intent)
    return intent


async def unqueued(world: World, wallet: UUID) -> UUID:
    intent = await world.pay(wallet)
    await world.admin.execute("DELETE FROM fleet.outbox WHERE job_id = $1", pay_job(intent))
    return intent


async def unchecked(world: World, wallet: UUID) -> UUID:
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "UNKNOWN")
    await world.admin.execute(
        "UPDATE fleet.jobs SET next_check_at = NULL, deadline = now() + interval '2 hours' WHERE id = $1",
        pay_job(intent),
    )
    return intent


async def untold(world: World, wallet: UUID) -> UUID:
    intent = await world.pay(wallet)
    await world.sent(intent)
    await _moved(world, intent, "UNRESOLVED")
    return intent


async def uncancelled(world: World, wallet: UUID) -> UUID:
    payer = await opened(world)
    world.core.ports.routes._routes.clear()
    await signed(world, payer)
    intent = await debit(world, payer)
    await world.admin.execute("UPDATE fleet.mandates SET cancelled_at = now()")
    return intent


async def unclosed(world: World, wallet: UUID) -> UUID:
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id=str(intent)[:20])
    await world.admin.execute("UPDATE fleet.jobs SET state = 'QUEUED', closed_at = NULL WHERE intent_id = $1", intent)
    return intent


async def unreleased(world: World, wallet: UUID) -> UUID:
    intent = await world.pay(wallet)
    await forget_jobs(world, intent)
    await _moved(world, intent, "FAILED", "VOID")
    return intent


async def unowned(world: World, wallet: UUID) -> UUID:
    intent = await world.pay(wallet)
    await forget_jobs(world, intent)
    await without_guards(world.admin, "DELETE FROM fleet.intents WHERE id = $1", intent)
    return intent


async def overheld(world: World, wallet: UUID) -> UUID:
    limit = await _limited(world)
    kept = await world.pay(wallet, 50)
    await world.sent(kept)
    await world.admin.execute("UPDATE fleet.limit_usage SET held_minor = held_minor + 77, held_count = held_count + 1")
    return limit


async def _limited(world: World, operation: str = "PAYOUT") -> UUID:
    """Set a limit of a day; return its id."""
    name = f"daily-{operation.lower()}"
    await limit(world, name, operation=operation, max_amount_minor=10**8)
    limit_id: UUID = await world.admin.fetchval("SELECT limit_id FROM fleet.limits WHERE name = $1", name)
    return limit_id


PLANTED: dict[StrandedKind, Plant] = {
    StrandedKind.UNREVIEWED: unreviewed,
    StrandedKind.UNSENT: unsent,
    StrandedKind.UNANSWERED: unanswered,
    StrandedKind.UNENDED: unended,
    StrandedKind.UNQUEUED: unqueued,
    StrandedKind.UNCHECKED: unchecked,
    StrandedKind.UNTOLD: untold,
    StrandedKind.UNCLOSED: unclosed,
    StrandedKind.UNRELEASED: unreleased,
    StrandedKind.UNOWNED: unowned,
    StrandedKind.OVERHELD: overheld,
    StrandedKind.UNCANCELLED: uncancelled,
    StrandedKind.UNASKED: unasked,
}


def counted(kind: StrandedKind, outcome: str) -> float:
    return REGISTRY.get_sample_value("fleet_stranded_total", {"kind": kind, "outcome": outcome}) or 0


async def test_every_kind_that_stands_is_finished_or_parked_at_the_next_start_in_pages(world: World) -> None:
    assert set(PLANTED) == set(StrandedKind)
    await world.register(inquiry=True)
    wallet = await world.wallet(10_000)
    planted = {kind: await plant(world, wallet) for kind, plant in PLANTED.items()}
    before = {kind: counted(kind, "found") for kind in StrandedKind}
    pages: list[int] = []

    class Counting(StrandedStore):
        async def next_range(self, uow: UnitOfWork, after: UUID | None, lookback_days: int, limit: int) -> Any:
            found_range = await super().next_range(uow, after, lookback_days, limit)
            pages.append(found_range.count)
            return found_range

    walking = Completer(world.core.worker_ports, Counting(), world.uow, every_s=1, lookback_days=45, limit=4, grace_s=0)
    intents = await world.admin.fetchval("SELECT count(*) FROM fleet.intents")
    counters = await world.admin.fetchval("SELECT count(*) FROM fleet.limit_usage")
    steps = 1
    while await walking.step() == 0:
        steps += 1
    assert max(pages) == 4, "no page is larger than it may be"
    assert (sum(pages), steps) == (intents, intents // 4 + 1 + counters // 4 + 1), "one walk, and no page twice"
    assert {kind: counted(kind, "found") - before[kind] for kind in StrandedKind} == dict.fromkeys(StrandedKind, 1)
    # What was finished is gone, what was parked waits for a person; a hold of nobody's is never touched.
    assert await found(world) == [(StrandedKind.UNOWNED, planted[StrandedKind.UNOWNED])]
    states = {kind: (await world.state(intent))[0] for kind, intent in planted.items()
              if kind not in (StrandedKind.UNOWNED, StrandedKind.OVERHELD)}  # fmt: skip
    assert states == {
        StrandedKind.UNASKED: "EXPIRED", StrandedKind.UNREVIEWED: "REVIEW", StrandedKind.UNSENT: "FAILED",
        StrandedKind.UNANSWERED: "UNRESOLVED", StrandedKind.UNENDED: "UNRESOLVED", StrandedKind.UNQUEUED: "AUTHORIZED",
        StrandedKind.UNCHECKED: "AUTHORIZED", StrandedKind.UNTOLD: "UNRESOLVED", StrandedKind.UNCLOSED: "SETTLED",
        StrandedKind.UNRELEASED: "FAILED", StrandedKind.UNCANCELLED: "CANCELLED",
    }  # fmt: skip
    async with world.uow() as uow:
        assert await world.core.ports.limit_store.verify(uow) == []
    assert REGISTRY.get_sample_value("fleet_recovery_last_walk_intents") == intents
    ended_at = await world.admin.fetchval("SELECT ended_at FROM fleet.recovery_walks")
    assert REGISTRY.get_sample_value("fleet_recovery_last_walk_timestamp_seconds") == ended_at.timestamp()


async def test_what_is_open_is_looked_at_however_long_ago_it_began(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1_000)
    intent = await world.pay(wallet)
    walking = completer(world)
    assert [await walking.step() for _ in range(2)] == [0, 1]
    assert await world.admin.fetchval("SELECT oldest_open FROM fleet.recovery_walks") == intent
    # As after months without a walk: what it left open then is where the next start begins.
    await world.admin.execute("UPDATE fleet.recovery_walks SET begun_at = begun_at + interval '100 days'")
    await forget_jobs(world, intent)
    seen = await look(StrandedStore(), world.uow, None, lookback_days=0, limit=10, grace_s=0)
    assert [each.intent_id for each in seen.found] == [intent]
    await completer(world).step()
    assert await world.state(intent) == ("FAILED", "abandoned")


async def test_a_collection_whose_job_was_lost_expires_and_gives_its_limit_back(world: World) -> None:
    wallet = await opened(world)
    await _limited(world, "TOPUP")
    intent = await world._accept({"operation": "TOPUP", "wallet_id": wallet, "amount_minor": 2_000})
    await forget_jobs(world, intent)
    assert await found(world) == [(StrandedKind.UNSENT, intent)]
    await completer(world).step()
    assert await world.state(intent) == ("EXPIRED", "abandoned")
    assert await world.admin.fetchval("SELECT held_minor FROM fleet.limit_usage") == 0
    assert await found(world) == []
    await world.prove()


async def test_a_collection_that_may_be_paid_is_parked_and_what_is_paid_still_counts(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    await _closed_jobs(world, intent)
    assert await found(world) == [(StrandedKind.UNANSWERED, intent)]
    await completer(world).step()
    assert (await world.state(intent))[0] == "UNRESOLVED"
    assert await found(world) == []
    assert await told(world, {"reference": await reference(world, intent)}) == ["CREDITED"]
    assert (await world.state(intent), await world.money(wallet)) == (("SETTLED", None), (2_001, 0))
    await world.prove()


async def test_a_refund_whose_job_was_lost_is_voided_and_one_that_had_a_permit_is_parked(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    lost, sent = [(await refund(world, original, wallet, 500)).id for _ in range(2)]
    await permitted(world, sent)
    for each in (lost, sent):
        await forget_jobs(world, each)
    await completer(world).step()
    assert (await world.state(lost), (await world.state(sent))[0]) == (("FAILED", "abandoned"), "UNRESOLVED")
    assert await world.money(wallet) == (2_001, 500)
    await world.prove()


async def test_a_return_out_of_suspense_whose_job_was_lost_opens_the_item_again(world: World) -> None:
    await opened(world)
    item = await parked(world)
    waiting = await give_back(world, item)
    assert waiting.taken_by is not None
    await forget_jobs(world, waiting.taken_by)
    assert await found(world) == [(StrandedKind.UNSENT, waiting.taken_by)]
    await completer(world).step()
    assert (await open_items(world), await suspense(world)) == ([item], 700)
    await world.prove()


async def test_a_limit_is_not_put_right_while_a_payment_is_on_its_way_into_it(world: World) -> None:
    await world.register()
    wallet = await world.wallet(10_000)
    await _limited(world)
    for _ in range(3):
        await world.pay(wallet, 50)
    walking = completer(world)
    assert [await walking.step() for _ in range(2)] == [0, 1]
    assert await world.admin.fetchval("SELECT held_minor FROM fleet.limit_usage") == 150
    assert await world.alerts() == []
    # A payment whose job is gone is open all the same: what it has at its limit stays until it ends.
    intent = await world.pay(wallet, 50)
    await forget_jobs(world, intent)
    late = Completer(
        world.core.worker_ports, StrandedStore(), world.uow, every_s=1, lookback_days=45, limit=100, grace_s=600
    )
    assert [await late.step() for _ in range(2)] == [0, 1]
    assert await world.admin.fetchval("SELECT held_minor FROM fleet.limit_usage") == 200
    assert await world.alerts() == []
