"""Operations between wallets, and the other outgoing ones, on a real database with the real ledger."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core.services.access.keys import Caller
from core.services.payments.read_intents import IntentFilter
from core.services.payments.reviews import decide_review
from core.services.problems import Refusal
from schemas.api import IntentRequest, ReviewDecision, ReviewRequest, WalletRequest
from tests.integration.permits.conftest import World, pay_job
from tests.integration.permits.test_fees import income, put


async def move(
    world: World, operation: str, wallet: UUID, other: UUID, amount_minor: int = 100, caller: Caller | None = None
) -> Any:
    """Move money between two wallets; return the intent as it was accepted."""
    request = IntentRequest.model_validate({
        "operation": operation, "wallet_id": wallet, "counterparty_wallet_id": other,
        "amount_minor": amount_minor, "currency": "THB",
    })  # fmt: skip
    accepted = await world.core.accept.accept(caller or world.caller, f"move-{next(world.numbers)}", request)
    return accepted.intent


@pytest.mark.parametrize("operation", ["INTERNAL_P2P", "MINIAPP_CREDIT"])
async def test_money_between_wallets_moves_at_once_with_its_fees(world: World, operation: str) -> None:
    wallet, other = await world.wallet(1000), await world.wallet(1)
    await put(world, operation=operation)
    await put(world, operation=operation, name="out-of", phase="POST", fee={"basis_points": 1000})
    intent = await move(world, operation, wallet, other)
    assert (intent.state, intent.fee_minor, intent.counterparty_wallet_id) == ("SETTLED", 3, other)
    assert (await world.money(wallet), await world.money(other)) == ((897, 0), (91, 0))
    assert await income(world) == 13
    assert (await world.core.read.get(world.caller, intent.id)).counterparty_wallet_id == other
    await world.prove()


async def test_money_that_is_not_there_does_not_move(world: World) -> None:
    wallet, other = await world.wallet(99), await world.wallet(1)
    intent = await move(world, "INTERNAL_P2P", wallet, other)
    assert (intent.state, intent.failure_code) == ("FAILED", "insufficient_funds")
    assert (await world.money(wallet), await world.money(other)) == ((99, 0), (1, 0))


async def test_fifty_transfers_both_ways_at_once_lose_nothing_and_overdraw_nothing(world: World) -> None:
    wallet, other = await world.wallet(25 * 150), await world.wallet(25 * 110)
    asked = [(wallet, other, 150) if n % 2 else (other, wallet, 110) for n in range(50)]
    sent = zip(world.callers(50), asked, strict=True)
    intents = await asyncio.gather(*(move(world, "INTERNAL_P2P", *each, caller) for caller, each in sent))
    assert [intent.state for intent in intents] == ["SETTLED"] * 50
    assert (await world.money(wallet), await world.money(other)) == ((25 * 110, 0), (25 * 150, 0))
    # Eighteen times 150 fit into 2,750, and what is left is too little for a nineteenth.
    callers = world.callers(50)
    intents = await asyncio.gather(*(move(world, "INTERNAL_P2P", wallet, other, 150, caller) for caller in callers))
    assert Counter((intent.state, intent.failure_code) for intent in intents) == {
        ("SETTLED", None): 18, ("FAILED", "insufficient_funds"): 32,
    }  # fmt: skip
    assert (await world.money(wallet), await world.money(other)) == ((50, 0), (25 * 150 + 18 * 150, 0))
    await world.prove()


async def test_a_merchant_charges_with_a_key_that_names_it_and_covers_its_own_wallet(world: World) -> None:
    user, shop = await world.wallet(1000), await world.wallet(1)
    merchant = replace(world.caller, operations=frozenset({"MINIAPP_CHARGE"}), accounts=frozenset({shop}))
    intent = await move(world, "MINIAPP_CHARGE", user, shop, caller=merchant)
    assert intent.state == "SETTLED"
    assert (await world.money(user), await world.money(shop)) == ((900, 0), (101, 0))
    assert (await world.core.read.get(merchant, intent.id)).id == intent.id
    page, _ = await world.core.read.page(merchant, IntentFilter(accounts=[shop]), None, 10)
    assert intent.id in {each.id for each in page}
    with pytest.raises(Refusal) as caught:
        await move(world, "MINIAPP_CHARGE", shop, user, caller=merchant)
    assert caught.value.code == "account_not_permitted"
    everything = replace(world.caller, operations=frozenset({"*"}))
    with pytest.raises(Refusal) as caught:
        await move(world, "MINIAPP_CHARGE", user, shop, caller=everything)
    assert caught.value.code == "operation_not_permitted"


async def test_a_transfer_that_cannot_be_meant_is_refused_and_moves_nothing(world: World) -> None:
    wallet, other = await world.wallet(1000), await world.wallet(1)
    rouble, _ = await world.core.wallets.create(world.caller, WalletRequest(owner="anna", currency="RUB"))
    for changed, code in (
        ({"counterparty_wallet_id": None}, "counterparty_missing"),
        ({"counterparty_wallet_id": wallet}, "counterparty_same"),
        ({"counterparty_wallet_id": UUID(int=7)}, "wallet_not_found"),
        ({"counterparty_wallet_id": rouble.id}, "currency_mismatch"),
        ({"operation": "PAYOUT"}, "counterparty_not_expected"),
        ({"payee": {"type": "mobile", "value": "0812345678"}}, "payee_not_expected"),
    ):
        body = {
            "operation": "INTERNAL_P2P", "wallet_id": wallet, "counterparty_wallet_id": other,
            "amount_minor": 100, "currency": "THB",
        }  # fmt: skip
        request = IntentRequest.model_validate(body | changed)
        with pytest.raises(Refusal) as caught:
            await world.core.accept.accept(world.caller, "refused", request)
        assert caught.value.code == code
    assert (await world.money(wallet), await world.money(other)) == ((1000, 0), (1, 0))


async def test_a_wallet_of_another_tenant_is_no_counterparty(world: World) -> None:
    wallet, stranger = await world.wallet(1000), UUID(int=77)
    await world.admin.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'other')", stranger)
    theirs, _ = await world.core.wallets.create(
        replace(world.caller, tenant_id=stranger), WalletRequest(owner="ben", currency="THB")
    )
    for pair in ((wallet, theirs.id), (theirs.id, wallet)):
        with pytest.raises(Refusal) as caught:
            await move(world, "INTERNAL_P2P", *pair)
        assert caught.value.code == "wallet_not_found"
    assert await world.money(wallet) == (1000, 0)


@pytest.mark.parametrize("operation", ["WITHDRAWAL", "BILL_PAYMENT"])
async def test_an_outgoing_operation_goes_where_its_own_route_says_or_nowhere(world: World, operation: str) -> None:
    await world.register(also=(operation,))
    wallet = await world.wallet(1000)
    with pytest.raises(Refusal) as caught:
        await world.pay(wallet, operation=operation)
    assert caught.value.code == "no_route"
    assert await world.money(wallet) == (1000, 0)
    await world.admin.execute(
        "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
        " SELECT tenant_id, $1, currency, rail, provider, provider_account FROM fleet.routes",
        operation,
    )
    world.forget_terms()
    intent = await world.pay(wallet, operation=operation)
    assert await world.money(wallet) == (1000, 100)
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="T1")
    assert (await world.state(intent))[0] == "SETTLED"
    assert await world.money(wallet) == (900, 0)
    await world.prove()


async def test_the_history_tells_what_moved_the_money_and_between_whom(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    ben, _ = await world.core.wallets.create(world.caller, WalletRequest(owner="ben", currency="THB"))
    await put(world, operation="INTERNAL_P2P")
    await move(world, "INTERNAL_P2P", wallet, ben.id)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="T1")
    masked = (await world.core.read.get(world.caller, intent)).payee_masked
    entries = await world.history(wallet)
    told = {(e.operation, e.from_name, e.to_name, e.amount_minor) for e in entries}
    assert told == {
        ("PAYOUT", "anna", masked, -100),
        ("INTERNAL_P2P", "anna", "ben", -100),
        ("INTERNAL_P2P", "anna", "", -3),
        ("MANUAL_ADJUSTMENT", "", "anna", 1000),
    }
    (received,) = await world.history(ben.id)
    assert (received.from_name, received.to_name, received.amount_minor) == ("anna", "ben", 100)


async def adjust(world: World, wallet: UUID, amount_minor: int, direction: str | None, caller: Caller) -> Any:
    """Adjust a wallet by hand; return the intent as it was accepted."""
    request = IntentRequest.model_validate({
        "operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": amount_minor, "currency": "THB",
        "direction": direction,
    })  # fmt: skip
    return (await world.core.accept.accept(caller, f"adjust-{next(world.numbers)}", request)).intent


async def test_money_is_made_by_hand_by_two_keys_above_what_the_tenant_lets_one_do_alone(world: World) -> None:
    wallet = await world.wallet(1000)
    one = replace(world.caller, operations=frozenset({"MANUAL_ADJUSTMENT", "ADJUSTMENT_DEBIT", "REVIEW"}))
    waits = await adjust(world, wallet, 400, "CREDIT", one)
    assert (waits.state, waits.requires_monitoring, await world.money(wallet)) == ("REVIEW", True, (1000, 0))
    approval = ReviewRequest(decision=ReviewDecision.APPROVE)
    with pytest.raises(Refusal) as caught:
        await decide_review(world.core.ports, one, waits.id, approval)
    assert (caught.value.code, await world.money(wallet)) == ("review_own_intent", (1000, 0))
    second = replace(one, key_id="second")
    assert (await decide_review(world.core.ports, second, waits.id, approval)).state == "SETTLED"
    assert await world.money(wallet) == (1400, 0)
    await world.core.tenants.set_adjusts_alone("operator", world.caller.tenant_id, 50)
    states = [(await adjust(world, wallet, amount, "DEBIT", one)).state for amount in (50, 51)]
    assert states == ["SETTLED", "REVIEW"]
    assert await world.money(wallet) == (1350, 51)
    told = await world.admin.fetch(
        "SELECT actor, action FROM fleet.audit_entries WHERE tenant_id = $1"
        " AND action IN ('adjusted_by_hand', 'review_approved') AND seq > 1 ORDER BY seq",
        one.tenant_id,
    )
    by_first, by_second = one.context().actor, second.context().actor
    assert [tuple(row) for row in told][-4:] == [
        (by_first, "adjusted_by_hand"), (by_second, "review_approved"),
        (by_first, "adjusted_by_hand"), (by_first, "adjusted_by_hand"),
    ]  # fmt: skip


async def test_an_adjustment_takes_money_out_by_a_key_that_names_it_and_never_below_zero(world: World) -> None:
    wallet = await world.wallet(1000)
    debits = replace(world.caller, operations=frozenset({"MANUAL_ADJUSTMENT", "ADJUSTMENT_DEBIT", "ADJUSTMENT_ALONE"}))
    assert (await adjust(world, wallet, 400, "DEBIT", debits)).state == "SETTLED"
    assert (await adjust(world, wallet, 50, "CREDIT", world.caller)).state == "SETTLED"
    assert await world.money(wallet) == (650, 0)
    more = await adjust(world, wallet, 651, "DEBIT", debits)
    assert (more.state, more.failure_code) == ("FAILED", "insufficient_funds")
    for operations in ({"*", "MANUAL_ADJUSTMENT"}, {"ADJUSTMENT_DEBIT"}):
        with pytest.raises(Refusal) as caught:
            await adjust(world, wallet, 1, "DEBIT", replace(world.caller, operations=frozenset(operations)))
        assert caught.value.code == "operation_not_permitted"
    assert await world.money(wallet) == (650, 0)
    entries = await world.history(wallet)
    assert [(e.amount_minor, e.from_name, e.to_name) for e in entries] == [
        (50, "", "anna"), (-400, "anna", ""), (1000, "", "anna"),
    ]  # fmt: skip
    await world.prove()


async def test_what_has_one_direction_takes_none(world: World) -> None:
    wallet, other = await world.wallet(1000), await world.wallet(1)
    request = IntentRequest.model_validate({
        "operation": "INTERNAL_P2P", "wallet_id": wallet, "counterparty_wallet_id": other, "amount_minor": 1,
        "currency": "THB", "direction": "CREDIT",
    })  # fmt: skip
    with pytest.raises(Refusal) as caught:
        await world.core.accept.accept(world.caller, "directed", request)
    assert caught.value.code == "direction_not_expected"
