"""Terms that change under a payment that is held: it ends by those that it was accepted under."""

from uuid import UUID

from tests.integration.permits.conftest import World, pay_job
from tests.integration.permits.test_collections import limit
from tests.integration.permits.test_fees import income, put
from tests.integration.permits.test_limits_of_money_in import used


async def settled(world: World, intent: UUID, amount_minor: int) -> None:
    """Let the provider pay this much."""
    await world.sent(intent)
    money = {"amount_minor": amount_minor, "currency": "THB", "provider_tx_id": f"T{intent}"}
    await world.tell(pay_job(intent), "SUCCEEDED", **money)
    assert (await world.state(intent))[0] == "SETTLED"


async def test_a_rule_replaced_after_the_hold_changes_neither_its_fees_nor_what_a_return_brings(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    await put(world, on_refund="RETURNED")
    await put(world, name="out-of", phase="POST", fee={"fixed_minor": 10})
    before = await world.pay(wallet)
    await put(world, fee={"fixed_minor": 50})
    await put(world, name="out-of", phase="POST", fee={"fixed_minor": 40}, on_refund="RETURNED")
    world.forget_terms()
    await settled(world, before, 90)
    assert (await world.money(wallet), await income(world)) == ((897, 0), 13)
    await settled(world, await world.pay(wallet), 60)
    assert (await world.money(wallet), await income(world)) == ((747, 0), 103)
    await world.tell(pay_job(before), "RETURNED", basis="REFERENCE_STATUS", provider_tx_id="R1")
    assert (await world.money(wallet), await income(world)) == ((840, 0), 100)
    await world.prove()


async def test_a_limit_lowered_under_what_is_held_refuses_until_enough_of_that_is_given_back(world: World) -> None:
    await world.register()
    wallet = await world.wallet(5_000)
    await limit(world, "out", operation="PAYOUT", max_amount_minor=1_000)
    large, small = await world.pay(wallet, 600), await world.pay(wallet, 300)
    await limit(world, "out", operation="PAYOUT", max_amount_minor=400)
    assert await world.state(await world.pay(wallet, 1)) == ("FAILED", "limit_exceeded")
    await world.sent(large)
    await world.tell(pay_job(large), "DECLINED", reason="refused")
    assert await used(world, wallet, "out") == (0, 300)
    assert await world.state(await world.pay(wallet, 101)) == ("FAILED", "limit_exceeded")
    assert (await world.state(await world.pay(wallet, 100)))[0] == "AUTHORIZED"
    await limit(world, "out", operation="PAYOUT", max_amount_minor=10)
    await settled(world, small, 300)
    assert await used(world, wallet, "out") == (300, 100)
