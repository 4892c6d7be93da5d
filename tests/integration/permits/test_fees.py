"""Fees in the chain of their payment: held, posted and voided as one, on a real database with the real ledger."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from core.domain.operations import AccountCode, system_account
from core.services.payments.cancel import cancel
from core.services.payments.confirm import confirm
from core.services.payments.read_intents import intent_view
from core.services.problems import Refusal
from core.services.terms.set_fees import disable_rule, rule_id_of, set_rule
from schemas.api import ConfirmRequest, IntentRequest
from schemas.fees import FeeRuleRequest
from tests.integration.permits.conftest import World, lookup_job, pay_job
from tests.integration.permits.test_lookups_and_deadlines import found


async def put(world: World, **changed: Any) -> None:
    """Set a rule of the tenant: three fixed units on top of a payout, changed."""
    body = {"name": "on-top", "operation": "PAYOUT", "currency": "THB", "fee": {"fixed_minor": 3}}
    ports = world.core.worker_ports
    async with ports.unit_of_work(world.caller.context()) as uow:
        request = FeeRuleRequest.model_validate(body | changed)
        await set_rule(uow, ports.fee_rules, ports.wallets, world.caller.tenant_id, "test", request)


async def put_both(world: World, partner: UUID) -> None:
    """Three units on top; ten percent out of the amount, of which a partner gets a third."""
    await put(world)
    shares = [{"qualifier": "cards", "parts": 2}, {"wallet_id": str(partner), "parts": 1}]
    await put(world, name="out-of", phase="POST", fee={"basis_points": 1000}, shares=shares)


async def income(world: World, qualifier: str = "") -> int:
    """Return what the tenant's fee income of this qualifier has got."""
    account = system_account(world.caller.tenant_id, "THB", AccountCode.FEE_INCOME, qualifier)
    async with world.uow() as uow:
        found = await world.core.worker_ports.ledger.lookup_accounts(uow, [account.id])
    return found[account.id].posted_minor if account.id in found else 0


async def refused(world: World, wallet: UUID, **asked: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await world.pay(wallet, **asked)
    return caught.value


async def test_fees_are_held_and_posted_with_their_payment_and_the_provider_pays_the_rest(world: World) -> None:
    await world.register()
    wallet, partner = await world.wallet(1000), await world.wallet(1)
    await put_both(world, partner)
    intent = await world.pay(wallet)
    assert await world.money(wallet) == (1000, 103)
    view = intent_view(await world.core.read.get(world.caller, intent))
    assert (view["amount_minor"], view["fee_minor"], view["received_minor"]) == (100, 3, 90)
    # Ten units by two to one: the unit that remains goes to the larger remainder.
    assert [(leg["phase"], leg["qualifier"], leg["amount_minor"]) for leg in view["fees"]] == [
        ("PRE", "", 3), ("POST", "cards", 7), ("POST", "", 3)
    ]  # fmt: skip
    permit = await world.sent(intent)
    assert permit.amount_minor == 90
    await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=90, currency="THB", provider_tx_id="T1")
    assert (await world.state(intent))[0] == "SETTLED"
    assert await world.money(wallet) == (897, 0)
    assert (await income(world), await income(world, "cards"), await world.money(partner)) == (3, 7, (4, 0))
    await world.prove()


async def test_a_provider_that_paid_the_whole_amount_is_not_believed(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    await put(world, phase="POST")
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="T1")
    assert (await world.state(intent))[0] != "SETTLED"
    assert await world.money(wallet) == (1000, 100)
    await world.prove()


async def test_a_payment_that_is_withdrawn_gives_its_fees_back(world: World) -> None:
    await world.register()
    wallet, partner = await world.wallet(1000), await world.wallet(1)
    await put_both(world, partner)
    intent = await world.pay(wallet)
    assert (await cancel(world.core.ports, world.caller, intent)).state == "CANCELLED"
    assert (await world.money(wallet), await world.money(partner)) == ((1000, 0), (1, 0))
    assert (await income(world), await income(world, "cards")) == (0, 0)
    await world.prove()


async def test_what_covers_the_amount_and_not_the_fee_is_not_enough(world: World) -> None:
    await world.register()
    wallet = await world.wallet(102)
    await put(world)
    intent = await world.pay(wallet)
    assert await world.state(intent) == ("FAILED", "insufficient_funds")
    assert await world.money(wallet) == (102, 0)
    await world.prove()


async def test_the_fee_of_a_lookup_is_the_providers_and_the_rules_together(world: World) -> None:
    await world.register(lookup=True)
    wallet, partner = await world.wallet(1000), await world.wallet(1)
    await put_both(world, partner)
    intent = await world.pay(wallet)
    assert await world.money(wallet) == (1000, 0)
    assert (await world.job(lookup_job(intent)))["amount_minor"] == 90
    await world.settle(found(world, intent, fee_minor=5))
    shown = intent_view(await world.core.read.get(world.caller, intent))
    assert (shown["fee_minor"], shown["lookup"]["fee_minor"]) == (8, 8)
    with pytest.raises(Refusal, match=r"the fee is 0\.08 THB"):
        await confirm(world.core.ports, world.caller, intent, ConfirmRequest(amount_minor=100, fee_minor=5))
    for _ in range(2):
        done = await confirm(world.core.ports, world.caller, intent, ConfirmRequest(amount_minor=100, fee_minor=8))
        assert (done.state, done.fee_minor) == ("AUTHORIZED", 8)
    assert await world.money(wallet) == (1000, 108)
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=90, currency="THB", provider_tx_id="T1")
    assert (await world.money(wallet), await income(world), await income(world, "cards")) == ((892, 0), 8, 7)
    await world.prove()


