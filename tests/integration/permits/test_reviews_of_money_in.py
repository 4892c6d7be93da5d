"""Money in that waits for a decision: it rests in suspense, taken by its collection, on a real database and ledger."""

from uuid import UUID

import pytest

from core.domain.ledger import AccountChange
from core.domain.operations import AccountCode
from core.services.money_in.suspense import show_item
from core.services.payments.cancel import cancel
from core.services.terms.set_limits import set_limit
from schemas.limits import LimitRequest
from tests.integration.permits.conftest import World
from tests.integration.permits.test_collections import collect_job, opened, paid, reference, shown, suspense, told
from tests.integration.permits.test_fees import income, put
from tests.integration.permits.test_refunds_by_rail import REFUNDS, given_back
from tests.integration.permits.test_reviews import decide, events, expire, refused
from tests.integration.permits.test_suspense import assign, decider, open_items


async def watched(world: World, wallet: UUID, *, polled: bool = False) -> UUID:
    """Let a top-up that is to be looked at be paid; return the intent."""
    intent = await shown(world, wallet, requires_monitoring=True)
    if polled:
        await paid(world, intent)
    else:
        assert await told(world, {"reference": await reference(world, intent)}) == ["SUSPENDED"]
    return intent


async def item_of(world: World, intent: UUID) -> UUID:
    first = "SELECT id FROM fleet.provider_payments WHERE intent_id = $1 ORDER BY seen_at LIMIT 1"
    item: UUID = await world.admin.fetchval(first, intent)
    return item


async def _change(world: World, wallet: UUID, change: AccountChange) -> None:
    async with world.core.ports.unit_of_work(world.caller.context()) as uow:
        assert await world.core.ports.ledger.change_account(uow, wallet, change) == "ok"


async def standing(world: World, intent: UUID) -> tuple[str, str]:
    item = await show_item(world.core.ports, decider(world), await item_of(world, intent))
    return item.state, item.reason


@pytest.mark.parametrize("polled", [True, False], ids=["asked", "told"])
async def test_money_in_rests_until_another_key_approves_and_reaches_the_wallet_less_its_fee(
    world: World, polled: bool
) -> None:
    wallet = await opened(world, **REFUNDS)
    await put(world, operation="TOPUP", phase="POST")
    intent = await watched(world, wallet, polled=polled)
    assert (await world.state(intent))[0] == "REVIEW"
    assert (await world.money(wallet), await suspense(world)) == ((1, 0), 2_000)
    assert await standing(world, intent) == ("IN_REVIEW", "monitored")
    assert (await world.job(collect_job(intent)))["closed_at"] is not None
    fact = {"reference": await reference(world, intent)}
    assert await told(world, fact) == ["KNOWN"]
    # Another one on the same code is not the one that is decided about.
    assert await told(world, fact | {"transaction_id": "T2"}) == ["SUSPENDED"]
    assert await refused(world, intent, "APPROVE", world.caller) == "operation_not_permitted"
    decided = await decide(world, intent, "APPROVE")
    assert (decided.state, decided.provider_reference) == ("SETTLED", "T1")
    assert (await decide(world, intent, "APPROVE")).state == "SETTLED"
    assert (await world.money(wallet), await income(world), await suspense(world)) == ((1_998, 0), 3, 2_000)
    assert await standing(world, intent) == ("ASSIGNED", "monitored")
    assert [event[:2] for event in await events(world, intent)][-2:] == [
        ("review", "REVIEW"),
        ("review_approved", "SETTLED"),
    ]
    # From here on it is a payment in like any other: paid back by its rail, and taken back for the rest.
    await given_back(world, intent, wallet, 800, "R1")
    assert await told(world, {"kind": "RETURN", "amount_minor": 1_200, "source": "STATEMENT"}) == ["REVERSED"]
    assert await world.money(wallet) == (0, 0)  # the fee was kept, so that two of what went back are owed
    assert await suspense(world, AccountCode.RECEIVABLE) == -2
    await world.prove()


