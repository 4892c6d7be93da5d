"""Wallets that are closed or frozen while money is on its way to them: fees' receivers, refunds' and transfers'."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from core.services.problems import Refusal
from schemas.api import WalletRequest
from tests.integration.permits.conftest import World, pay_job
from tests.integration.permits.test_collections import (
    limit,
    opened,
    payments,
    reference,
    shown,
    suspense,
    told,
    top_up,
)
from tests.integration.permits.test_fees import income, put
from tests.integration.permits.test_internal_operations import move
from tests.integration.permits.test_refunds import refund
from tests.integration.permits.test_refunds_by_rail import REFUNDS, collected, given_back, refund_job
from tests.integration.permits.test_refunds_by_rail import refund as refund_by_rail
from tests.integration.permits.test_reviews import decide, transfer
from tests.integration.permits.test_suspense import assign, open_items
from tests.integration.permits.test_wallet_states import change


async def empty(world: World) -> UUID:
    """Open a wallet with nothing."""
    return (await world.core.wallets.create(world.caller, WalletRequest(owner="pat", currency="THB")))[0].id


async def share(world: World, partner: UUID, **changed: Any) -> None:
    """Take a fee of ten, of which a partner's wallet gets nine."""
    shares = [{"parts": 1}, {"wallet_id": str(partner), "parts": 9}]
    await put(world, **{"operation": "INTERNAL_P2P", "fee": {"fixed_minor": 10}, "shares": shares} | changed)


async def paid_over(world: World, payer: UUID, payee: UUID, amount_minor: int = 100) -> Any:
    """Move money between wallets; return the intent as it was accepted."""
    return await move(world, "INTERNAL_P2P", payer, payee, amount_minor)


async def test_a_fee_whose_receiver_is_closed_stops_its_payment_and_one_that_is_frozen_gets_it(world: World) -> None:
    await world.register()
    payer, payee, partner = await world.wallet(1_000), await world.wallet(1), await empty(world)
    for operation in ("INTERNAL_P2P", "PAYOUT"):
        await share(world, partner, operation=operation, name=operation.lower())
    assert await change(world, partner, "freeze") == "FROZEN"
    assert (await paid_over(world, payer, payee)).state == "SETTLED"
    assert (await world.money(partner), await world.money(payer)) == ((9, 0), (890, 0))
    other = await empty(world)
    for operation in ("INTERNAL_P2P", "PAYOUT"):
        await share(world, other, operation=operation, name=operation.lower())
    world.forget_terms()
    assert await change(world, other, "close") == "CLOSED"
    failed = await paid_over(world, payer, payee)
    assert (failed.state, failed.failure_code) == ("FAILED", "account_closed")
    assert await world.state(await world.pay(payer)) == ("FAILED", "account_closed")
    assert (await world.money(payer), await world.money(other)) == ((890, 0), (0, 0))
    await world.prove()


async def test_who_lacks_the_principal_hears_that_and_a_refund_that_cannot_bring_its_fee_is_none(world: World) -> None:
    payer, payee, partner = await world.wallet(110), await world.wallet(1), await empty(world)
    await share(world, partner, on_refund="RETURNED")
    paid = await paid_over(world, payer, payee)
    assert (await world.money(payer), await world.money(partner)) == ((0, 0), (9, 0))
    assert (await move(world, "MINIAPP_CREDIT", partner, payee, 9)).state == "SETTLED"
    assert await change(world, partner, "close") == "CLOSED"
    assert (await paid_over(world, payer, payee)).failure_code == "insufficient_funds"
    failed = await refund(world, paid, 50)
    assert (failed.state, failed.failure_code) == ("FAILED", "account_closed")
    assert (await world.money(payer), await world.money(payee)) == ((0, 0), (110, 0))
    await world.prove()


