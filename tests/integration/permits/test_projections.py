"""Balances and states are what the history says: compared exactly, and made from it again, while payments arrive."""

import asyncio
from uuid import UUID

from core.services.wallets.histories import EntryFilter, read_history
from core.services.wallets.projections import Projection, Rebuilt, rebuild
from core.store.wallets.projections import ProjectionStore
from schemas.api import WalletEntry
from tests.integration.permits.conftest import World, pay_job
from tests.integration.permits.test_internal_operations import move


async def run(world: World, *, write: bool, limit: int = 2) -> Rebuilt:
    """Compare all, page by page, and write where asked."""
    return await rebuild(ProjectionStore(), world.uow, list(Projection), write=write, limit=limit)


async def everything(world: World) -> tuple[list[str], list[str]]:
    """Return the rows of both projections as text."""
    accounts = await world.admin.fetch("SELECT a::text FROM fleet.accounts a ORDER BY id")
    intents = await world.admin.fetch("SELECT id, state, version FROM fleet.intents ORDER BY id")
    return [row[0] for row in accounts], [str(dict(row)) for row in intents]


async def payments(world: World) -> tuple[UUID, UUID]:
    """Let some payments settle, fail and wait; return a wallet and a payment."""
    await world.register()
    wallet, other = await world.wallet(1000), await world.wallet(500)
    await move(world, "INTERNAL_P2P", wallet, other, 100)
    paid, refused, waiting = [await world.pay(wallet, 10) for _ in range(3)]
    await world.sent(paid)
    await world.tell(pay_job(paid), "SUCCEEDED", amount_minor=10, currency="THB", provider_tx_id="T1")
    await world.sent(refused)
    await world.tell(pay_job(refused), "DECLINED")
    return wallet, waiting


async def test_a_sound_database_differs_nowhere_and_a_rebuild_changes_nothing(world: World) -> None:
    await payments(world)
    before = await everything(world)
    done = await run(world, write=True)
    assert (done.differences, done.remade) == ((), ())
    assert done.checked >= 9
    assert await everything(world) == before


async def test_rows_that_were_changed_are_shown_first_and_made_anew_to_the_same_content(world: World) -> None:
    wallet, waiting = await payments(world)
    before = await everything(world)
    await world.admin.execute("UPDATE fleet.accounts SET credits_posted = credits_posted + 7 WHERE id = $1", wallet)
    await world.admin.execute("UPDATE fleet.intents SET state = 'SETTLED', version = 9 WHERE id = $1", waiting)
    damaged = await everything(world)
    shown = await run(world, write=False)
    assert {(each.projection, each.subject) for each in shown.differences} == {
        (Projection.ACCOUNT_BALANCE, wallet),
        (Projection.TX_HISTORY, wallet),
        (Projection.INTENTS, waiting),
    }
    (state,) = [each for each in shown.differences if each.projection is Projection.INTENTS]
    assert (state.stored, state.history) == ("SETTLED/9", "AUTHORIZED/1")
    assert await everything(world) == damaged, "a dry run changes nothing"
    done = await run(world, write=True)
    assert set(done.remade) == {wallet, waiting}
    assert await everything(world) == before
    await world.prove()


async def test_a_history_is_told_from_nothing_on_and_names_the_payment_of_each_movement(world: World) -> None:
    wallet, _ = await payments(world)
    before = await history(world, wallet)
    assert before[-1].balance_minor == before[-1].amount_minor, "the oldest movement begins at nothing"
    await world.admin.execute("UPDATE fleet.accounts SET credits_posted = credits_posted + 7 WHERE id = $1", wallet)
    assert await history(world, wallet) != before, "what is stored is what a history is told back from"
    found = await rebuild(ProjectionStore(), world.uow, [Projection.TX_HISTORY], write=True)
    assert [(each.subject, each.stored, each.history) for each in found.differences] == [(wallet, "7/3", "0/3")]
    assert await history(world, wallet) == before
    # A movement whose payment is gone is told, and nothing is invented for it.
    await world.admin.execute("SET session_replication_role = replica")
    await world.admin.execute(
        "UPDATE fleet.transfers SET user_data = gen_random_uuid() WHERE id ="
        " (SELECT id FROM fleet.transfers WHERE debit_account_id = $1 AND flags & 10 = 0 LIMIT 1)", wallet,
    )  # fmt: skip
    await world.admin.execute("SET session_replication_role = origin")
    assert {(each.subject, each.stored, each.history) for each in (await run(world, write=True)).differences} >= {
        (wallet, "0/2", "0/3")
    }


async def history(world: World, wallet: UUID) -> list[WalletEntry]:
    """Return what the API shows of a wallet's past."""
    shown = await read_history(world.core.ports, world.caller, wallet, EntryFilter(), None, 100)
    return list(shown.items)


async def test_a_rebuild_beside_payments_is_exact(world: World) -> None:
    await world.register()
    wallet, other = await world.wallet(10_000), await world.wallet(10_000)
    paying = True

    async def pay() -> None:
        for n in range(25):
            await move(world, "INTERNAL_P2P", *((wallet, other) if n % 2 else (other, wallet)), 1 + n)

    async def damage_and_rebuild() -> int:
        remade = 0
        while paying:
            await world.admin.execute(
                "UPDATE fleet.accounts SET credits_posted = credits_posted + 1 WHERE id = $1", wallet
            )
            remade += len((await run(world, write=True)).remade)
        return remade

    rebuilding = asyncio.create_task(damage_and_rebuild())
    await asyncio.gather(pay(), pay())
    paying = False
    assert await rebuilding > 0
    assert (await run(world, write=False)).differences == ()
    await world.prove()
