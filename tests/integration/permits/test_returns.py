"""What a provider gives back of a payment, on a real database with the real ledger."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core.domain.ledger import AccountFlags
from core.domain.operations import AccountCode, system_account
from core.services.payments.read_intents import IntentFilter
from core.services.payments.reviews import decide_review
from core.services.problems import Refusal
from core.services.terms.set_limits import set_limit
from schemas.api import IntentRequest, ReviewDecision, ReviewRequest
from schemas.limits import LimitRequest
from tests.integration.permits.conftest import World, pay_job
from tests.integration.permits.test_fees import income, put
from tests.integration.permits.test_internal_operations import adjust, move


async def paid(world: World, wallet: UUID, amount_minor: int = 100) -> UUID:
    """Let a payout settle; return the intent."""
    intent = await world.pay(wallet, amount_minor)
    await world.sent(intent)
    money = {"amount_minor": amount_minor, "currency": "THB", "provider_tx_id": f"T{intent}"}
    await world.tell(pay_job(intent), "SUCCEEDED", **money)
    assert (await world.state(intent))[0] == "SETTLED"
    return intent


async def returned(world: World, intent: UUID, **more: Any) -> None:
    """Let the provider say that the payment came back."""
    await world.tell(pay_job(intent), "RETURNED", basis="REFERENCE_STATUS", provider_tx_id="R1", **more)


async def refunds(world: World, intent: UUID) -> list[Any]:
    """Return the refunds of a payment, newest first."""
    rows, _ = await world.core.read.page(world.caller, IntentFilter(original_intent_id=intent), None, 10)
    return rows


async def clearing_and_suspense(world: World) -> tuple[int, int]:
    """Return what the provider's account and suspense hold."""
    tenant = world.caller.tenant_id
    ids = [
        system_account(tenant, "THB", AccountCode.CLEARING, "p:main:sandbox").id,
        system_account(tenant, "THB", AccountCode.SUSPENSE).id,
    ]
    async with world.uow() as uow:
        found = await world.core.worker_ports.ledger.lookup_accounts(uow, ids)
    clearing, suspense = (found[each].posted_minor if each in found else 0 for each in ids)
    return clearing, suspense