@pytest.mark.parametrize("how", ["REJECT", "expire", "cancel"])
async def test_money_in_that_nobody_approves_is_open_in_suspense_and_gives_its_limit_back(
    world: World, how: str
) -> None:
    body = {"name": "monthly", "kind": "MONTH", "currency": "THB", "max_amount_minor": 2_000}
    async with world.uow() as uow:
        store = world.core.worker_ports.limit_store
        await set_limit(uow, store, world.caller.tenant_id, "test", LimitRequest.model_validate(body))
    wallet = await opened(world)
    intent = await watched(world, wallet)
    held = "SELECT held_minor FROM fleet.limit_usage WHERE subject = $1"
    assert await world.admin.fetchval(held, str(wallet)) == 2_000
    if how == "REJECT":
        assert (await decide(world, intent, how)).failure_code == "review_rejected"
    elif how == "expire":
        await world.admin.execute("UPDATE fleet.intents SET review_until = now() WHERE id = $1", intent)
        assert await expire(world) == 1
    else:
        assert (await cancel(world.core.ports, world.caller, intent)).state == "CANCELLED"
    assert await world.admin.fetchval(held, str(wallet)) == 0
    assert await open_items(world) == [await item_of(world, intent)]
    assert await told(world, {"reference": await reference(world, intent)}) == ["KNOWN"]
    await assign(world, await item_of(world, intent), wallet)
    assert (await world.money(wallet), await suspense(world)) == ((2_001, 0), 0)
    await world.prove()


@pytest.mark.parametrize(("back_minor", "at_once"), [(2_000, False), (2_000, True), (500, False)])
async def test_what_the_provider_takes_back_while_it_waits_ends_the_review(
    world: World, back_minor: int, at_once: bool
) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet, requires_monitoring=True)
    facts = [{"reference": await reference(world, intent)}]
    back = {"kind": "RETURN", "source": "STATEMENT", "amount_minor": back_minor}
    if at_once:
        assert await told(world, *facts, back) == ["SUSPENDED", "REVERSED"]
    else:
        assert await told(world, *facts) == ["SUSPENDED"]
        # Another one on the same code that goes back is not the one that is decided about.
        other = {"transaction_id": "T2"}
        assert await told(world, facts[0] | other) == ["SUSPENDED"]
        assert await told(world, back | other | {"amount_minor": 2_000}) == ["REVERSED"]
        assert (await world.state(intent))[0] == "REVIEW"
        assert await told(world, back) == ["REVERSED"]
    assert (await world.state(intent))[0] == "FAILED"
    code = await world.admin.fetchval("SELECT failure_code FROM fleet.intents WHERE id = $1", intent)
    assert code == "returned_in_review"
    assert await refused(world, intent, "APPROVE") == "wrong_state"
    assert (await world.money(wallet), await suspense(world)) == ((1, 0), 2_000 - back_minor)
    assert len(await open_items(world)) == (1 if back_minor < 2_000 else 0)
    assert await told(world, back) == ["KNOWN"]
    await world.prove()


async def test_what_the_wallet_cannot_have_waits_on(world: World) -> None:
    wallet = await opened(world)
    await put(world, operation="TOPUP", phase="POST")
    intent = await watched(world, wallet)
    await _change(world, wallet, AccountChange.FREEZE)
    assert await refused(world, intent, "APPROVE") == "account_frozen"
    await _change(world, wallet, AccountChange.UNFREEZE)
    assert (await decide(world, intent, "APPROVE")).state == "SETTLED"
    assert await world.money(wallet) == (1_998, 0)
    await world.prove()


async def test_what_a_statement_parked_first_waits_where_it_rests(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet, requires_monitoring=True)
    assert await told(world, {"source": "STATEMENT"}) == ["SUSPENDED"]
    assert await told(world, {"reference": await reference(world, intent)}) == ["SUSPENDED"]
    assert ((await world.state(intent))[0], await suspense(world)) == ("REVIEW", 2_000)
    assert await standing(world, intent) == ("IN_REVIEW", "monitored")
    assert (await decide(world, intent, "APPROVE")).state == "SETTLED"
    assert (await world.money(wallet), await suspense(world)) == ((2_001, 0), 0)
    await world.prove()
