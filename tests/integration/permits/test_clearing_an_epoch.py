"""The end of a raised ledger epoch: what it keeps shut, what must be answered first, and what goes on afterwards."""

from core.store.settling.epochs import UnclearedEpoch, clear_ledger_epoch, raise_ledger_epoch, uncleared_epoch
from tests.integration.permits.conftest import World, pay_job


async def raised(world: World) -> int:
    async with world.uow() as uow:
        return await raise_ledger_epoch(uow, "restored")


async def uncleared(world: World) -> UnclearedEpoch | None:
    async with world.uow() as uow:
        return await uncleared_epoch(uow)


async def test_what_had_a_permit_must_be_answered_before_an_epoch_is_cleared(world: World) -> None:
    await world.register(inquiry=True, deduplicates_reference=True)
    wallet = await world.wallet(1000)
    sent, waiting = await world.pay(wallet), await world.pay(wallet)
    await world.sent(sent)
    await world.tell(pay_job(sent), "UNKNOWN")
    epoch = await raised(world)
    assert await uncleared(world) == UnclearedEpoch(epoch, never_permitted=1, unanswered=1)
    await world.check_now()
    await world.resolve()
    await world.answer_question(sent, "UNKNOWN")
    shut = await uncleared(world)
    assert shut is not None
    assert shut.unanswered == 1, "unknown is no answer"
    await world.check_now()
    await world.resolve()
    await world.answer_question(sent, "PENDING")
    assert await uncleared(world) == UnclearedEpoch(epoch, never_permitted=1, unanswered=0)
    assert (await world.ask([pay_job(waiting)]))[0].answer == "PAUSED"
    async with world.uow() as uow:
        await clear_ledger_epoch(uow, epoch, "compared with the register")
    assert await uncleared(world) is None
    (permit,) = await world.ask([pay_job(waiting)])
    assert (permit.answer, permit.mode, permit.first) == ("GRANTED", "SEND", False)
    row = await world.admin.fetchrow("SELECT clear_reason FROM fleet.ledger_epochs WHERE epoch = $1", epoch)
    assert row is not None
    assert row["clear_reason"] == "compared with the register"


async def test_an_epoch_that_was_never_raised_has_nothing_to_clear(world: World) -> None:
    assert await uncleared(world) is None
