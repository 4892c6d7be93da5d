"""Frozen and closed wallets, on a real database with the real ledger."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from core.domain.ledger import AccountChange
from core.services.access.keys import Caller
from core.services.problems import Refusal
from core.services.wallets.wallet_states import change_wallet, list_events, set_external_id
from schemas.api import IntentRequest, WalletRequest
from schemas.wallets import ExternalIdRequest, WalletEvent
from tests.integration.permits.conftest import World, pay_job
from tests.integration.permits.test_reviews import decide, refused, transfer


def keeper(world: World, key_id: str = "keeper") -> Caller:
    """A key that may freeze and close wallets."""
    return replace(world.caller, key_id=key_id, operations=frozenset({"WALLET_STATES"}))


async def change(world: World, wallet: UUID, what: str, reason: str = "asked for") -> str:
    """Change a wallet; return its status or why it was refused."""
    try:
        view = await change_wallet(world.core.ports, keeper(world), wallet, AccountChange(what), reason)
    except Refusal as refusal:
        return refusal.code
    return view.status


async def move(
    world: World, wallet: UUID, other: UUID, amount_minor: int, caller: Caller | None = None, **more: object
) -> UUID:
    """Ask for a transfer between wallets."""
    request = IntentRequest.model_validate(
        {"operation": "INTERNAL_P2P", "wallet_id": wallet, "counterparty_wallet_id": other}
        | {"amount_minor": amount_minor, "currency": "THB"}
        | more
    )
    return (await world.core.accept.accept(caller or world.caller, f"move-{next(world.numbers)}", request)).intent.id


async def told(world: World, wallet: UUID) -> list[WalletEvent]:
    """Return the wallet's events."""
    return (await list_events(world.core.ports, world.caller, wallet)).items


async def test_a_frozen_wallet_gives_nothing_and_takes_what_comes(world: World) -> None:
    await world.register()
    wallet, other = await world.wallet(1000), await world.wallet(500)
    assert await change(world, wallet, "freeze", "stolen phone") == "FROZEN"
    for asked in (await world.pay(wallet), await move(world, wallet, other, 10)):
        assert await world.state(asked) == ("FAILED", "account_frozen")
    assert (await world.state(await move(world, other, wallet, 10)))[0] == "SETTLED"
    assert await world.money(wallet) == (1010, 0)
    assert await change(world, wallet, "unfreeze") == "ACTIVE"
    assert (await world.state(await move(world, wallet, other, 10)))[0] == "SETTLED"
    assert [(e.seq, e.type, e.reason, e.actor) for e in await told(world, wallet)] == [
        (1, "frozen", "stolen phone", "key:keeper"),
        (2, "unfrozen", "asked for", "key:keeper"),
    ]
    await world.prove()


async def test_what_was_held_before_a_freeze_ends_either_way_and_refunds_and_returns_arrive(world: World) -> None:
    await world.register()
    wallet, shop = await world.wallet(1000), await world.wallet(1)
    paid, declined = await world.pay(wallet, 100), await world.pay(wallet, 50)
    bought = await move(world, wallet, shop, 30)
    await world.sent(paid)
    await world.sent(declined)
    assert await change(world, wallet, "freeze") == "FROZEN"
    await world.tell(pay_job(paid), "SUCCEEDED")
    await world.tell(pay_job(declined), "DECLINED", reason="no_such_payee")
    assert await world.money(wallet) == (870, 0)
    refund = IntentRequest.model_validate(
        {"operation": "REFUND", "wallet_id": shop, "original_intent_id": bought, "amount_minor": 30, "currency": "THB"}
    )
    assert (await world.core.accept.accept(world.caller, "back", refund)).intent.state == "SETTLED"
    await world.tell(pay_job(paid), "RETURNED", basis="REFERENCE_STATUS")
    assert await world.money(wallet) == (1000, 0)
    await world.prove()


async def test_a_payment_in_review_is_not_approved_out_of_a_frozen_wallet(world: World) -> None:
    wallet, other = await world.wallet(1000), await world.wallet(1)
    kept, dropped = await transfer(world, wallet, other), await transfer(world, wallet, other)
    await change(world, wallet, "freeze")
    assert await refused(world, kept, "APPROVE") == "account_frozen"
    assert (await decide(world, dropped, "REJECT")).state == "FAILED"
    await change(world, wallet, "unfreeze")
    assert (await decide(world, kept, "APPROVE")).state == "SETTLED"
    await world.prove()