@pytest.mark.parametrize(("agreed_minor", "state"), [(7, "AWAITING_CONFIRMATION"), (8, "AUTHORIZED")])
async def test_what_was_agreed_beforehand_covers_the_rules_too(world: World, agreed_minor: int, state: str) -> None:
    await world.register(lookup=True)
    wallet = await world.wallet(1000)
    await put(world)
    intent = await world.pay(wallet, auto_confirm={"max_fee_minor": agreed_minor})
    await world.settle(found(world, intent, fee_minor=5))
    assert (await world.state(intent))[0] == state
    await world.prove()


async def test_a_payment_whose_fees_stop_it_is_refused_and_holds_nothing(world: World) -> None:
    await world.register(min_amount_minor=50)
    wallet = await world.wallet(10_000)
    await put(world)
    await put(world, name="out-of", phase="POST", when="amount_minor < 1000", fee={"fixed_minor": 60})
    # No payment that is tried when a rule is saved comes near where this one has no value.
    await put(world, name="broken", when="1 / (amount_minor / 97 - 33) > 1")
    for amount_minor, asked, code in (
        (60, {}, "fee_exceeds_amount"),
        (100, {}, "amount_out_of_bounds"),
        (3250, {}, "fee_rule_fails"),
        (2000, {"auto_confirm": {"max_fee_minor": 2}}, "fee_above_agreed"),
    ):
        assert (await refused(world, wallet, amount_minor=amount_minor, **asked)).code == code
    assert await world.money(wallet) == (10_000, 0)
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.intents WHERE operation = 'PAYOUT'") == 0
    await world.pay(wallet, 110)
    await world.pay(wallet, 2000, auto_confirm={"max_fee_minor": 3})
    assert await world.money(wallet) == (10_000, 2116)


async def test_a_repeat_answers_with_the_fees_of_the_first_time(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    await put(world)
    asked = IntentRequest.model_validate({
        "operation": "PAYOUT", "wallet_id": wallet, "amount_minor": 100, "currency": "THB",
        "payee": {"type": "mobile", "value": "0812345678"},
    })  # fmt: skip
    first = await world.core.accept.accept(world.caller, "once", asked)
    tenant, ports = world.caller.tenant_id, world.core.worker_ports
    async with ports.unit_of_work(world.caller.context()) as uow:
        await disable_rule(uow, ports.fee_rules, tenant, "test", rule_id_of(tenant, "on-top"))
    world.forget_terms()
    again = await world.core.accept.accept(world.caller, "once", asked)
    assert (first.replayed, again.replayed) == (False, True)
    assert intent_view(again.intent) == intent_view(first.intent)
    assert intent_view(again.intent)["fee_minor"] == 3
    other = await world.pay(wallet)
    assert await world.money(wallet) == (1000, 203)
    assert intent_view(await world.core.read.get(world.caller, other))["fees"] == []


async def test_money_that_proved_paid_after_its_void_is_what_the_provider_paid(world: World) -> None:
    await world.register(negative_is_final_for_reference=True)
    wallet = await world.wallet(1000)
    await put(world, phase="POST")
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "DECLINED")
    assert await world.money(wallet) == (1000, 0)
    await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=97, currency="THB", provider_tx_id="T1")
    suspense = system_account(world.caller.tenant_id, "THB", AccountCode.SUSPENSE)
    async with world.uow() as uow:
        balance = (await world.core.worker_ports.ledger.lookup_accounts(uow, [suspense.id]))[suspense.id]
    assert balance.posted_minor == -97
    await world.prove()


async def test_a_fee_follows_the_tier_and_the_channel_of_the_moment(world: World) -> None:
    await world.register()
    wallet, other = await world.wallet(1000), await world.wallet(1000)
    await put(world, when="tier != 'gold' && channel == 'app'")
    await world.pay(wallet, channel="web")
    await world.pay(wallet, channel="app")
    assert await world.money(wallet) == (1000, 203)
    await world.admin.execute("UPDATE fleet.wallets SET tier = 'gold' WHERE id = $1", wallet)
    await world.pay(wallet, channel="app")
    await world.pay(other, channel="app")
    assert (await world.money(wallet), await world.money(other)) == ((1000, 303), (1000, 103))


async def test_fifty_payments_at_once_never_spend_what_their_fees_need(world: World) -> None:
    await world.register()
    wallet, partner = await world.wallet(1000), await world.wallet(1)
    await put_both(world, partner)
    intents = await asyncio.gather(*(world.pay(wallet, caller=caller) for caller in world.callers(50)))
    states = [await world.state(intent) for intent in intents]
    # Nine times 103 fit into 1000, and a tenth without its fee is none.
    assert sorted(states) == [("AUTHORIZED", None)] * 9 + [("FAILED", "insufficient_funds")] * 41
    assert await world.money(wallet) == (1000, 927)
    await world.prove()


async def test_a_wallets_own_share_is_not_taken_from_it(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    await put(world, fee={"fixed_minor": 4}, shares=[{"wallet_id": str(wallet)}, {"parts": 1}])
    await world.pay(wallet)
    assert await world.money(wallet) == (1000, 102)
    await world.prove()