@pytest.mark.parametrize("end", ["SUCCEEDED", "DECLINED"])
async def test_no_wallet_of_a_held_payment_closes_and_one_that_freezes_lets_it_end(world: World, end: str) -> None:
    await world.register()
    payer, partner = await world.wallet(110), await empty(world)
    await share(world, partner, operation="PAYOUT")
    held = await world.pay(payer)
    await world.sent(held)
    for wallet in (payer, partner):
        assert await change(world, wallet, "close") == "account_not_empty"
        assert await change(world, wallet, "freeze") == "FROZEN"
    await world.tell(pay_job(held), end)
    done = end == "SUCCEEDED"
    assert (await world.state(held))[0] == ("SETTLED" if done else "FAILED")
    assert (await world.money(payer), await world.money(partner)) == ((0 if done else 110, 0), (9 if done else 0, 0))
    # What ended leaves the one that has nothing free to be closed, frozen as it is.
    assert await change(world, payer if done else partner, "close") == "CLOSED"
    await world.prove()


async def test_a_closing_raced_by_the_settling_of_a_payment_waits_for_its_end(world: World) -> None:
    await world.register()
    for _ in range(5):
        payer = await world.wallet(100)
        held = await world.pay(payer, 100)
        await world.sent(held)
        _, closed = await asyncio.gather(world.tell(pay_job(held), "SUCCEEDED"), change(world, payer, "close"))
        assert closed in ("CLOSED", "account_not_empty")
        assert await world.state(held) == ("SETTLED", None)
        assert await change(world, payer, "close") == "CLOSED"
        assert await world.money(payer) == (0, 0)
    await world.prove()


async def test_who_is_frozen_while_a_transfer_waits_gets_it_and_cannot_be_closed_before(world: World) -> None:
    payee = await empty(world)
    coming = await transfer(world, await world.wallet(100), payee)
    assert await change(world, payee, "close") == "account_not_empty"
    assert await change(world, payee, "freeze") == "FROZEN"
    await decide(world, coming, "APPROVE")
    assert ((await world.state(coming))[0], (await world.money(payee))[0] > 0) == ("SETTLED", True)
    await world.prove()


async def test_a_refund_reaches_who_is_frozen_and_not_who_is_closed_and_takes_nothing_then(world: World) -> None:
    payer, payee = await world.wallet(200), await empty(world)
    first, second = await paid_over(world, payer, payee), await paid_over(world, payer, payee)
    assert await change(world, payer, "freeze") == "FROZEN"
    assert (await refund(world, first, 100)).state == "SETTLED"
    assert await change(world, payer, "unfreeze") == "ACTIVE"
    await paid_over(world, payer, payee)
    assert await change(world, payer, "close") == "CLOSED"
    failed = await refund(world, second, 40)
    assert (failed.state, failed.failure_code) == ("FAILED", "account_closed")
    assert await world.money(payee) == (200, 0)
    await world.prove()


@pytest.mark.parametrize("shut", ["freeze", "close"])
async def test_a_refund_whose_fee_its_receiver_cannot_give_back_fails_whole_and_may_be_asked_for_again(
    world: World, shut: str
) -> None:
    payer, payee, partner = await world.wallet(110), await empty(world), await empty(world)
    await share(world, partner, on_refund="RETURNED")
    original = await paid_over(world, payer, payee)
    if shut == "close":
        await put(world, operation="INTERNAL_P2P", fee={"fixed_minor": 0})
        world.forget_terms()
        await paid_over(world, partner, payer, 9)
        assert await change(world, partner, shut) == "CLOSED"
    else:
        assert await change(world, partner, shut) == "FROZEN"
    failed = await refund(world, original, 100)
    assert (failed.state, failed.failure_code) == ("FAILED", "account_frozen" if shut == "freeze" else "account_closed")
    assert (await world.money(payee), await income(world)) == ((100, 0), 1)
    if shut == "freeze":
        assert await change(world, partner, "unfreeze") == "ACTIVE"
        assert (await refund(world, original, 100)).state == "SETTLED"
        assert (await world.money(payer), await world.money(partner)) == ((110, 0), (0, 0))
    await world.prove()


