"""What providers take back of money in, wherever it is by then, and whichever is told first: on a real database."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from core.domain.operations import AccountCode
from core.services.money_in.provider_payments import tell_again
from core.services.money_in.suspense import show_item
from schemas.suspense import SuspenseDetail
from tests.integration.permits.conftest import RAIL, World
from tests.integration.permits.test_collections import (
    collect_job,
    opened,
    paid,
    payments,
    reference,
    shown,
    suspense,
    told,
)
from tests.integration.permits.test_suspense import answer_refund, assign, decider, give_back, open_items
from tests.support.waiting import PATIENCE_S

BACK: dict[str, Any] = {"kind": "RETURN", "source": "STATEMENT"}
STRAY: dict[str, Any] = {"reference": "NOBODYS", "amount_minor": 700}


async def item_of(world: World, item: UUID) -> SuspenseDetail:
    return await show_item(world.core.ports, decider(world), item)


async def owed(world: World) -> int:
    return -await suspense(world, AccountCode.RECEIVABLE)


async def test_a_part_that_is_taken_back_of_an_item_leaves_the_rest_open(world: World) -> None:
    wallet = await opened(world)
    assert await told(world, STRAY) == ["SUSPENDED"]
    assert await told(world, BACK | {"amount_minor": 200}) == ["REVERSED"]
    (item,) = await open_items(world)
    seen = await item_of(world, item)
    assert (seen.amount_minor, seen.returned_minor, await suspense(world)) == (500, 200, 500)
    assert await told(world, BACK | {"amount_minor": 200}) == ["KNOWN"]
    assert await told(world, BACK | {"amount_minor": 300}) == ["QUARANTINED"]
    await assign(world, item, wallet)
    assert (await world.money(wallet), await suspense(world)) == ((501, 0), 0)
    await world.prove()


async def test_what_a_person_gave_to_a_wallet_is_taken_out_of_that_wallet(world: World) -> None:
    wallet = await opened(world)
    await told(world, STRAY)
    (item,) = await open_items(world)
    await assign(world, item, wallet)
    assert await told(world, BACK | {"amount_minor": 700}) == ["REVERSED"]
    assert (await world.money(wallet), await suspense(world), await owed(world)) == ((1, 0), 0, 0)
    await world.prove()


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "paid"])
async def test_a_return_while_a_refund_runs_waits_for_its_end(world: World, *, refused: bool) -> None:
    await opened(world)
    await told(world, STRAY)
    (item,) = await open_items(world)
    waiting = await give_back(world, item)
    assert await told(world, BACK | {"amount_minor": 700}) == ["NOTED"]
    assert await tell_again(world.core.worker_ports, world.uow, 10) == 0
    assert (await suspense(world), await owed(world)) == (700, 0)
    if refused:
        await answer_refund(world, waiting, "DECLINED", reason="payment_not_found")
    else:
        await answer_refund(world, waiting, "SUCCEEDED", amount_minor=700, currency="THB", provider_tx_id="R1")
    assert await tell_again(world.core.worker_ports, world.uow, 10) == 1
    assert await tell_again(world.core.worker_ports, world.uow, 10) == 0
    # Refused, it leaves suspense once; paid, it left twice, and somebody owes it.
    assert (await suspense(world), await owed(world)) == (0, 0 if refused else 700)
    assert (await item_of(world, item)).state == "RETURNED"
    assert await told(world, BACK | {"amount_minor": 700}) == ["KNOWN"]
    await world.prove()


async def test_a_return_after_a_refund_failed_empties_the_item_and_not_a_wallet(world: World) -> None:
    wallet = await opened(world)
    await told(world, STRAY)
    (item,) = await open_items(world)
    await answer_refund(world, await give_back(world, item), "DECLINED", reason="payment_not_found")
    assert await told(world, BACK | {"amount_minor": 700}) == ["REVERSED"]
    assert (await suspense(world), await owed(world), await open_items(world)) == (0, 0, [])
    assert await world.money(wallet) == (1, 0)
    await world.prove()


async def test_a_return_without_a_reference_that_races_the_credit_empties_the_wallet(world: World) -> None:
    wallet = await opened(world)
    ref = await reference(world, await shown(world, wallet))
    fates = await asyncio.gather(*(told(world, each) for each in ({"reference": ref}, BACK, BACK)))
    assert fates[0][0] in ("CREDITED", "SUSPENDED")
    await told(world, BACK)
    assert (await world.money(wallet), await suspense(world), await owed(world)) == ((1, 0), 0, 0)
    await world.prove()


async def test_a_return_is_of_the_tenant_whose_payment_it_takes_back(world: World) -> None:
    wallet = await opened(world)
    # Told first, of an account that nobody can be told the owner of.
    await world.admin.execute("UPDATE fleet.routes SET enabled = false")
    assert await told(world, BACK) == ["NOTED"]
    assert await told(world, BACK | {"transaction_id": "T2"}) == ["NOTED"]
    await world.admin.execute("UPDATE fleet.routes SET enabled = true")
    ref = await reference(world, await shown(world, wallet))
    assert await told(world, {"reference": ref}, {"transaction_id": "T2"}) == ["SUSPENDED", "SUSPENDED"]
    assert (await suspense(world), await open_items(world)) == (0, [])
    owners = await world.admin.fetch("SELECT DISTINCT tenant_id FROM fleet.provider_payments")
    assert [row["tenant_id"] for row in owners] == [world.caller.tenant_id]
    foreign = "SELECT count(*) FROM fleet.intents WHERE operation = 'REFUND' AND tenant_id <> $1"
    assert await world.admin.fetchval(foreign, world.caller.tenant_id) == 0
    await world.prove()


@pytest.mark.parametrize(("back_minor", "left_minor"), [(700, 0), (200, 500), (900, 700)])
async def test_a_return_that_came_first_is_applied_once_its_payment_rests(
    world: World, back_minor: int, left_minor: int
) -> None:
    await opened(world)
    assert await told(world, BACK | {"amount_minor": back_minor}) == ["NOTED"]
    assert await told(world, STRAY) == ["SUSPENDED"]
    assert (await suspense(world), len(await open_items(world))) == (left_minor, 1 if left_minor else 0)
    # More than was paid is nobody's to book: a person looks at it.
    assert (("page", "return_differs") in await world.alerts()) == (back_minor > 700)
    assert await told(world, STRAY) == ["KNOWN"]
    await world.prove()


async def test_a_name_of_another_transaction_makes_no_two_payments_one(world: World) -> None:
    wallet = await opened(world)
    first, second = [await reference(world, await shown(world, wallet)) for _ in range(2)]
    assert await told(world, {"reference": first, "also_known_as": ["B9"]}) == ["CREDITED"]
    other = {"transaction_id": "T2", "reference": second, "also_known_as": ["B9"]}
    assert await told(world, other) == ["QUARANTINED"]
    assert await told(world, other) == ["QUARANTINED"]
    assert ("page", "name_of_another_transaction") in await world.alerts()
    breaks = await world.admin.fetch("SELECT kind, amount_minor, currency, state FROM fleet.breaks")
    assert [tuple(row) for row in breaks] == [("payment_quarantined", 2_000, "THB", "OPEN")]
    assert await payments(world) == [("CREDITED", ""), ("NOTED", "name_of_another_transaction")]
    # The provider, asked for the second collection, says that it was paid too: two payments.
    assert await told(world, {"transaction_id": "T2", "reference": second, "source": "POLL"}) == ["CREDITED"]
    assert await world.money(wallet) == (4_001, 0)
    # The bank's name alone is all that is known of it first, and the provider's own joins it.
    stray = {"transaction_id": "B7", "reference": "", "source": "STATEMENT"}
    assert await told(world, stray) == ["SUSPENDED"]
    assert await told(world, {"transaction_id": "T7", "also_known_as": ["B7"]}) == ["KNOWN"]
    await world.prove()


async def test_a_collection_gets_what_a_statement_let_rest_without_its_name(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    assert await told(world, {"reference": "", "source": "STATEMENT"}) == ["SUSPENDED"]
    assert await told(world, {"reference": await reference(world, intent)}) == ["CREDITED"]
    assert (await world.money(wallet), await suspense(world), await open_items(world)) == ((2_001, 0), 0, [])
    assert await told(world, BACK) == ["REVERSED"]
    assert (await world.money(wallet), (await world.state(intent))[0]) == ((1, 0), "SETTLED")
    await world.prove()


async def test_a_collection_whose_payment_a_person_gave_away_ends_and_credits_nothing(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    await told(world, {"reference": "", "source": "STATEMENT"})
    (item,) = await open_items(world)
    await assign(world, item, wallet)
    assert await told(world, {"reference": await reference(world, intent)}) == ["KNOWN"]
    assert (await world.state(intent), await world.money(wallet)) == (("FAILED", "decided_by_hand"), (2_001, 0))
    await world.prove()


async def test_a_payment_of_one_collection_is_never_counted_for_another(world: World) -> None:
    wallet = await opened(world)
    first, second = [await shown(world, wallet) for _ in range(2)]
    assert await told(world, {"reference": await reference(world, first)}) == ["CREDITED"]
    assert await told(world, {"reference": await reference(world, second)}) == ["QUARANTINED"]
    assert ("page", "transaction_of_another_collection") in await world.alerts()
    assert await told(world, BACK | {"reference": await reference(world, second)}) == ["QUARANTINED"]
    assert (await world.money(wallet), (await world.state(second))[0]) == ((2_001, 0), "AUTHORIZED")
    await world.prove()


async def test_a_paid_that_is_quarantined_counts_as_unapplied_and_ends_no_collection(world: World) -> None:
    wallet = await opened(world)
    first, second = [await shown(world, wallet) for _ in range(2)]
    assert await told(world, {"reference": await reference(world, first)}) == ["CREDITED"]
    await paid(world, second)
    kept = await world.admin.fetchrow(
        "SELECT applied_at, quarantine FROM fleet.facts WHERE intent_id = $1 AND verdict = 'PAID'", second
    )
    assert kept is not None
    assert tuple(kept) == (None, "transaction_of_another_collection")
    assert (await world.job(collect_job(second)))["next_check_at"] is not None
    await world.pass_time(10_000)
    await world.resolve()
    assert ((await world.state(second))[0], await world.money(wallet)) == ("UNRESOLVED", (2_001, 0))
    # Asked on, the provider names the transaction that it was.
    await world.answer_question(second, "PAID", amount_minor=2_000, currency="THB", provider_tx_id="T2")
    assert ((await world.state(second))[0], await world.money(wallet)) == ("SETTLED", (4_001, 0))
    await world.prove()


async def test_a_register_line_that_is_not_booked_is_never_posted(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    line = {"reference": await reference(world, intent), "source": "REGISTER", "confirmed": False}
    assert await told(world, line | {"status": "PENDING"}) == ["NOTED"]
    await world.check_now()
    await world.resolve()
    await world.answer_question(intent, "EXPIRED")
    assert (await tell_again(world.core.worker_ports, world.uow, 10), await suspense(world)) == (0, 0)
    assert await told(world, line) == ["SUSPENDED"]
    assert (await suspense(world), await world.money(wallet)) == (2_000, (1, 0))
    await world.prove()


async def test_what_is_wrong_with_another_payment_of_an_answer_leaves_its_own_applied(world: World) -> None:
    wallet = await opened(world)
    await paid(world, await shown(world, wallet))
    intent = await shown(world, wallet, 500)
    other = [{"transaction_id": "T1", "amount_minor": 1_900, "currency": "THB"}]
    await paid(world, intent, 500, "T2", further=other)
    assert ((await world.state(intent))[0], await world.money(wallet)) == ("SETTLED", (2_501, 0))
    query = "SELECT quarantine FROM fleet.facts WHERE intent_id = $1 AND verdict = 'PAID'"
    assert [row["quarantine"] for row in await world.admin.fetch(query, intent)] == [None]
    # The other one has a break and a call of its own.
    assert ("page", "same_transaction_other_money") in await world.alerts()
    await world.prove()


async def test_every_payment_that_one_answer_tells_of_is_kept(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    second = [{"transaction_id": "T2", "amount_minor": 1_900, "currency": "THB"}]
    await paid(world, intent, further=second)
    assert ((await world.state(intent))[0], await world.money(wallet)) == ("SETTLED", (2_001, 0))
    # Both were told in one millisecond: their ids say nothing about which came first.
    assert (await suspense(world), set(await payments(world))) == (
        1_900, {("CREDITED", ""), ("SUSPENDED", "second_payment")},
    )  # fmt: skip
    await world.prove()


async def test_a_return_that_only_a_register_tells_of_opens_a_break_and_moves_nothing(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    await paid(world, intent)
    told_by_register = {"kind": "RETURN", "source": "REGISTER"}
    assert [await told(world, told_by_register) for _ in range(2)] == [["NOTED"], ["NOTED"]]
    assert await world.money(wallet) == (2_001, 0)
    assert (await world.alerts()).count(("ticket", "return_unconfirmed")) == 1
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.breaks WHERE kind = 'payment_quarantined'") == 1
    # Asked, the provider says so too: now it counts, and nobody is called about it any more.
    assert await told(world, {"kind": "RETURN", "source": "POLL"}) == ["REVERSED"]
    assert await world.money(wallet) == (1, 0)
    ended = await world.admin.fetch("SELECT state, ended_at IS NOT NULL FROM fleet.breaks")
    assert [tuple(each) for each in ended] == [("GONE", True)]
    await world.prove()


async def test_a_return_that_an_unconfirmed_callback_and_then_a_register_tell_of_opens_a_break(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    await paid(world, intent)
    assert await told(world, {"kind": "RETURN", "source": "CALLBACK", "confirmed": False}) == ["NOTED"]
    opened_breaks = "SELECT state FROM fleet.breaks WHERE kind = 'payment_quarantined'"
    assert await world.admin.fetch(opened_breaks) == []
    assert [await told(world, {"kind": "RETURN", "source": "REGISTER"}) for _ in range(2)] == [["NOTED"]] * 2
    assert [each["state"] for each in await world.admin.fetch(opened_breaks)] == ["OPEN"]
    assert ("ticket", "return_unconfirmed") in await world.alerts()
    assert await told(world, {"kind": "RETURN", "source": "STATEMENT"}) == ["REVERSED"]
    assert [each["state"] for each in await world.admin.fetch(opened_breaks)] == ["GONE"]
    await world.prove()


async def test_whoever_took_a_payment_out_of_suspense_is_locked_before_its_provider_account(world: World) -> None:
    """Facts and results lock in one order: one that waits for the taker holds up no other of that account."""
    wallet = await opened(world)
    taker, intent = await shown(world, wallet), await shown(world, wallet)
    assert await told(world, {"reference": "NOBODYS", "source": "STATEMENT"}) == ["SUSPENDED"]
    await world.admin.execute("UPDATE fleet.provider_payments SET consumed_by = $1, consumed_at = now()", taker)
    await world.check_now()
    await world.resolve()
    asked = "SELECT id FROM fleet.jobs WHERE intent_id = $1 AND kind = 'inquire' AND closed_at IS NULL"
    money = {"amount_minor": 2_000, "currency": "THB", "provider_tx_id": "T1"}
    inquiry = await world.admin.fetchval(asked, intent)
    result = world.fact(inquiry, "PAID", kind="inquire", fence=0, basis="REFERENCE_STATUS", **money)
    async with world.uow() as uow:
        await uow.connection.execute("SELECT FROM fleet.intents WHERE id = $1 FOR UPDATE", taker)
        telling = asyncio.create_task(world.settle(result))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        async with asyncio.timeout(PATIENCE_S):
            while not await world.admin.fetchval(waits):  # noqa: ASYNC110  the database tells
                await asyncio.sleep(0.02)
        lock = "SELECT pg_try_advisory_xact_lock(hashtextextended('fleet.payments:' || $1 || ':main', 0))"
        assert await uow.connection.fetchval(lock, RAIL)
    await telling
