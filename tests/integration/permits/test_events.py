"""One event per change, whatever the operation and however it ends: those that the life of an intent allows."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core.services.payments.cancel import cancel
from schemas.api import IntentRequest, OnBehalfOf, WalletRequest
from tests.integration.permits.conftest import RAIL, World, pay_job
from tests.integration.permits.test_internal_operations import move
from tests.integration.permits.test_refunds import refund
from tests.integration.permits.test_reviews import decide, transfer
from tests.support.event_log import prove_events


async def log(world: World, intent: UUID) -> list[tuple[str, str]]:
    """Return type and state of every event."""
    text = "SELECT type, state FROM fleet.intent_events WHERE intent_id = $1 ORDER BY seq"
    return [(row["type"], row["state"]) for row in await world.admin.fetch(text, intent)]


@pytest.mark.parametrize("operation", ["PAYOUT", "WITHDRAWAL", "BILL_PAYMENT"])
async def test_a_payment_through_a_rail_tells_each_of_its_ends_once(world: World, operation: str) -> None:
    await world.register(also=["WITHDRAWAL", "BILL_PAYMENT"], inquiry=True)
    await world.admin.execute(
        "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
        " SELECT $1, o, 'THB', $2, 'p', 'main' FROM unnest(ARRAY['WITHDRAWAL', 'BILL_PAYMENT']) o",
        world.caller.tenant_id,
        RAIL,
    )
    wallet = await world.wallet(10_000)
    asked: dict[str, Any] = {"operation": operation}
    paid, refused, dropped, late = [await world.pay(wallet, **asked) for _ in range(4)]
    for intent, verdict, more in (
        (paid, "SUCCEEDED", {"amount_minor": 100, "currency": "THB", "provider_tx_id": "T1"}),
        (refused, "DECLINED", {}),
    ):
        await world.sent(intent)
        await world.tell(pay_job(intent), verdict, **more)
        await world.tell(pay_job(intent), verdict, **more)
    await cancel(world.core.ports, world.caller, dropped)
    await cancel(world.core.ports, world.caller, dropped)
    await world.pass_time(10**6)
    await world.resolve()
    await world.resolve()
    accepted = ("accepted", "AUTHORIZED")
    assert await log(world, paid) == [accepted, ("settled", "SETTLED")]
    assert await log(world, refused) == [accepted, ("failed", "FAILED")]
    assert await log(world, dropped) == [accepted, ("cancelled_by_client", "CANCELLED")]
    assert await log(world, late) == [accepted, ("expired", "EXPIRED")]
    await world.prove()


async def test_a_payment_between_wallets_is_told_once_and_so_is_its_refund(world: World) -> None:
    payer, other = await world.wallet(1000), await world.wallet(1)
    caller = replace(world.caller, operations=world.caller.operations | {"MINIAPP_CHARGE"})
    for operation in ("INTERNAL_P2P", "MINIAPP_CHARGE", "MINIAPP_CREDIT"):
        moved = await move(world, operation, payer, other, 100, caller)
        back = await refund(world, moved, 40)
        for intent in (moved.id, back.id):
            assert await log(world, intent) == [("accepted", "SETTLED")]
    poor = await move(world, "INTERNAL_P2P", other, payer, 10_000)
    assert await log(world, poor.id) == [("accepted", "FAILED")]
    approved, rejected = await transfer(world, payer, other), await transfer(world, payer, other)
    await decide(world, approved, "APPROVE")
    await decide(world, rejected, "REJECT")
    assert await log(world, approved) == [("accepted", "REVIEW"), ("review_approved", "SETTLED")]
    assert await log(world, rejected) == [("accepted", "REVIEW"), ("review_rejected", "FAILED")]
    debit = IntentRequest.model_validate(
        {"operation": "MANUAL_ADJUSTMENT", "wallet_id": payer, "amount_minor": 1, "currency": "THB",
         "direction": "DEBIT"}
    )  # fmt: skip
    may = replace(world.caller, operations=world.caller.operations | {"ADJUSTMENT_DEBIT"})
    taken = (await world.core.accept.accept(may, "debit", debit)).intent
    assert await log(world, taken.id) == [("accepted", "SETTLED")]
    assert await prove_events(world.admin) == 12


async def test_payments_that_share_a_transaction_tell_each_whose_it_is(world: World) -> None:
    await world.register()
    wallets = {}
    for user in ("anna", "berta"):
        view, _ = await world.core.wallets.create(world.caller, WalletRequest(owner=user, currency="THB"))
        wallets[user] = view.id
        await world._accept({"operation": "MANUAL_ADJUSTMENT", "wallet_id": view.id, "amount_minor": 1000})
    users = ("anna", "berta", "anna")
    acting = [replace(world.caller, acting=OnBehalfOf(user=user, agent="till")) for user in users]
    paid = await asyncio.gather(
        *(world.pay(wallets[user], caller=caller) for user, caller in zip(users, acting, strict=True))
    )
    text = "SELECT actor, xmin::text AS transaction FROM fleet.intent_events WHERE intent_id = $1 AND seq = 1"
    rows = [await world.admin.fetchrow(text, intent) for intent in paid]
    assert [row["actor"] for row in rows if row] == [f"key:key for {user} by till" for user in users]
    assert len({row["transaction"] for row in rows if row}) == 1
