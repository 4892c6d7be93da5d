"""Intents that wait for a decision, on a real database with the real ledger."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core.services.access.keys import Caller
from core.services.payments.cancel import cancel
from core.services.payments.confirm import confirm
from core.services.payments.read_intents import IntentFilter, intent_view
from core.services.payments.reviews import decide_review, expire_reviews
from core.services.problems import Refusal
from core.services.terms.set_limits import set_limit
from schemas.api import ConfirmRequest, IntentRequest, ReviewRequest
from schemas.events import IntentState
from schemas.limits import LimitRequest
from tests.integration.permits.conftest import World, lookup_job, pay_job
from tests.integration.permits.test_fees import put
from tests.integration.permits.test_lookups_and_deadlines import found


def reviewer(world: World, **changed: Any) -> Caller:
    """Another key of the tenant, which may decide."""
    return replace(world.caller, **{"key_id": "reviewer", "operations": frozenset({"REVIEW"})} | changed)


async def decide(world: World, intent: UUID, decision: str, caller: Caller | None = None, reason: str = "seen") -> Any:
    """Decide about an intent; return it."""
    request = ReviewRequest.model_validate({"decision": decision, "reason": reason})
    return await decide_review(world.core.ports, caller or reviewer(world), intent, request)


async def refused(world: World, intent: UUID, decision: str, caller: Caller | None = None) -> str:
    """Decide what is refused; return the code."""
    with pytest.raises(Refusal) as caught:
        await decide(world, intent, decision, caller)
    return caught.value.code


async def transfer(world: World, wallet: UUID, other: UUID, amount_minor: int = 100) -> UUID:
    """Ask for a transfer that waits for a decision."""
    request = IntentRequest.model_validate({
        "operation": "INTERNAL_P2P", "wallet_id": wallet, "counterparty_wallet_id": other,
        "amount_minor": amount_minor, "currency": "THB", "requires_monitoring": True,
    })  # fmt: skip
    return (await world.core.accept.accept(world.caller, f"watched-{next(world.numbers)}", request)).intent.id


async def events(world: World, intent: UUID) -> list[tuple[str, str, str]]:
    """Return type, state and actor of every event."""
    text = "SELECT type, state, actor FROM fleet.intent_events WHERE intent_id = $1 ORDER BY seq"
    return [tuple(row) for row in await world.admin.fetch(text, intent)]


async def expire(world: World) -> int:
    """Let the resolver look for reviews that came too late."""
    return await expire_reviews(world.core.worker_ports, world.uow, 10)


async def test_an_approved_payout_is_dispatched_and_settles_and_none_before(world: World) -> None:
    await world.register()
    await put(world)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet, requires_monitoring=True)
    assert (await world.state(intent))[0] == "REVIEW"
    assert await world.money(wallet) == (1000, 103)
    assert await world.job(pay_job(intent)) == {}
    listed, _ = await world.core.read.page(world.caller, IntentFilter(state=IntentState.REVIEW), None, 10)
    assert [each.id for each in listed] == [intent]
    assert listed[0].deadline == listed[0].review_until
    approved = await decide(world, intent, "APPROVE")
    assert (approved.state, approved.review_until) == ("AUTHORIZED", None)
    assert approved.deadline < listed[0].deadline
    assert (await decide(world, intent, "APPROVE")).state == "AUTHORIZED"
    assert await refused(world, intent, "REJECT") == "wrong_state"
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", amount_minor=100, currency="THB", provider_tx_id="T1")
    assert await world.money(wallet) == (897, 0)
    assert await events(world, intent) == [
        ("accepted", "REVIEW", "key:key"),
        ("review_approved", "AUTHORIZED", "key:reviewer"),
        ("settled", "SETTLED", "test"),
    ]  # fmt: skip
    assert (await world.core.read.page(world.caller, IntentFilter(state=IntentState.REVIEW), None, 10))[0] == []
    await world.prove()


async def test_a_transfer_is_held_until_it_is_approved(world: World) -> None:
    wallet, other = await world.wallet(1000), await world.wallet(1)
    intent = await transfer(world, wallet, other)
    assert (await world.money(wallet), await world.money(other)) == ((1000, 100), (1, 0))
    assert (await decide(world, intent, "APPROVE")).state == "SETTLED"
    assert (await world.money(wallet), await world.money(other)) == ((900, 0), (101, 0))
    await world.prove()


async def test_what_is_rejected_gives_money_and_limits_back_and_says_why(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    ports = world.core.ports
    async with ports.unit_of_work(world.caller.context()) as uow:
        body = {"name": "daily", "kind": "DAY", "currency": "THB", "max_amount_minor": 100}
        await set_limit(uow, ports.limit_store, world.caller.tenant_id, "test", LimitRequest.model_validate(body))
    ports.limits.forget(world.caller.tenant_id)
    intent = await world.pay(wallet, requires_monitoring=True)
    assert await world.state(await world.pay(wallet, 1)) == ("FAILED", "limit_exceeded")
    rejected = intent_view(await decide(world, intent, "REJECT", reason="a stolen phone"))
    assert rejected["state"] == "FAILED"
    assert rejected["failure"] == {"code": "review_rejected", "message": "a stolen phone", "limit": None}
    data = await world.admin.fetchval(
        "SELECT data->>'reason' FROM fleet.intent_events WHERE intent_id = $1 AND type = 'review_rejected'", intent
    )
    assert data == "a stolen phone"
    assert await world.money(wallet) == (1000, 0)
    assert await refused(world, intent, "APPROVE") == "wrong_state"
    assert (await world.state(await world.pay(wallet, 100)))[0] == "AUTHORIZED"
    async with world.uow() as uow:
        assert await ports.limit_store.verify(uow) == []
    await world.prove()


async def test_who_asked_may_not_decide_nor_who_is_not_let_nor_another_tenant(world: World) -> None:
    wallet, other = await world.wallet(1000), await world.wallet(1)
    intent = await transfer(world, wallet, other)
    own = replace(world.caller, operations=frozenset({"*", "REVIEW"}))
    assert await refused(world, intent, "APPROVE", own) == "review_own_intent"
    assert (
        await refused(world, intent, "APPROVE", reviewer(world, operations=frozenset({"*"})))
        == "operation_not_permitted"
    )
    assert await refused(world, intent, "APPROVE", reviewer(world, tenant_id=UUID(int=77))) == "not_found"
    assert await refused(world, intent, "APPROVE", reviewer(world, accounts=frozenset({UUID(int=7)}))) == "not_found"
    assert await world.money(wallet) == (1000, 100)


async def test_a_decision_and_a_cancel_at_once_have_one_effect(world: World) -> None:
    wallet, other = await world.wallet(1000), await world.wallet(1)
    intents = [await transfer(world, wallet, other, 10) for _ in range(6)]
    answers = await asyncio.gather(
        *(decide(world, each, verb) for each in intents for verb in ("APPROVE", "REJECT")),
        *(cancel(world.core.ports, world.caller, each) for each in intents),
        return_exceptions=True,
    )
    assert {type(each) for each in answers if isinstance(each, BaseException)} <= {Refusal}
    states = [(await world.state(each))[0] for each in intents]
    assert set(states) <= {"SETTLED", "FAILED", "CANCELLED"}
    paid = 10 * states.count("SETTLED")
    assert (await world.money(wallet), await world.money(other)) == ((1000 - paid, 0), (1 + paid, 0))
    await world.prove()


async def test_a_cancel_works_while_it_waits(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet, requires_monitoring=True)
    assert (await cancel(world.core.ports, world.caller, intent)).state == "CANCELLED"
    assert await world.money(wallet) == (1000, 0)
    assert await refused(world, intent, "APPROVE") == "wrong_state"
    await world.prove()


async def test_what_nobody_decides_in_time_expires_and_is_given_back(world: World) -> None:
    wallet, other = await world.wallet(1000), await world.wallet(1)
    intent, later = await transfer(world, wallet, other), await transfer(world, wallet, other, 7)
    assert await expire(world) == 0
    await world.admin.execute("UPDATE fleet.intents SET review_until = now() WHERE id = $1", intent)
    assert await refused(world, intent, "APPROVE") == "wrong_state"
    assert await expire(world) == 1
    assert await world.state(intent) == ("EXPIRED", "review_expired")
    assert (await world.state(later))[0] == "REVIEW"
    assert await world.money(wallet) == (1000, 7)
    await world.prove()


async def test_a_payee_is_confirmed_before_the_payment_waits(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet, requires_monitoring=True)
    assert await world.money(wallet) == (1000, 0)
    await world.settle(found(world, intent, fee_minor=5))
    asked = ConfirmRequest(amount_minor=100, fee_minor=5)
    assert (await confirm(world.core.ports, world.caller, intent, asked)).state == "REVIEW"
    assert (await confirm(world.core.ports, world.caller, intent, asked)).state == "REVIEW"
    assert await world.money(wallet) == (1000, 105)
    assert (await world.job(lookup_job(intent)))["state"] == "CLOSED"
    assert (await decide(world, intent, "APPROVE")).state == "AUTHORIZED"
    await world.sent(intent)
    await world.prove()


async def test_after_a_restore_nothing_is_decided_before_the_lost_time_is_cleared(world: World) -> None:
    await world.register()
    wallet, other = await world.wallet(1000), await world.wallet(1)
    intent = await world.pay(wallet, requires_monitoring=True)
    inside = await transfer(world, wallet, other)
    await world.admin.execute("INSERT INTO fleet.ledger_epochs (epoch, reason) VALUES (2, 'restored')")
    await world.admin.execute(
        "UPDATE fleet.intents SET review_until = now() - interval '1 second' WHERE id = $1", intent
    )
    # It may have been approved, sent and paid in the time that was lost: nothing may release its money.
    assert await expire(world) == 0
    await world.admin.execute("UPDATE fleet.intents SET review_until = now() + interval '1 hour' WHERE id = $1", intent)
    for decision in ("APPROVE", "REJECT"):
        assert await refused(world, intent, decision) == "already_sent"
    with pytest.raises(Refusal) as caught:
        await cancel(world.core.ports, world.caller, intent)
    assert caught.value.code == "already_sent"
    # No provider knows of a transfer between wallets.
    assert (await decide(world, inside, "APPROVE")).state == "SETTLED"
    assert await world.money(wallet) == (900, 100)
    await world.admin.execute("UPDATE fleet.ledger_epochs SET cleared_at = now()")
    assert (await decide(world, intent, "REJECT")).state == "FAILED"
    assert await world.money(wallet) == (900, 0)
    await world.prove()


async def test_a_key_acts_for_a_user_on_that_users_wallets_alone_and_it_is_told(world: World) -> None:
    wallet, other = await world.wallet(1000), await world.wallet(1)

    def asked(user: str) -> IntentRequest:
        return IntentRequest.model_validate({
            "operation": "INTERNAL_P2P", "wallet_id": wallet, "counterparty_wallet_id": other, "amount_minor": 5,
            "currency": "THB", "on_behalf_of": {"user": user, "agent": "staff-17"},
        })  # fmt: skip

    accepted = await world.core.accept.accept(world.caller, "acting", asked("anna"))
    told = {"user": "anna", "agent": "staff-17"}
    assert intent_view(accepted.intent)["on_behalf_of"] == told
    assert intent_view(await world.core.read.get(world.caller, accepted.intent.id))["on_behalf_of"] == told
    told_by_event = await world.admin.fetchval(
        "SELECT data->'on_behalf_of'->>'agent' FROM fleet.intent_events WHERE intent_id = $1", accepted.intent.id
    )
    assert told_by_event == "staff-17"
    with pytest.raises(Refusal) as caught:
        await world.core.accept.accept(world.caller, "acting-2", asked("ben"))
    assert caught.value.code == "on_behalf_of_differs"
    assert await world.money(wallet) == (995, 0)
