"""Decisions about money in suspense, on a real database with the real ledger: each item is taken once."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.domain.ids import derive_id
from core.services.access.keys import ADJUSTMENT_ALONE_SCOPE, SUSPENSE_SCOPE, Caller
from core.services.money_in.suspense import (
    assign_item,
    list_items,
    list_tolerances,
    return_item,
    set_tolerance,
    show_item,
)
from core.services.on_call.alerts import AlertFilter, close_alert, list_alerts
from core.services.problems import Refusal
from schemas.alerts import AlertState
from schemas.api import IntentRequest
from schemas.operations import JobKind
from schemas.suspense import AssignRequest, ReturnRequest, SuspenseDetail, SuspenseState, ToleranceRequest
from tests.integration.permits.conftest import World
from tests.integration.permits.test_collections import opened, paid, reference, shown, suspense, told
from tests.support.waiting import PATIENCE_S

WHY = "the payer called"


def decider(world: World) -> Caller:
    """Return the caller with a key that may decide about suspense."""
    return replace(world.caller, operations=world.caller.operations | {SUSPENSE_SCOPE})


def by_two(caller: Caller) -> Caller:
    """Return a caller that needs a second key to move money by hand."""
    return replace(caller, operations=caller.operations - {ADJUSTMENT_ALONE_SCOPE})


async def parked(world: World, amount_minor: int = 700) -> UUID:
    """Let a payment with a reference that nobody knows come in; return its item."""
    fact = {"transaction_id": f"T{uuid4().hex[:12]}", "reference": "NOBODYS", "amount_minor": amount_minor}
    assert await told(world, fact) == ["SUSPENDED"]
    return (await open_items(world))[-1]


async def open_items(world: World, state: SuspenseState = SuspenseState.OPEN) -> list[UUID]:
    page = await list_items(world.core.ports, decider(world), state=state, intent_id=None, cursor=None, limit=10)
    return [item.id for item in page.items]


async def assign(world: World, item: UUID, wallet: UUID) -> SuspenseDetail:
    request = AssignRequest(wallet_id=wallet, reason=WHY)
    return await assign_item(world.core.ports, decider(world), item, request)


async def give_back(world: World, item: UUID) -> SuspenseDetail:
    return await return_item(world.core.ports, decider(world), item, ReturnRequest(reason=WHY))


async def answer_refund(world: World, item: SuspenseDetail, verdict: str, **more: Any) -> None:
    """Give the refund its permit and let the provider answer."""
    assert item.taken_by is not None
    job = derive_id(item.taken_by, "job", JobKind.REFUND)
    (permit,) = await world.ask([job])
    assert (permit.answer, permit.kind) == ("GRANTED", "refund")
    assert (permit.instruction.payee.type, permit.instruction.payee.value) == ("transaction", item.transaction_id)
    await world.tell(job, verdict, kind="refund", **more)


async def test_money_without_a_reference_is_given_to_its_owner_once(world: World) -> None:
    wallet = await opened(world)
    item = await parked(world)
    assert await suspense(world) == 700
    done = await assign(world, item, wallet)
    assert (done.state, [each.reason for each in done.decisions]) == ("ASSIGNED", [WHY])
    assert (await world.money(wallet), await suspense(world)) == ((701, 0), 0)
    entry = (await world.history(wallet))[0]
    assert (entry.operation, entry.amount_minor, entry.comment) == ("DEPOSIT", 700, WHY)
    for again in (assign(world, item, wallet), give_back(world, item)):
        with pytest.raises(Refusal) as refused:
            await again
        assert refused.value.code == "suspense_taken"
    assert await open_items(world) == []
    told_by = await world.admin.fetch("SELECT action FROM fleet.audit_entries WHERE subject = $1", f"suspense:{item}")
    assert [row["action"] for row in told_by] == ["suspense_assign"]
    await world.prove()


async def test_the_ticket_of_an_item_stands_until_somebody_decides_about_it(world: World) -> None:
    wallet = await opened(world)
    other, item = await parked(world, 500), await parked(world)
    ports, anna = world.core.worker_ports, replace(world.caller, operations=frozenset({"DEAD_LETTERS"}))
    alerts = (await list_alerts(ports, anna, AlertFilter(), cursor=None, limit=5)).items
    (ticket,) = [each for each in alerts if each.intent_id == item]
    assert (ticket.kind, ticket.severity) == ("suspense_unknown_reference", "ticket")
    with pytest.raises(Refusal, match="still in suspense") as refused:
        await close_alert(ports, anna, ticket.id, "enough of it")
    assert refused.value.code == "alert_stands"
    await assign(world, item, wallet)
    assert (await close_alert(ports, anna, ticket.id, "it is given to its owner")).state is AlertState.CLOSED
    standing = (await list_alerts(ports, anna, AlertFilter(), cursor=None, limit=5)).items
    assert [(each.intent_id, bool(each.stands)) for each in standing] == [(other, True)]


async def test_money_is_paid_back_and_stays_held_until_the_provider_has_done_so(world: World) -> None:
    await opened(world)
    item = await parked(world)
    waiting = await give_back(world, item)
    assert (waiting.state, await suspense(world)) == ("RETURNING", 700)
    await answer_refund(world, waiting, "SUCCEEDED", amount_minor=700, currency="THB", provider_tx_id="R1")
    done = await show_item(world.core.ports, decider(world), item)
    assert (done.state, await suspense(world)) == ("RETURNED", 0)
    await world.prove()


async def test_a_return_that_the_provider_refuses_opens_the_item_again(world: World) -> None:
    wallet = await opened(world)
    item = await parked(world)
    await answer_refund(world, await give_back(world, item), "DECLINED", reason="payment_not_found")
    assert await open_items(world) == [item]
    await answer_refund(world, await give_back(world, item), "DECLINED", reason="payment_not_found")
    await assign(world, item, wallet)
    assert (await world.money(wallet), await suspense(world)) == ((701, 0), 0)
    decided = await show_item(world.core.ports, decider(world), item)
    assert [each.action for each in decided.decisions] == ["RETURN", "RETURN", "ASSIGN"]
    await world.prove()


@pytest.mark.parametrize(
    ("late_minor", "state", "left_minor"), [(700, "RETURNED", 0), (699, "RETURNING", 700)], ids=["same", "other_amount"]
)
async def test_a_return_that_proves_paid_after_its_refusal_is_not_open_to_be_paid_again(
    world: World, late_minor: int, state: str, left_minor: int
) -> None:
    wallet = await opened(world)
    item = await parked(world)
    waiting = await give_back(world, item)
    await answer_refund(world, waiting, "DECLINED", reason="payment_not_found")
    assert await open_items(world) == [item]
    assert waiting.taken_by is not None
    job = derive_id(waiting.taken_by, "job", JobKind.REFUND)
    # Without a name for its transaction too, the money has left.
    await world.tell(job, "SUCCEEDED", kind="refund", amount_minor=late_minor, currency="THB")
    assert (await world.state(waiting.taken_by))[0] == "FAILED"
    assert (await open_items(world), await suspense(world)) == ([], left_minor)
    for again in (assign(world, item, wallet), give_back(world, item)):
        with pytest.raises(Refusal, match=f"{state} already"):
            await again
    assert (await world.money(wallet), await suspense(world)) == ((1, 0), left_minor)
    await world.prove()


async def test_a_return_that_comes_back_rests_in_suspense_again_until_a_wallet_gets_it(world: World) -> None:
    wallet = await opened(world)
    item = await parked(world)
    waiting = await give_back(world, item)
    money: dict[str, Any] = {"amount_minor": 700, "currency": "THB", "provider_tx_id": "R1"}
    await answer_refund(world, waiting, "SUCCEEDED", **money)
    assert waiting.taken_by is not None
    job = derive_id(waiting.taken_by, "job", JobKind.REFUND)
    for _ in range(2):
        await world.tell(job, "RETURNED", kind="refund", basis="REFERENCE_STATUS", **money)
    # Nobody's wallet gave it: wherever the tenant wants returns, this one has none to go to.
    assert (await suspense(world), await world.money(wallet)) == (700, (1, 0))
    assert ("page", "return_in_suspense") in await world.alerts()
    query = "SELECT id FROM fleet.intents WHERE original_intent_id = $1 AND direction = 'SUSPENSE'"
    back = await world.admin.fetchval(query, waiting.taken_by)
    body = {"operation": "REFUND", "original_intent_id": back, "wallet_id": wallet, "amount_minor": 700}
    request = IntentRequest.model_validate(body | {"currency": "THB"})
    assert (await world.core.accept.accept(decider(world), "release", request)).intent.state == "SETTLED"
    with pytest.raises(Refusal) as refused:
        await world.core.accept.accept(decider(world), "release-again", request)
    assert refused.value.code == "refund_exceeds_original"
    assert (await suspense(world), await world.money(wallet)) == (0, (701, 0))
    await world.prove()


async def test_who_waits_for_the_taker_of_an_item_keeps_no_provider_account_from_others(world: World) -> None:
    wallet = await opened(world)
    item = await assign(world, await parked(world), wallet)
    back = {"transaction_id": item.transaction_id, "amount_minor": 700, "kind": "RETURN"}
    async with world.uow() as other:
        lock = "SELECT FROM fleet.intents WHERE id = $1 FOR NO KEY UPDATE"
        await other.connection.execute(lock, item.taken_by)
        telling = asyncio.ensure_future(told(world, back))
        async with asyncio.timeout(PATIENCE_S):
            while not await world.admin.fetchval("SELECT count(*) FROM pg_sleep(0.02), pg_locks WHERE NOT granted"):
                pass
        free = "SELECT pg_try_advisory_xact_lock(hashtextextended('fleet.payments:' || $1 || ':main', 0))"
        assert await other.connection.fetchval(free, item.rail)
    assert await telling == ["REVERSED"]
    await world.prove()


async def test_a_line_about_a_payment_that_another_is_at_work_on_does_not_wait_for_it(world: World) -> None:
    await opened(world)
    intent = await world.pay(await world.wallet(500))
    job = derive_id(intent, "job", JobKind.PAY)
    await world.ask([job])
    await world.tell(job, "UNKNOWN")
    line = {"kind": "OUT", "source": "STATEMENT", "reference": str((await world.job(job))["reference"])}
    async with world.uow() as other:
        await other.connection.execute("SELECT FROM fleet.jobs WHERE id = $1 FOR NO KEY UPDATE", job)
        async with asyncio.timeout(PATIENCE_S):
            assert await told(world, line) == ["NOTED"]


async def test_a_refund_and_a_late_credit_at_once_have_one_effect(world: World) -> None:
    wallet = await opened(world)
    for _ in range(3):
        item = await parked(world)
        before = (await world.money(wallet))[0]
        answers = await asyncio.gather(
            assign(world, item, wallet), give_back(world, item), assign(world, item, wallet), return_exceptions=True
        )
        refused = [each for each in answers if isinstance(each, Refusal)]
        assert [each.code for each in refused] == ["suspense_taken"] * 2
        (done,) = [each for each in answers if isinstance(each, SuspenseDetail)]
        assert (await world.money(wallet))[0] == before + (700 if done.state == "ASSIGNED" else 0)
    await world.prove()


async def test_what_the_provider_takes_back_itself_leaves_suspense_with_it(world: World) -> None:
    wallet = await opened(world)
    item = await parked(world)
    shown_item = await show_item(world.core.ports, decider(world), item)
    back = {"transaction_id": shown_item.transaction_id, "amount_minor": 700, "kind": "RETURN"}
    assert await told(world, back) == ["REVERSED"]
    assert (await open_items(world), await suspense(world)) == ([], 0)
    with pytest.raises(Refusal, match="RETURNED already"):
        await assign(world, item, wallet)
    await world.prove()


async def test_only_a_key_that_names_it_decides_and_no_tenant_sees_anothers_items(world: World) -> None:
    wallet = await opened(world)
    item = await parked(world)
    with pytest.raises(Refusal) as refused:
        await assign_item(world.core.ports, world.caller, item, AssignRequest(wallet_id=wallet, reason=WHY))
    assert refused.value.code == "operation_not_permitted"
    stranger = replace(decider(world), tenant_id=uuid4())
    with pytest.raises(Refusal) as unseen:
        await show_item(world.core.ports, stranger, item)
    assert unseen.value.code == "not_found"
    with pytest.raises(Refusal) as rejected:
        await assign(world, item, uuid4())
    assert rejected.value.code == "wallet_not_found"
    assert await open_items(world) == [item]


async def test_a_different_amount_waits_under_its_collection_for_a_decision(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    await paid(world, intent, 1_900)
    (item,) = await open_items(world)
    assert (await show_item(world.core.ports, decider(world), item)).intent_id == intent
    await assign(world, item, wallet)
    assert ((await world.money(wallet))[0], (await world.state(intent))[0]) == (1_901, "FAILED")
    # Told again by another source, it is the same payment, decided about.
    again = {"reference": await reference(world, intent), "source": "REGISTER", "amount_minor": 1_900}
    assert await told(world, again) == ["KNOWN"]
    await world.prove()


async def test_tolerances_are_set_by_rule(world: World) -> None:
    await opened(world)
    body = {"operation": "TOPUP", "currency": "THB", "below_minor": 100, "above_minor": 0}
    request = ToleranceRequest.model_validate(body)
    await set_tolerance(world.core.ports, decider(world), request)
    (view,) = await list_tolerances(world.core.ports, decider(world))
    assert (view.below_minor, view.above_minor) == (100, 0)
    wrong = request.model_copy(update={"operation": "PAYOUT"})
    with pytest.raises(Refusal, match="brings no money in"):
        await set_tolerance(world.core.ports, decider(world), wrong)


async def test_what_comes_to_an_account_of_several_tenants_is_seen_by_the_installation_alone(world: World) -> None:
    wallet = await opened(world)
    other = uuid4()
    await world.admin.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'other')", other)
    await world.admin.execute(
        "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
        " VALUES ($1, 'TOPUP', 'THB', 'testrail', 'p', 'main')",
        other,
    )
    assert await told(world, {"reference": "NOBODYS"}) == ["SUSPENDED"]
    tenants = [decider(world), replace(decider(world), tenant_id=other)]
    installation = replace(decider(world), tenant_id=UUID(int=0))
    ports = world.core.ports
    pages = [
        (await list_items(ports, caller, state=None, intent_id=None, cursor=None, limit=10)).items
        for caller in (*tenants, installation)
    ]
    assert [len(page) for page in pages] == [0, 0, 1]
    item = pages[2][0].id
    for caller in tenants:
        for attempt in (
            show_item(ports, caller, item),
            assign_item(ports, caller, item, AssignRequest(wallet_id=wallet, reason=WHY)),
            return_item(ports, caller, item, ReturnRequest(reason=WHY)),
        ):
            with pytest.raises(Refusal) as refused:
                await attempt
            assert refused.value.code == "not_found"
    # No wallet of a tenant's can be given it from here; the payer gets it back.
    with pytest.raises(Refusal, match="no such wallet"):
        await assign_item(ports, installation, item, AssignRequest(wallet_id=wallet, reason=WHY))
    assert (await return_item(ports, installation, item, ReturnRequest(reason=WHY))).state == "RETURNING"
    await world.prove()