async def test_after_a_freeze_has_committed_none_of_fifty_racing_payments_takes_a_hold(world: World) -> None:
    await world.register()
    wallet, other = await world.wallet(100_000), await world.wallet(1)
    callers = world.callers(50)
    payments = [asyncio.create_task(world.pay(wallet, 100, caller=caller)) for caller in callers[::2]]
    payments += [asyncio.create_task(move(world, wallet, other, 100, caller)) for caller in callers[1::2]]
    await asyncio.wait(payments, return_when=asyncio.FIRST_COMPLETED)
    status = await change(world, wallet, "freeze")
    frozen_at = await world.admin.fetchval("SELECT at FROM fleet.wallet_events WHERE wallet_id = $1", wallet)
    late = [await world.pay(wallet, 100), await move(world, wallet, other, 100)]
    intents = [*await asyncio.gather(*payments), *late]
    assert status == "FROZEN"
    states = [await world.state(each) for each in intents]
    assert set(states) <= {("AUTHORIZED", None), ("SETTLED", None), ("FAILED", "account_frozen")}
    assert states[-2:] == [("FAILED", "account_frozen")] * 2
    rows = await world.admin.fetch("SELECT created_at FROM fleet.transfers WHERE debit_account_id = $1", wallet)
    assert len(rows) == len([state for state in states if state[0] != "FAILED"])
    assert rows
    assert all(row["created_at"] <= frozen_at for row in rows)
    moved, held = states.count(("SETTLED", None)), states.count(("AUTHORIZED", None))
    assert await world.money(wallet) == (100_000 - 100 * moved, 100 * held)
    assert await world.money(other) == (1 + 100 * moved, 0)
    await world.prove()


async def test_a_wallet_is_closed_when_it_is_empty_and_stays_so(world: World) -> None:
    await world.register()
    wallet, other = await world.wallet(100), await world.wallet(1)
    assert await change(world, wallet, "close") == "account_not_empty"
    held = await world.pay(wallet, 100)
    assert await change(world, wallet, "close") == "account_not_empty"
    await world.sent(held)
    await world.tell(pay_job(held), "SUCCEEDED")
    assert await change(world, wallet, "close", "moved away") == "CLOSED"
    assert await change(world, wallet, "close", "again") == "CLOSED"
    assert await change(world, wallet, "freeze") == "account_closed"
    assert await change(world, wallet, "unfreeze") == "account_closed"
    assert await world.state(await move(world, other, wallet, 1)) == ("FAILED", "account_closed")
    assert [(e.type, e.reason) for e in await told(world, wallet)] == [("closed", "moved away")]
    await world.prove()


async def test_a_wallet_that_money_is_on_its_way_to_is_not_closed(world: World) -> None:
    wallet, _ = await world.core.wallets.create(world.caller, WalletRequest(owner="ben", currency="THB"))
    coming = await transfer(world, await world.wallet(100), wallet.id)
    assert await change(world, wallet.id, "close") == "account_not_empty"
    await decide(world, coming, "REJECT")
    assert await change(world, wallet.id, "close") == "CLOSED"


async def test_closing_raced_by_payments_to_the_wallet_leaves_no_money_in_a_closed_one(world: World) -> None:
    payer = await world.wallet(1000)
    for _ in range(5):
        wallet, _ = await world.core.wallets.create(world.caller, WalletRequest(owner="ben", currency="THB"))
        paid, closed = await asyncio.gather(move(world, payer, wallet.id, 1), change(world, wallet.id, "close"))
        ends = ((await world.state(paid))[0], closed)
        assert ends in {("SETTLED", "account_not_empty"), ("FAILED", "CLOSED")}
    await world.prove()


async def test_only_a_key_that_names_it_and_covers_the_wallet_changes_a_wallet_of_its_tenant(world: World) -> None:
    wallet = await world.wallet(1)
    callers = {
        "operation_not_permitted": world.caller,
        "account_not_permitted": replace(keeper(world), accounts=frozenset({UUID(int=7)})),
        "not_found": replace(keeper(world), tenant_id=UUID(int=77)),
    }
    for code, caller in callers.items():
        with pytest.raises(Refusal) as caught:
            await change_wallet(world.core.ports, caller, wallet, AccountChange.FREEZE, "x")
        assert caught.value.code == code
    assert await told(world, wallet) == []
    assert (await world.core.wallets.get(world.caller, wallet)).status == "ACTIVE"


async def test_an_external_id_is_replaced_with_an_event_and_names_one_wallet(world: World) -> None:
    first, second = await world.wallet(1), await world.wallet(1)

    async def name(wallet: UUID, external_id: str | None) -> str | None:
        asked = ExternalIdRequest(external_id=external_id, reason="import")
        return (await set_external_id(world.core.ports, world.caller, wallet, asked)).external_id

    assert await name(first, "a-1") == "a-1"
    assert await name(first, "a-1") == "a-1"
    with pytest.raises(Refusal, match="another wallet") as caught:
        await name(second, "a-1")
    assert caught.value.code == "external_id_taken"
    assert await name(first, "a-2") == "a-2"
    assert await name(second, "a-1") == "a-1"
    assert await name(first, None) is None
    assert [(e.seq, e.data) for e in await told(world, first)] == [
        (1, {"before": None, "after": "a-1"}),
        (2, {"before": "a-1", "after": "a-2"}),
        (3, {"before": "a-2", "after": None}),
    ]