@pytest.mark.parametrize(
    ("who", "shut", "reason"),
    [
        ("wallet", "close", "wallet_closed"),
        ("wallet", "freeze", "wallet_frozen"),
        ("partner", "close", "fee_wallet_closed"),
        ("partner", "freeze", ""),
    ],
)
async def test_money_in_that_its_wallet_or_its_fees_receiver_cannot_have_any_more_rests(
    world: World, who: str, shut: str, reason: str
) -> None:
    await opened(world, **REFUNDS)
    wallets = {"wallet": await empty(world), "partner": await empty(world)}
    wallet, partner = wallets.values()
    await share(world, partner, operation="TOPUP", phase="POST")
    intent = await shown(world, wallet)
    # Nothing is held for what has yet to come in: the wallet may be closed meanwhile.
    assert await change(world, wallets[who], shut) in ("CLOSED", "FROZEN")
    fact = {"reference": await reference(world, intent)}
    for expected in ("SUSPENDED" if reason else "CREDITED", "KNOWN"):
        assert await told(world, fact) == [expected]
    if not reason:
        assert (await world.money(wallet), await world.money(partner)) == ((1_990, 0), (9, 0))
        await world.prove()
        return
    assert await world.state(intent) == ("FAILED", reason)
    assert (await payments(world), await suspense(world)) == ([("SUSPENDED", reason)], 2_000)
    assert ("ticket", f"suspense_{reason}") in await world.alerts()
    (item,) = await open_items(world)
    if (who, shut) == ("wallet", "close"):
        with pytest.raises(Refusal) as refused:
            await assign(world, item, wallet)
        assert refused.value.code == "account_closed"
    other = await empty(world)
    await assign(world, item, other)
    assert (await world.money(other), await suspense(world)) == ((2_000, 0), 0)
    await world.prove()


async def test_a_refund_out_of_a_closed_wallet_fails_and_counts_as_none(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    drained = await world.pay(wallet, 2_001)
    await world.sent(drained)
    await world.tell(pay_job(drained), "SUCCEEDED")
    assert await change(world, wallet, "close") == "CLOSED"
    failed = await refund_by_rail(world, original, wallet, 2_000)
    assert (failed.state, failed.failure_code) == ("FAILED", "account_closed")
    # The provider takes it back all the same: the house bears it, and it is said whose debt it is.
    assert await told(world, {"kind": "RETURN", "source": "STATEMENT"}) == ["REVERSED"]
    assert ((await world.money(wallet)), ("page", "collection_returned") in await world.alerts()) == ((0, 0), True)
    await world.prove()


async def test_a_refund_paid_out_that_comes_back_to_a_wallet_closed_meanwhile_rests_in_suspense(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    made = await given_back(world, original, wallet, 2_000, "R1")
    drained = await world.pay(wallet, 1)
    await world.sent(drained)
    await world.tell(pay_job(drained), "SUCCEEDED")
    assert await change(world, wallet, "close") == "CLOSED"
    back: dict[str, Any] = {"amount_minor": 2_000, "currency": "THB", "provider_tx_id": "R1"}
    await world.tell(refund_job(made), "RETURNED", kind="refund", basis="REFERENCE_STATUS", **back)
    assert (await world.money(wallet), await suspense(world)) == ((0, 0), 2_000)
    assert ("page", "return_in_suspense") in await world.alerts()
    await world.prove()


async def test_a_top_up_of_a_closed_wallet_gives_its_limit_back_before_anything_counted_in_it(world: World) -> None:
    await opened(world)
    await limit(world, "daily", operation="TOPUP", max_amount_minor=2_500)
    wallet = await empty(world)
    assert await change(world, wallet, "close") == "CLOSED"
    assert await world.state(await top_up(world, wallet, 500)) == ("FAILED", "account_closed")
    assert await world.admin.fetch("SELECT FROM fleet.limit_usage WHERE held_minor <> 0 OR held_count <> 0") == []
    await world.prove()
