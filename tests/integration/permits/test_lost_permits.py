"""A restore lost the permits of payments that were made: what shows that they were, and what does not."""

from typing import Any
from uuid import UUID

from core.services.payments.cancel import cancel
from tests.integration.permits.conftest import World, pay_job
from tests.integration.permits.test_collections import suspense
from tests.integration.permits.test_paid_after_all import PAID, ask, called

LATE_S = 10_000


async def raise_epoch(world: World, *, cleared: bool = False) -> None:
    """Raise the ledger epoch, as after a restore."""
    find = "INSERT INTO fleet.ledger_epochs (epoch, reason) SELECT max(epoch) + 1, 'restored' FROM fleet.ledger_epochs"
    await world.admin.execute(find)
    if cleared:
        await world.admin.execute("UPDATE fleet.ledger_epochs SET cleared_at = now() WHERE cleared_at IS NULL")


async def restored(world: World, *, cleared: bool = False) -> tuple[UUID, UUID]:
    """Return a payout without a permit whose deadline has passed since a restore, asked about, and its wallet."""
    await world.register(inquiry=True, deduplicates_reference=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await raise_epoch(world, cleared=cleared)
    await world.pass_time(LATE_S)
    await world.resolve()
    assert (await world.state(intent))[0] == "UNRESOLVED"
    return intent, wallet


async def test_a_payment_whose_permit_a_restore_lost_settles_by_the_answer_to_our_question(world: World) -> None:
    for cleared in (False, True):
        intent, wallet = await restored(world, cleared=cleared)
        await world.answer_question(intent, "SUCCEEDED", **PAID | {"provider_tx_id": f"T{cleared}"})
        assert await world.state(intent) == ("SETTLED", None)
        assert await world.money(wallet) == (900, 0)
    assert set(await world.alerts()) == {("page", "unresolved")}
    await world.prove()


async def test_a_permit_that_is_told_again_after_a_restore_is_no_first_one_any_more(world: World) -> None:
    """What its adapter takes a first one for is that nothing can have been sent before it."""
    await world.register(deduplicates_reference=True)
    intent = await world.pay(await world.wallet(1000))
    asking: dict[str, Any] = {"request": UUID(int=1), "incarnation": UUID(int=2)}
    (before,) = await world.ask([pay_job(intent)], **asking)
    await raise_epoch(world, cleared=True)
    (after,) = await world.ask([pay_job(intent)], **asking)
    assert [(each.answer, each.fence, each.first) for each in (before, after)] == [
        ("GRANTED", 1, True),
        ("GRANTED", 1, False),
    ]


async def test_another_amount_currency_or_none_is_quarantined_though_a_restore_may_have_lost_the_permit(
    world: World,
) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "amount_differs": PAID | {"amount_minor": 99},
        "currency_differs": PAID | {"currency": "USD"},
        "amount_missing": {"provider_tx_id": "T1"},
        "reference_differs": PAID | {"reference": "X" * 16},
    }
    for why, told in wrong.items():
        intent, wallet = await restored(world)
        await world.answer_question(intent, "SUCCEEDED", **told)
        assert (await world.state(intent))[0] == "UNRESOLVED"
        assert await world.money(wallet) == (1000, 100)
        assert ("page", why) in await world.alerts()
    await world.prove()


async def test_a_success_that_nobody_asked_for_waits_for_the_answer_to_our_question(world: World) -> None:
    intent, wallet = await restored(world)
    await world.tell(pay_job(intent), "SUCCEEDED", fence=1, **PAID)
    await called(world, intent)
    await ask(world)
    assert (await world.state(intent))[0] == "UNRESOLVED"
    assert await world.money(wallet) == (1000, 100)
    await world.admin.execute("UPDATE fleet.ledger_epochs SET cleared_at = now()")
    await world.answer_question(intent, "SUCCEEDED", **PAID)
    assert await world.state(intent) == ("SETTLED", None)
    assert await world.money(wallet) == (900, 0)
    await ask(world)
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.doubted_ends") == 0
    await world.prove()


async def test_what_was_withdrawn_after_a_restore_and_proves_paid_rests_in_suspense(world: World) -> None:
    await world.register(inquiry=True)
    intent = await world.pay(await world.wallet(1000))
    await raise_epoch(world, cleared=True)
    await cancel(world.core.ports, world.caller, intent)
    await called(world, intent)
    await ask(world)
    await world.answer_question(intent, "SUCCEEDED", **PAID)
    assert (await world.state(intent))[0] == "CANCELLED"
    assert await suspense(world) == -100
    assert ("page", "success_after_void") in await world.alerts()
    await world.prove()


async def test_a_success_without_a_permit_of_the_newest_epoch_stays_quarantined(world: World) -> None:
    await raise_epoch(world)
    await world.register(inquiry=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await cancel(world.core.ports, world.caller, intent)
    await called(world, intent)
    await ask(world)
    await world.answer_question(intent, "SUCCEEDED", **PAID)
    assert await world.money(wallet) == (1000, 0)
    assert await suspense(world) == 0
    assert ("page", "success_without_attempt") in await world.alerts()
    await world.prove()