async def test_a_payment_that_comes_back_after_its_end_is_refunded_to_its_wallet_once(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await paid(world, wallet)
    await returned(world, intent, amount_minor=100, currency="THB")
    assert await world.money(wallet) == (1000, 0)
    assert await clearing_and_suspense(world) == (0, 0)
    (refund,) = await refunds(world, intent)
    assert (refund.operation, refund.state, refund.direction, refund.amount_minor) == (
        "REFUND",
        "SETTLED",
        "RETURN",
        100,
    )
    assert refund.provider_reference == "R1"
    event = await world.admin.fetchrow(
        "SELECT type, state, data FROM fleet.intent_events WHERE intent_id = $1", refund.id
    )
    assert event is not None
    assert (event["type"], event["state"]) == ("accepted", "SETTLED")
    assert str(intent) in event["data"]
    # Told once more, nothing moves; the payment itself stays as it was.
    await returned(world, intent, amount_minor=100, currency="THB")
    assert len(await refunds(world, intent)) == 1
    assert (await world.state(intent))[0] == "SETTLED"
    assert await world.alerts() == [("ticket", "payment_returned")]
    entries = await world.history(wallet)
    assert (entries[0].operation, entries[0].amount_minor, entries[0].balance_minor) == ("REFUND", 100, 1000)
    await world.prove()


async def test_a_part_that_comes_back_brings_its_part_of_the_fee_and_of_the_limit(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    await put(world, fee={"kind": "RATE", "fixed_minor": 10}, on_refund="RETURNED")
    body = {"name": "daily", "kind": "DAY", "currency": "THB", "max_amount_minor": 100, "refund_gives_back": True}
    ports = world.core.ports
    async with ports.unit_of_work(world.caller.context()) as uow:
        request = LimitRequest.model_validate(body)
        await set_limit(uow, ports.limit_store, world.caller.tenant_id, "test", request)
    for each in (ports, world.core.worker_ports):
        each.limits.forget(world.caller.tenant_id)
    intent = await paid(world, wallet)
    assert await world.state(await world.pay(wallet, 1)) == ("FAILED", "limit_exceeded")
    assert await world.money(wallet) == (890, 0)
    await returned(world, intent, amount_minor=45)
    assert (await world.money(wallet), await income(world)) == ((890 + 45 + 4, 0), 6)
    assert (await world.state(await world.pay(wallet, 45)))[0] == "AUTHORIZED"
    async with world.uow() as uow:
        assert await ports.limit_store.verify(uow) == []
    await world.prove()


async def test_what_comes_back_before_it_settled_is_posted_and_refunded_in_one(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    body = {"name": "daily", "kind": "DAY", "currency": "THB", "max_amount_minor": 100, "refund_gives_back": True}
    ports = world.core.ports
    async with ports.unit_of_work(world.caller.context()) as uow:
        request = LimitRequest.model_validate(body)
        await set_limit(uow, ports.limit_store, world.caller.tenant_id, "test", request)
    ports.limits.forget(world.caller.tenant_id)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await returned(world, intent)
    assert (await world.state(intent))[0] == "SETTLED"
    assert (await world.money(wallet), await clearing_and_suspense(world)) == ((1000, 0), (0, 0))
    (refund,) = await refunds(world, intent)
    assert refund.amount_minor == 100
    async with world.uow() as uow:
        assert await ports.limit_store.verify(uow) == []
    await world.prove()


@pytest.mark.parametrize("why", ["the tenant looks first", "the wallet is closed"])
async def test_a_return_goes_to_suspense_where_its_wallet_may_not_have_it(world: World, why: str) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    await put(world, fee={"kind": "RATE", "fixed_minor": 10}, on_refund="RETURNED")
    intent = await paid(world, wallet)
    if why == "the wallet is closed":
        await world.admin.execute(
            "UPDATE fleet.accounts SET flags = flags | $2 WHERE id = $1", wallet, int(AccountFlags.CLOSED)
        )
    else:
        await world.admin.execute("UPDATE fleet.tenants SET returns_to = 'SUSPENSE'")
    await returned(world, intent)
    assert (await world.money(wallet), await income(world)) == ((890, 0), 10)
    assert await clearing_and_suspense(world) == (0, 100)
    (refund,) = await refunds(world, intent)
    assert (refund.direction, refund.state, refund.fee_legs) == ("SUSPENSE", "SETTLED", ())
    assert await world.alerts() == [("page", "return_in_suspense")]
    await world.prove()


@pytest.mark.parametrize("to", ["WALLET", "SUSPENSE"])
async def test_a_return_told_by_each_of_two_permits_is_booked_once_wherever_it_went(world: World, to: str) -> None:
    await world.register(deduplicates_reference=True)
    await world.admin.execute("UPDATE fleet.tenants SET returns_to = $1", to)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    for _ in range(2):
        await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="T1")
    for fence in (1, 2):
        await returned(world, intent, fence=fence, amount_minor=100, currency="THB")
    (refund,) = await refunds(world, intent)
    assert refund.amount_minor == 100
    assert await world.money(wallet) == ((1000, 0) if to == "WALLET" else (900, 0))
    assert await clearing_and_suspense(world) == (0, 0 if to == "WALLET" else 100)
    await world.prove()


async def test_a_partner_that_spent_its_share_of_the_fee_holds_no_return_up(world: World) -> None:
    await world.register()
    wallet, partner, other = await world.wallet(1000), await world.wallet(1), await world.wallet(1)
    shares = [{"parts": 1}, {"wallet_id": str(partner), "parts": 1}]
    await put(world, fee={"kind": "RATE", "fixed_minor": 10}, shares=shares, on_refund="RETURNED")
    first, second = await paid(world, wallet), await paid(world, wallet)
    assert await world.money(partner) == (11, 0)
    await move(world, "INTERNAL_P2P", partner, other, 6)
    # Five are left of the ten that it got: one of two returns in one batch takes them, the other does without.
    await world.settle(*(world.fact(pay_job(each), "RETURNED", basis="REFERENCE_STATUS") for each in (first, second)))
    assert (await world.money(wallet), await world.money(partner)) == ((1000 - 5, 0), (0, 0))
    assert await income(world) == 0
    assert sorted(await world.alerts()) == [
        ("ticket", "fee_not_returned"), ("ticket", "payment_returned"), ("ticket", "payment_returned"),
    ]  # fmt: skip
    await world.prove()


async def test_what_rests_in_suspense_is_released_once_by_a_key_that_names_it(world: World) -> None:
    await world.register()
    wallet, other = await world.wallet(1000), await world.wallet(1)
    await world.admin.execute("UPDATE fleet.tenants SET returns_to = 'SUSPENSE'")
    intent = await paid(world, wallet)
    await returned(world, intent)
    (parked,) = await refunds(world, intent)

    async def release(amount_minor: int, to: UUID, operations: frozenset[str]) -> Any:
        request = IntentRequest.model_validate({
            "operation": "REFUND", "original_intent_id": parked.id, "wallet_id": to, "amount_minor": amount_minor,
            "currency": "THB",
        })  # fmt: skip
        caller = replace(world.caller, operations=operations)
        return (await world.core.accept.accept(caller, f"release-{next(world.numbers)}", request)).intent

    desk = frozenset({"REFUND", "SUSPENSE", "ADJUSTMENT_ALONE"})
    for operations in (frozenset({"*"}), frozenset({"SUSPENSE"})):
        with pytest.raises(Refusal) as caught:
            await release(100, wallet, operations)
        assert caught.value.code == "operation_not_permitted"
    first = await release(60, wallet, desk)
    assert (first.state, first.direction, first.counterparty_wallet_id) == ("SETTLED", "RELEASE", None)
    answers = await asyncio.gather(*(release(40, other, desk) for _ in range(5)), return_exceptions=True)
    assert [each.state for each in answers if not isinstance(each, BaseException)].count("SETTLED") == 1
    assert (await world.money(wallet), await world.money(other)) == ((960, 0), (41, 0))
    assert await clearing_and_suspense(world) == (0, 0)
    with pytest.raises(Refusal) as caught:
        await release(1, wallet, desk)
    assert caught.value.code == "refund_exceeds_original"
    await world.prove()


async def test_a_return_that_cannot_be_is_quarantined_and_moves_nothing(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await paid(world, wallet)
    await returned(world, intent, amount_minor=101)
    await returned(world, intent, amount_minor=100, currency="RUB")
    assert (await world.money(wallet), await refunds(world, intent)) == ((900, 0), [])
    reasons = {row["quarantine"] for row in await world.admin.fetch("SELECT quarantine FROM fleet.facts")}
    assert "amount_differs" in reasons
    assert {severity for severity, _ in await world.alerts()} == {"page"}
    await world.prove()


async def voided(world: World, wallet: UUID) -> UUID:
    """Let a payout be refused; return the intent."""
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "DECLINED", reason="account_closed")
    return intent


@pytest.mark.parametrize("told_paid", [True, False])
async def test_what_was_paid_after_its_void_and_came_back_leaves_the_books_whole(world: World, told_paid: bool) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await voided(world, wallet)
    if told_paid:
        await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="R1")
        assert await clearing_and_suspense(world) == (100, -100)
    for _ in range(2):
        await returned(world, intent)
    assert await clearing_and_suspense(world) == (0, 0)
    assert (await world.money(wallet), await refunds(world, intent)) == ((1000, 0), [])
    assert (await world.state(intent))[0] == "FAILED"
    open_alerts = "SELECT count(*) FROM fleet.alerts WHERE closed_at IS NULL"
    assert await world.admin.fetchval(open_alerts) == 0
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.facts WHERE applied_at IS NULL") == 0
    await world.prove()


async def test_what_came_back_in_part_after_a_void_leaves_the_rest_in_suspense_with_its_alerts(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await voided(world, wallet)
    await world.settle(
        world.fact(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="R1"),
        world.fact(pay_job(intent), "RETURNED", basis="REFERENCE_STATUS", amount_minor=70, currency="THB"),
    )
    assert await clearing_and_suspense(world) == (30, -30)
    rows = await world.admin.fetch("SELECT kind FROM fleet.alerts WHERE closed_at IS NULL")
    assert {row["kind"] for row in rows} == {"success_after_void", "returned_after_void"}
    await world.prove()


async def test_what_suspense_stays_short_of_is_charged_to_who_was_served_by_two_keys(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await voided(world, wallet)
    await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="R1")
    for operations in ({"MANUAL_ADJUSTMENT"}, {"SUSPENSE"}):
        with pytest.raises(Refusal) as caught:
            await adjust(world, wallet, 100, "TO_SUSPENSE", replace(world.caller, operations=frozenset(operations)))
        assert caught.value.code == "operation_not_permitted"
    one = replace(world.caller, operations=frozenset({"MANUAL_ADJUSTMENT", "SUSPENSE", "REVIEW"}))
    waits = await adjust(world, wallet, 100, "TO_SUSPENSE", one)
    assert (waits.state, await world.money(wallet)) == ("REVIEW", (1000, 100))
    approval = ReviewRequest(decision=ReviewDecision.APPROVE)
    second = replace(one, key_id="second")
    assert (await decide_review(world.core.ports, second, waits.id, approval)).state == "SETTLED"
    assert (await world.money(wallet), await clearing_and_suspense(world)) == ((900, 0), (100, 0))
    await world.prove()


@pytest.mark.parametrize("together", [True, False])
async def test_where_returns_are_told_in_all_each_further_part_is_booked(world: World, together: bool) -> None:
    await world.register(inquiry=True, returns_in_all=True)
    wallet = await world.wallet(1000)
    intent = await paid(world, wallet)
    told = [
        world.fact(pay_job(intent), "RETURNED", basis="REFERENCE_STATUS", amount_minor=each, provider_tx_id="R1")
        for each in (40, 90, 40, 90)
    ]
    if together:
        await world.settle(*told)
    else:
        for each in told:
            await world.settle(each)
    assert sum(refund.amount_minor for refund in await refunds(world, intent)) == 90
    assert await world.money(wallet) == (990, 0)
    # Less than before, and more than was paid.
    await returned(world, intent, amount_minor=60)
    assert await world.money(wallet) == (990, 0)
    assert {kind for _, kind in await world.alerts()} == {"payment_returned"}
    await returned(world, intent, amount_minor=101)
    assert await world.money(wallet) == (990, 0)
    assert ("page", "amount_differs") in await world.alerts()
    await world.prove()


async def test_a_second_return_of_another_amount_is_for_a_person_to_look_at(world: World) -> None:
    await world.register(inquiry=True)
    wallet = await world.wallet(1000)
    intent = await paid(world, wallet)
    await returned(world, intent, amount_minor=40)
    await returned(world, intent, amount_minor=60)
    assert len(await refunds(world, intent)) == 1
    assert await world.money(wallet) == (940, 0)
    assert ("page", "same_fact_other_money") in await world.alerts()
    await world.prove()
