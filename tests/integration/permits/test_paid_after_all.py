"""A provider calls a payment paid that ended unpaid here: it is asked, and its answer alone moves money."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from core.domain.context import Context
from core.domain.registers import Account
from core.services.recon.registers import compare_day
from core.services.settling.doubted_ends import MOST_ASKS, ask_about_ends
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


async def called(world: World, intent: UUID, **more: Any) -> None:
    """Let a callback say that the payment was paid."""
    reference = (await world.job(pay_job(intent)))["reference"]
    await told(world, {"kind": "OUT", "reference": reference, "amount_minor": 100} | more)


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


async def test_a_register_that_calls_an_unpaid_payment_settled_makes_the_core_ask(world: World) -> None:
    intent = await ended_unpaid(world)
    day = Day(world, datetime.now(UTC).date())
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
