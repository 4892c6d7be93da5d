"""Money in suspense above what one key may decide alone: held until a second key says yes, open again otherwise."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core.domain.ids import derive_id
from core.domain.operations import AccountCode, system_account
from core.services.access.keys import Caller
from core.services.money_in.suspense import assign_item, return_item, show_item
from core.services.payments.cancel import cancel
from core.services.problems import Refusal
from schemas.api import IntentRequest
from schemas.operations import JobKind
from schemas.suspense import AssignRequest, ReturnRequest, SuspenseDetail, SuspenseState
from tests.integration.permits.conftest import World
from tests.integration.permits.test_collections import opened, suspense, told
from tests.integration.permits.test_reviews import decide, events, expire, refused, reviewer
from tests.integration.permits.test_suspense import WHY, answer_refund, by_two, decider, open_items, parked
from tests.integration.permits.test_suspense import assign as assign_alone
from tests.integration.permits.test_suspense import give_back as give_back_alone


def alone(world: World) -> Caller:
    """Return a key that decides about suspense, and needs a second one for it."""
    return replace(by_two(decider(world)), key_id="desk")


async def assign(world: World, item: UUID, wallet: UUID) -> SuspenseDetail:
    request = AssignRequest(wallet_id=wallet, reason=WHY)
    return await assign_item(world.core.ports, alone(world), item, request)


async def give_back(world: World, item: UUID) -> SuspenseDetail:
    return await return_item(world.core.ports, alone(world), item, ReturnRequest(reason=WHY))


async def look(world: World, item: UUID) -> SuspenseDetail:
    return await show_item(world.core.ports, decider(world), item)


def taker(item: SuspenseDetail) -> UUID:
    assert (item.state, item.taken_by is not None) == ("IN_REVIEW", True)
    assert item.taken_by is not None
    return item.taken_by


async def lets_alone(world: World, up_to_minor: int) -> None:
    """Say how much one key decides about."""
    text = "UPDATE fleet.tenants SET adjusts_alone_minor = $2 WHERE tenant_id = $1"
    await world.admin.execute(text, world.caller.tenant_id, up_to_minor)


async def test_money_is_given_when_a_second_key_approves_and_not_before(world: World) -> None:
    wallet = await opened(world)
    item = await parked(world)
    asked = await assign(world, item, wallet)
    intent = taker(asked)
    assert (await world.money(wallet), await suspense(world)) == ((1, 0), 700)
    assert (await open_items(world), await open_items(world, SuspenseState.IN_REVIEW)) == ([], [item])
    for again in (assign_alone(world, item, wallet), give_back_alone(world, item)):
        with pytest.raises(Refusal, match="IN_REVIEW already"):
            await again
    own = replace(alone(world), operations=alone(world).operations | {"REVIEW"})
    assert await refused(world, intent, "APPROVE", own) == "review_own_intent"
    await decide(world, intent, "APPROVE")
    done = await look(world, item)
    assert (done.state, await world.money(wallet), await suspense(world)) == ("ASSIGNED", (701, 0), 0)
    (decision,) = done.decisions
    assert (decision.actor, decision.review, decision.reviewed_by) == ("key:desk", "APPROVED", "key:reviewer")
    assert await events(world, intent) == [
        ("accepted", "REVIEW", "key:desk"),
        ("review_approved", "SETTLED", "key:reviewer"),
    ]
    text = "SELECT action FROM fleet.audit_entries WHERE subject = ANY ($1) ORDER BY seq"
    acts = await world.admin.fetch(text, [f"suspense:{item}", f"intent:{intent}"])
    assert [row["action"] for row in acts] == ["suspense_assign", "review_approved"]
    await world.prove()


async def test_money_is_paid_back_by_a_job_that_the_second_key_makes(world: World) -> None:
    await opened(world)
    item = await parked(world)
    intent = taker(await give_back(world, item))
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.jobs WHERE intent_id = $1", intent) == 0
    await decide(world, intent, "APPROVE")
    waiting = await look(world, item)
    assert waiting.state == "RETURNING"
    await answer_refund(world, waiting, "SUCCEEDED", amount_minor=700, currency="THB", provider_tx_id="R1")
    assert ((await look(world, item)).state, await suspense(world)) == ("RETURNED", 0)
    await world.prove()


@pytest.mark.parametrize("end", ["rejected", "expired", "cancelled"])
async def test_what_no_second_key_wants_rests_on_and_is_open_again(world: World, end: str) -> None:
    wallet = await opened(world)
    item = await parked(world)
    for ask in (assign(world, item, wallet), give_back(world, item)):
        intent = taker(await ask)
        if end == "rejected":
            await decide(world, intent, "REJECT", reason="not theirs")
            assert (await look(world, item)).decisions[-1].review == "REJECTED"
        elif end == "expired":
            await world.admin.execute("UPDATE fleet.intents SET review_until = now() WHERE id = $1", intent)
            assert await expire(world) == 1
        else:
            await cancel(world.core.ports, alone(world), intent)
        assert (await look(world, item)).state == "OPEN"
        assert (await world.money(wallet), await suspense(world)) == ((1, 0), 700)
    intent = taker(await assign(world, item, wallet))
    await decide(world, intent, "APPROVE")
    assert (await look(world, item)).state == "ASSIGNED"
    await world.prove()


async def test_one_key_decides_alone_up_to_what_the_tenant_lets_it(world: World) -> None:
    wallet = await opened(world)
    await lets_alone(world, 700)
    assert (await assign(world, await parked(world, 700), wallet)).state == "ASSIGNED"
    assert (await give_back(world, await parked(world, 700))).state == "RETURNING"
    assert (await assign(world, await parked(world, 701), wallet)).state == "IN_REVIEW"
    assert (await give_back(world, await parked(world, 701))).state == "IN_REVIEW"
    await world.prove()


async def test_an_approval_and_a_rejection_at_once_have_one_effect(world: World) -> None:
    wallet = await opened(world)
    item = await parked(world)
    intent = taker(await assign(world, item, wallet))
    answers = await asyncio.gather(
        decide(world, intent, "APPROVE"),
        decide(world, intent, "REJECT", reviewer(world, key_id="other")),
        return_exceptions=True,
    )
    (lost,) = [each for each in answers if isinstance(each, Refusal)]
    assert lost.code == "wrong_state"
    given = (await look(world, item)).state == "ASSIGNED"
    assert (await world.money(wallet))[0] == (701 if given else 1)
    await world.prove()


async def at_provider(world: World) -> int:
    """Return what the provider has of ours, by our books."""
    clearing = system_account(world.caller.tenant_id, "THB", AccountCode.CLEARING, "p:main:sandbox").id
    async with world.uow() as uow:
        found = await world.core.worker_ports.ledger.lookup_accounts(uow, [clearing])
    return -found[clearing].posted_minor


@pytest.mark.parametrize("part", [700, 200], ids=["all", "a part"])
@pytest.mark.parametrize("asked_for", ["ASSIGN", "RETURN"])
async def test_what_the_provider_takes_back_ends_the_review_that_a_person_started(
    world: World, asked_for: str, part: int
) -> None:
    wallet = await opened(world)
    item = await parked(world)
    asked = await (assign(world, item, wallet) if asked_for == "ASSIGN" else give_back(world, item))
    back = {"transaction_id": asked.transaction_id, "amount_minor": part, "kind": "RETURN"}
    assert (await told(world, back), await told(world, back)) == (["REVERSED"], ["KNOWN"])
    assert await world.state(taker(asked)) == ("FAILED", "returned_in_review")
    assert await refused(world, taker(asked), "APPROVE") == "wrong_state"
    assert (await world.money(wallet), await suspense(world), await at_provider(world)) == (
        (1, 0),
        700 - part,
        700 - part,
    )
    await world.prove()
    if part == 700:
        assert (await look(world, item)).state == "RETURNED"
        return
    assert ((found := await look(world, item)).state, found.amount_minor) == ("OPEN", 500)
    await decide(world, taker(await assign(world, item, wallet)), "APPROVE")
    assert (await world.money(wallet), await suspense(world)) == ((501, 0), 0)
    await world.prove()


@pytest.mark.parametrize("asked_for", ["ASSIGN", "RETURN"])
async def test_what_the_provider_took_back_around_a_restore_no_second_key_gives_away(
    world: World, asked_for: str
) -> None:
    wallet = await opened(world)
    item = await parked(world)
    asked = await (assign(world, item, wallet) if asked_for == "ASSIGN" else give_back(world, item))
    back = {"transaction_id": asked.transaction_id, "amount_minor": 700, "kind": "RETURN"}
    # The approval of a second key may be what the restore lost: the review stands until that is known.
    await world.admin.execute("INSERT INTO fleet.ledger_epochs (epoch, reason) VALUES (2, 'restored')")
    assert (await told(world, back), await at_provider(world)) == (["NOTED"], 700)
    await world.admin.execute("UPDATE fleet.ledger_epochs SET cleared_at = now()")
    assert await refused(world, taker(asked), "APPROVE") == "suspense_taken_back"
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.jobs WHERE intent_id = $1", taker(asked)) == 0
    await decide(world, taker(asked), "REJECT")
    # Open again, and as little to be given away, by one key or by two, until the return is booked.
    for again in (assign_alone(world, item, wallet), give_back_alone(world, item), assign(world, item, wallet)):
        with pytest.raises(Refusal) as known:
            await again
        assert known.value.code == "suspense_taken_back"
    assert await told(world, back) == ["REVERSED"]
    assert (await world.money(wallet), await suspense(world), await at_provider(world)) == ((1, 0), 0, 0)
    await world.prove()


async def test_what_is_left_after_a_part_was_taken_back_is_given_away_by_two_keys(world: World) -> None:
    wallet = await opened(world)
    item = await parked(world)
    transaction = (await look(world, item)).transaction_id
    assert await told(world, {"transaction_id": transaction, "amount_minor": 200, "kind": "RETURN"}) == ["REVERSED"]
    await decide(world, taker(await assign(world, item, wallet)), "APPROVE")
    assert (await world.money(wallet), await suspense(world), await at_provider(world)) == ((501, 0), 0, 500)
    await world.prove()


async def came_back(world: World) -> UUID:
    """Let money that was paid back out of suspense come back to it; return the refund that says so."""
    item = await parked(world)
    waiting = await give_back_alone(world, item)
    money: dict[str, Any] = {"amount_minor": 700, "currency": "THB", "provider_tx_id": "R1"}
    await answer_refund(world, waiting, "SUCCEEDED", **money)
    assert waiting.taken_by is not None
    job = derive_id(waiting.taken_by, "job", JobKind.REFUND)
    await world.tell(job, "RETURNED", kind="refund", basis="REFERENCE_STATUS", **money)
    query = "SELECT id FROM fleet.intents WHERE original_intent_id = $1 AND direction = 'SUSPENSE'"
    back: UUID = await world.admin.fetchval(query, waiting.taken_by)
    return back


def release(back: UUID, wallet: UUID, amount_minor: int) -> IntentRequest:
    """Return the request that gives a part of what came back to a wallet."""
    body = {"operation": "REFUND", "original_intent_id": back, "wallet_id": wallet, "amount_minor": amount_minor}
    return IntentRequest.model_validate(body | {"currency": "THB"})


async def test_what_came_back_to_suspense_leaves_it_for_a_wallet_by_two_keys(world: World) -> None:
    wallet = await opened(world)
    back = await came_back(world)
    made = (await world.core.accept.accept(alone(world), "release", release(back, wallet, 700))).intent
    assert (made.state, await world.money(wallet)) == ("REVIEW", (1, 0))
    await decide(world, made.id, "APPROVE")
    assert (await world.money(wallet), await suspense(world)) == ((701, 0), 0)
    await world.prove()


async def test_parts_that_one_key_may_give_out_alone_are_no_more_together_than_it_may(world: World) -> None:
    wallet = await opened(world)
    await lets_alone(world, 300)
    back = await came_back(world)
    accept = world.core.accept
    first = (await accept.accept(alone(world), "a", release(back, wallet, 100))).intent
    parts = [("b", release(back, wallet, 200)), ("c", release(back, wallet, 1))]
    answers = await accept.accept_all(alone(world), parts)
    later = (await accept.accept(replace(alone(world), key_id="desk-2"), "d", release(back, wallet, 1))).intent
    states = [first.state, *(each.intent.state for each in answers if not isinstance(each, Exception)), later.state]
    assert states == ["SETTLED", "SETTLED", "REVIEW", "REVIEW"]
    assert (await world.money(wallet))[0] == 301
    await decide(world, later.id, "APPROVE")
    assert (await world.money(wallet))[0] == 302
    await world.prove()
