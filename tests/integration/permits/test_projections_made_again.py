"""Accounts that are gone are made again from transfers and events, to the same content, while payments flow."""

import asyncio
from dataclasses import replace
from uuid import UUID, uuid4

from core.domain.ledger import AccountChange, Transfer, system_account_id
from core.domain.operations import AccountCode
from core.services.access.keys import WALLET_STATES_SCOPE
from core.services.terms.exposure import allow_overdraft
from core.services.wallets.projections import MISSING, UNKNOWN, Projection, rebuild
from core.services.wallets.wallet_states import change_wallet
from core.store.wallets.projections import ProjectionStore
from schemas.api import IntentRequest, WalletRequest
from tests.integration.permits.conftest import World, pay_job
from tests.integration.permits.money_terms import offer_dollars
from tests.integration.permits.test_collections import opened
from tests.integration.permits.test_fees import put_both
from tests.integration.permits.test_internal_operations import move
from tests.integration.permits.test_projections import everything, run
from tests.integration.permits.test_suspense import parked

CONTENT = (
    "SELECT id, tenant_id, ledger, code, flags, user_data, debits_pending, debits_posted, credits_pending,"
    " credits_posted FROM fleet.accounts ORDER BY id"
)
"""All that is read of an account: nothing reads when its row was made."""


async def content(world: World) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await world.admin.fetch(CONTENT)]


async def rows_of(world: World) -> dict[object, tuple[object, ...]]:
    return {row[0]: row for row in await content(world)}


async def lose(world: World, *accounts: UUID) -> None:
    """Lose accounts as only a broken disk or a superuser can; all of them where none is named."""
    async with world.admin.transaction():
        await world.admin.execute("SET LOCAL session_replication_role = replica")
        await world.admin.execute(
            "DELETE FROM fleet.accounts WHERE id = ANY ($1::uuid[]) OR cardinality($1::uuid[]) = 0", list(accounts)
        )


async def change(world: World, wallet: UUID, what: AccountChange) -> None:
    caller = replace(world.caller, operations=frozenset({WALLET_STATES_SCOPE}))
    await change_wallet(world.core.ports, caller, wallet, what, "drawn")


async def all_kinds(world: World) -> None:
    """Use every kind of account: wallets in every state, clearing, fees of two names, spread, liquidity, suspense."""
    await opened(world)
    partner = await world.wallet(1)
    await put_both(world, partner)
    wallet, other, frozen, thawed = [await world.wallet(1000) for _ in range(4)]
    await move(world, "INTERNAL_P2P", wallet, other, 100)
    paid, waiting = [await world.pay(wallet, 50) for _ in range(2)]
    await world.sent(paid)
    await world.tell(pay_job(paid), "SUCCEEDED", amount_minor=45, currency="THB", provider_tx_id="T1")
    await world.sent(waiting)
    await parked(world)
    for what, which in (("FREEZE", frozen), ("FREEZE", thawed), ("UNFREEZE", thawed)):
        await change(world, which, AccountChange[what])
    empty = (await world.core.wallets.create(world.caller, WalletRequest(owner="zoe", currency="USD")))[0].id
    await change(world, empty, AccountChange.CLOSE)
    async with world.uow() as uow:
        await offer_dollars(uow, world)
        await allow_overdraft(uow, world.core.worker_ports.liquidity, world.core.worker_ports.ledger,
                              world.caller.tenant_id, "JPY", False)  # fmt: skip
    body = {"operation": "MANUAL_ADJUSTMENT", "direction": "TO_LIQUIDITY", "wallet_id": wallet, "amount_minor": 30}
    request = IntentRequest.model_validate(body | {"currency": "THB"})
    caller = replace(world.caller, operations=world.caller.operations | {"LIQUIDITY"})
    assert (await world.core.accept.accept(caller, "to-liquidity", request)).intent.state == "SETTLED"


async def test_every_account_that_was_lost_is_made_again_as_it_was(world: World) -> None:
    await all_kinds(world)
    # Liquidity that was opened and never used has no transfer to be made again from, and holds nothing.
    unused = [row["id"] for row in await world.admin.fetch(
        "SELECT id FROM fleet.accounts a WHERE code <> 1 AND NOT EXISTS (SELECT FROM fleet.transfers t"
        " WHERE a.id IN (t.debit_account_id, t.credit_account_id))"
    )]  # fmt: skip
    await lose(world, *unused)
    before = await content(world)
    assert {row[3] for row in before} >= {AccountCode.WALLET, AccountCode.CLEARING, AccountCode.FEE_INCOME,
                                          AccountCode.SUSPENSE, AccountCode.LIQUIDITY, AccountCode.EQUITY}  # fmt: skip
    assert {row[4] for row in before} >= {0, 1, 1 | 4, 1 | 8}
    await lose(world)
    shown = await run(world, write=False)
    assert {(each.subject, each.stored) for each in shown.differences} >= {(row[0], MISSING) for row in before}
    assert await content(world) == [], "a dry run changes nothing"
    done = await run(world, write=True, limit=3)
    assert set(done.remade) == {row[0] for row in before}
    assert await content(world) == before
    assert (await run(world, write=True)).differences == ()
    await world.prove()


async def test_damaged_and_lost_rows_come_back_beside_payments(world: World) -> None:
    await world.register()
    wallet, other, lost = await world.wallet(10_000), await world.wallet(10_000), await world.wallet(77)
    before = (await rows_of(world))[lost]
    paying = True

    async def pay() -> None:
        for n in range(15):
            await move(world, "INTERNAL_P2P", *((wallet, other) if n % 2 else (other, wallet)), 1 + n)

    async def harm_and_rebuild() -> int:
        remade = 0
        while paying:
            await lose(world, lost)
            await world.admin.execute(
                "UPDATE fleet.accounts SET credits_posted = credits_posted + 1 WHERE id = $1", wallet
            )
            remade += len((await run(world, write=True)).remade)
        return remade

    rebuilding = asyncio.create_task(harm_and_rebuild())
    await asyncio.gather(pay(), pay())
    paying = False
    assert await rebuilding >= 2
    assert (await rows_of(world))[lost] == before
    assert (await run(world, write=False)).differences == ()
    await world.prove()


async def test_an_account_that_nothing_explains_is_shown_and_not_invented(world: World) -> None:
    wallet = await world.wallet(100)
    tenant = world.caller.tenant_id
    strange = system_account_id(tenant, 764, AccountCode.CLEARING, "a provider that no payment names")
    await world.admin.execute(
        "INSERT INTO fleet.accounts (id, tenant_id, ledger, code, flags) VALUES ($1, $2, 764, 2, 0)", strange, tenant
    )
    async with world.uow() as uow:
        moved = Transfer(uuid4(), tenant, wallet, strange, 5, 764, 1)
        assert [str(each) for each in await world.core.worker_ports.ledger.apply(uow, [moved])] == ["ok"]
    await lose(world, strange)
    rows = await everything(world)
    found = await rebuild(ProjectionStore(), world.uow, [Projection.ACCOUNT_BALANCE], write=True)
    assert [(each.subject, each.stored, each.history) for each in found.differences] == [(strange, MISSING, UNKNOWN)]
    assert (found.remade, await everything(world)) == ((), rows)
