"""A rail that does not deduplicate is sent to again only where it is proven that nothing was sent (decision 9)."""

import pytest

from core.store.settling import attempts
from tests.integration.permits.conftest import World, pay_job


async def test_what_was_proven_unsent_is_sent_again_though_the_rail_does_not_deduplicate(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    first = await world.sent(intent)
    for fence in (2, 3):
        await world.tell(pay_job(intent), "NOT_SENT", fence=fence - 1, retry_after_s=1, reason="no_connection")
        await world.pass_time(61)
        again = await world.sent(intent)
        assert (again.mode, again.fence, again.first) == ("SEND", fence, False)
        assert again.reference == first.reference
    await world.tell(pay_job(intent), "SUCCEEDED", fence=3)
    assert await world.state(intent) == ("SETTLED", None)
    await world.prove()


async def test_one_permit_in_doubt_forbids_every_further_sending(world: World) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    assert (await world.sent(intent)).mode == "SEND"
    assert (await world.sent(intent)).mode == "INQUIRE_ONLY"
    await world.tell(pay_job(intent), "NOT_SENT", fence=1, retry_after_s=1)
    await world.pass_time(61)
    assert (await world.sent(intent)).mode == "SEND"
    assert (await world.sent(intent)).mode == "INQUIRE_ONLY"


@pytest.mark.parametrize("deduplicates", [False, True])
@pytest.mark.parametrize("from_a_question", [False, True])
async def test_a_paid_that_could_not_be_used_forbids_what_a_negative_would_allow(
    world: World, from_a_question: bool, deduplicates: bool
) -> None:
    await world.register(inquiry=True, deduplicates_reference=deduplicates)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    if from_a_question:
        await world.tell(pay_job(intent), "UNKNOWN")
        await world.check_now()
        await world.resolve()
        await world.answer_question(intent, "SUCCEEDED", amount_minor=99)
    else:
        await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=99)
    for retried in (False, True):
        if retried:
            await world.tell(pay_job(intent), "NOT_SENT", retry_after_s=1)
        await world.pass_time(61)
        (answer,) = await world.ask([pay_job(intent)])
        assert (answer.answer, answer.reason) == ("CLOSED", "waiting_for_resolver")
        async with world.uow() as uow:
            assert await attempts.unsent_jobs(uow, [pay_job(intent)]) == set()
    await world.check_now()
    await world.resolve()
    await world.answer_question(intent, "SUCCEEDED")
    assert await world.state(intent) == ("SETTLED", None)
    assert await world.money(wallet) == (900, 0)


async def test_a_paid_that_comes_behind_its_negative_in_one_batch_still_forbids_the_next_sending(world: World) -> None:
    await world.register(deduplicates_reference=True)
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    unsent = world.fact(pay_job(intent), "NOT_SENT", retry_after_s=1)
    await world.settle(unsent, world.fact(pay_job(intent), "SUCCEEDED", amount_minor=99))
    await world.pass_time(61)
    (answer,) = await world.ask([pay_job(intent)])
    assert (answer.answer, answer.reason) == ("CLOSED", "waiting_for_resolver")


async def test_a_negative_of_before_a_restore_proves_nothing_about_permits_that_were_lost(world: World) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    await world.tell(pay_job(intent), "NOT_SENT", retry_after_s=1)
    await world.pass_time(61)
    await world.admin.execute(
        "INSERT INTO fleet.ledger_epochs (epoch, reason, cleared_at, clear_reason) VALUES (2, 'restore', now(), 'seen')"
    )
    assert (await world.sent(intent)).mode == "INQUIRE_ONLY"
