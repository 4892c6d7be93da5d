"""A provider calls a payment paid that ended unpaid here: it is asked, and its answer alone moves money."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from core.domain.context import Context
from core.domain.registers import Account
from core.services.recon.registers import compare_day
from core.services.settling.doubted_ends import MOST_ASKS, ask_about_ends
from core.services.settling.settle import settle_batch
from core.store.database import UnitOfWork
from schemas.registers import RegisterLine
from tests.integration.oncall.test_registers import Day
from tests.integration.permits.conftest import RAIL, World, pay_job
from tests.integration.permits.test_collections import suspense, told
from tests.integration.permits.test_completer import completer, found

PAID: dict[str, Any] = {"amount_minor": 100, "currency": "THB", "provider_tx_id": "T1"}


async def ended_unpaid(world: World, **able: Any) -> UUID:
    """Return a payout that was sent once, and refused."""
    await world.register(**({"inquiry": True} | able))
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    await world.tell(pay_job(intent), "DECLINED", reason="refused")
    return intent


async def called(world: World, intent: UUID, *, unit_of_work: Any = None, **more: Any) -> None:
    """Let a callback say that the payment was paid."""
    async with world.uow() as uow:
        find = "SELECT reference FROM fleet.jobs WHERE id = $1"
        reference = await uow.connection.fetchval(find, pay_job(intent))
    fact = {"kind": "OUT", "reference": reference, "amount_minor": 100} | more
    await told(world, fact, unit_of_work=unit_of_work)


async def ask(world: World) -> int:
    """Look at what is to be asked about, as the resolver does, with no wait between two looks."""
    await world.admin.execute("UPDATE fleet.doubted_ends SET next_ask_at = now() WHERE next_ask_at IS NOT NULL")
    return await ask_about_ends(world.core.worker_ports, world.uow, 100)


async def ends(world: World) -> list[tuple[str, int, str | None, bool]]:
    """Return who doubted each end, how often it was asked about, and how that ended, if it has."""
    rows = await world.admin.fetch("SELECT told_by, asks, answer, next_ask_at IS NULL FROM fleet.doubted_ends")
    return [tuple(row) for row in rows]


async def open_alerts(world: World) -> list[str]:
    return [row[0] for row in await world.admin.fetch("SELECT kind FROM fleet.alerts WHERE closed_at IS NULL")]


async def test_a_late_paid_callback_is_alerted_and_asked_about_and_its_money_rests_in_suspense(world: World) -> None:
    intent = await ended_unpaid(world)
    await called(world, intent)
    assert await world.alerts() == [("ticket", "end_doubted")]
    assert await suspense(world) == 0, "a callback moves no money"
    assert await ask(world) == 1
    (question,) = await world.admin.fetch("SELECT * FROM fleet.jobs WHERE kind = 'inquire' AND closed_at IS NULL")
    (permit,) = await world.ask([question["id"]])
    assert (permit.answer, permit.mode) == ("GRANTED", "READ")
    assert permit.instruction.target_reference == (await world.job(pay_job(intent)))["reference"]
    assert await found(world) == [], "what is on its way is not left over"
    await completer(world).step()
    assert await ask(world) == 1, "it is not asked twice at a time"
    await world.answer_question(intent, "SUCCEEDED", **PAID)
    assert await world.state(intent) == ("FAILED", "refused")
    assert await suspense(world) == -100
    assert await ask(world) == 1
    assert await open_alerts(world) == ["success_after_void"]
    # Told once more, it is known.
    await called(world, intent, transaction_id="T2")
    assert (await ends(world), await ask(world)) == ([("CALLBACK", 1, "SUCCEEDED", True)], 0)
    await world.prove()


async def test_no_answer_is_asked_for_again_and_a_definite_no_leaves_the_ticket_to_a_person(world: World) -> None:
    intent = await ended_unpaid(world)
    await called(world, intent)
    await ask(world)
    await world.answer_question(intent, "NOT_FOUND")
    await ask(world)
    await world.answer_question(intent, "UNKNOWN")
    await ask(world)
    await world.answer_question(intent, "DECLINED")
    await ask(world)
    assert await ends(world) == [("CALLBACK", 3, "DECLINED", True)]
    assert await open_alerts(world) == ["end_doubted"]
    # Another event says so again: it is asked about anew.
    await called(world, intent)
    assert await ends(world) == [("CALLBACK", 3, None, False)]
    await ask(world)
    await world.answer_question(intent, "SUCCEEDED", **PAID)
    await ask(world)
    assert (await ends(world), await suspense(world)) == ([("CALLBACK", 4, "SUCCEEDED", True)], -100)
    await world.prove()


async def test_what_says_nothing_for_long_is_left_to_a_person_and_so_is_a_rail_that_cannot_be_asked(
    world: World,
) -> None:
    intent = await ended_unpaid(world)
    await called(world, intent)
    await ask(world)
    await world.answer_question(intent, "UNKNOWN")
    await world.admin.execute("UPDATE fleet.doubted_ends SET asks = $1", MOST_ASKS)
    await ask(world)
    assert await ends(world) == [("CALLBACK", MOST_ASKS, "unanswered", True)]
    await world.admin.execute("UPDATE fleet.alerts SET closed_at = now()")
    await called(world, intent)
    await ask(world)
    assert await ends(world) == [("CALLBACK", MOST_ASKS + 1, None, False)], "told of anew, it is asked about anew"
    assert await open_alerts(world) == ["end_doubted"], "and whoever closed its ticket has it again"
    await world.answer_question(intent, "UNKNOWN")
    await world.admin.execute("UPDATE fleet.doubted_ends SET asks = $1", 2 * MOST_ASKS)
    await ask(world)
    assert await ends(world) == [("CALLBACK", 2 * MOST_ASKS, "unanswered", True)]
    mute = await ended_unpaid(world, inquiry=False)
    await called(world, mute)
    await ask(world)
    assert (await ends(world))[1:] == [("CALLBACK", 0, "unanswered", True)]
    assert await open_alerts(world) == ["end_doubted", "end_doubted"]
    await world.prove()


async def test_only_a_word_of_money_about_this_account_doubts_an_end(world: World) -> None:
    refused = await ended_unpaid(world)
    await called(world, refused, status="FAILED")
    await called(world, refused, status="PENDING")
    await called(world, refused, provider_account="other")
    settled = await world.pay(await world.wallet(1000))
    await world.sent(settled)
    await world.tell(pay_job(settled), "SUCCEEDED", **PAID)
    await called(world, settled)
    assert (await ends(world), await world.alerts()) == ([], [])


async def sent_once(world: World) -> tuple[UUID, UUID]:
    """Return a payout that was sent once and is not answered yet, and its wallet."""
    await world.register(inquiry=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    return intent, wallet


@asynccontextmanager
async def committed_behind(world: World, other: Callable[[], Awaitable[Any]]) -> AsyncIterator[UnitOfWork]:
    """Open a transaction that commits after what it did not see was committed."""
    async with world.uow() as uow:
        yield uow
        await other()


async def test_a_paid_callback_that_comes_before_the_refusal_is_remembered_and_asked_about_after_it(
    world: World,
) -> None:
    intent, _ = await sent_once(world)
    await called(world, intent)
    assert (await ask(world), await world.alerts()) == (1, []), "while it is open, nothing is wrong"
    await world.tell(pay_job(intent), "DECLINED", reason="refused")
    assert await world.state(intent) == ("FAILED", "refused")
    await ask(world)
    assert await open_alerts(world) == ["end_doubted"]
    await world.answer_question(intent, "SUCCEEDED", **PAID)
    await ask(world)
    assert (await ends(world), await suspense(world)) == ([("CALLBACK", 1, "SUCCEEDED", True)], -100)
    assert await open_alerts(world) == ["success_after_void"]
    await world.prove()


async def test_a_paid_callback_and_a_refusal_that_do_not_see_each_other_are_asked_about(world: World) -> None:
    refused_first, _ = await sent_once(world)
    refusal = partial(world.tell, pay_job(refused_first), "DECLINED", reason="refused")
    await called(world, refused_first, unit_of_work=partial(committed_behind, world, refusal))
    told_first, _ = await sent_once(world)
    callback = partial(called, world, told_first, transaction_id="T2")
    fact = world.fact(pay_job(told_first), "DECLINED", reason="refused")
    await settle_batch(world.core.worker_ports, partial(committed_behind, world, callback), [fact])
    assert [(await world.state(each))[0] for each in (refused_first, told_first)] == ["FAILED", "FAILED"]
    await ask(world)
    assert await ends(world) == [("CALLBACK", 1, None, False)] * 2
    assert await open_alerts(world) == ["end_doubted"] * 2
    asked = await world.admin.fetch("SELECT intent_id FROM fleet.jobs WHERE kind = 'inquire' AND closed_at IS NULL")
    assert {row["intent_id"] for row in asked} == {refused_first, told_first}


async def test_callbacks_and_refusals_at_once_leave_none_that_is_not_asked_about(world: World) -> None:
    intents = [(await sent_once(world))[0] for _ in range(8)]
    told_of = [called(world, intent, transaction_id=f"T{place}") for place, intent in enumerate(intents)]
    refusals = [world.tell(pay_job(intent), "DECLINED", reason="refused") for intent in intents]
    await asyncio.gather(*(each for pair in zip(told_of, refusals, strict=True) for each in pair))
    await ask(world)
    asked = await world.admin.fetch("SELECT intent_id FROM fleet.jobs WHERE kind = 'inquire' AND closed_at IS NULL")
    assert sorted(row["intent_id"] for row in asked) == sorted(intents)
    assert await open_alerts(world) == ["end_doubted"] * len(intents)


async def test_what_is_called_paid_and_settles_so_was_never_in_doubt(world: World) -> None:
    intent, _ = await sent_once(world)
    await called(world, intent)
    await world.tell(pay_job(intent), "SUCCEEDED", **PAID)
    await ask(world)
    assert (await ends(world), await world.alerts()) == ([], [])


async def test_a_callback_that_a_settled_payout_came_back_is_asked_about_and_refunded(world: World) -> None:
    intent, wallet = await sent_once(world)
    await world.tell(pay_job(intent), "SUCCEEDED", **PAID)
    await called(world, intent, status="RETURNED")
    assert await world.money(wallet) == (900, 0), "a callback moves no money"
    await ask(world)
    await world.answer_question(intent, "SUCCEEDED", **PAID)
    await ask(world)
    await world.answer_question(intent, "RETURNED", **PAID)
    await ask(world)
    assert (await ends(world), await world.alerts()) == (
        [("CALLBACK", 2, "RETURNED", True)],
        [("ticket", "payment_returned")],
    )
    assert await world.money(wallet) == (1000, 0)
    assert await world.state(intent) == ("SETTLED", None)
    await world.prove()


async def test_a_return_that_comes_while_the_success_is_on_its_way_is_refunded_after_it(world: World) -> None:
    intent, wallet = await sent_once(world)
    await called(world, intent)
    await called(world, intent, status="RETURNED")
    await world.tell(pay_job(intent), "SUCCEEDED", **PAID)
    await ask(world)
    await world.answer_question(intent, "RETURNED", **PAID)
    await ask(world)
    assert (await ends(world), await world.money(wallet)) == ([("CALLBACK", 1, "RETURNED", True)], (1000, 0))
    await world.prove()


async def test_a_return_that_the_status_never_shows_is_left_to_a_person(world: World) -> None:
    intent, wallet = await sent_once(world)
    await world.tell(pay_job(intent), "SUCCEEDED", **PAID)
    await called(world, intent, status="RETURNED")
    await ask(world)
    await world.answer_question(intent, "SUCCEEDED", **PAID)
    await world.admin.execute("UPDATE fleet.doubted_ends SET asks = $1", MOST_ASKS)
    await ask(world)
    assert (await ends(world), await open_alerts(world)) == (
        [("CALLBACK", MOST_ASKS, "unanswered", True)],
        ["end_doubted"],
    )
    assert await world.money(wallet) == (900, 0)


async def test_a_register_that_calls_an_unpaid_payment_settled_makes_the_core_ask(world: World) -> None:
    intent = await ended_unpaid(world)
    day = await Day.opened(world, inquiry=True)
    line = RegisterLine(
        line=1,
        provider_ref="T1",
        our_ref=(await world.job(pay_job(intent)))["reference"],
        operation="PAYMENT",
        direction="OUT",
        amount_minor=100,
        fee_minor=0,
        currency="THB",
        status="SETTLED",
        at=datetime.now(UTC),
    )
    await day.bring([line])
    for _ in range(2):
        await compare_day(world.core.worker_ports, Context(None, "test"), Account(RAIL, "main", "sandbox"), day.day)
    assert await ends(world) == [("REGISTER", 0, None, False)]
    await ask(world)
    await world.answer_question(intent, "SUCCEEDED", **PAID)
    await ask(world)
    assert await suspense(world) == -100
    run = await day.compare()
    assert run.clean, "what was asked for and booked is no difference any more"
    await world.prove()
