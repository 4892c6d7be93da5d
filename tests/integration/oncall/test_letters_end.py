"""A dead letter ends with its payment, whichever way that ends, and says why; a result's letter waits for a reader."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from core.services.on_call.audit import AuditFilter, prove
from core.services.on_call.dead_letters import LetterFilter
from core.services.on_call.explain import tell
from core.services.problems import Refusal
from core.services.settling.settle_by_hand import approve, ask_settlement
from core.store.on_call import figures
from schemas.on_call import HandSettlementRequest, LetterState
from tests.integration.oncall.conftest import bury
from tests.integration.oncall.test_redrives import FAST, ask, person, run
from tests.integration.permits.conftest import RAIL, World, lookup_job, pay_job
from tests.integration.permits.test_lookups_and_deadlines import found


async def ended(world: World, letter: UUID) -> tuple[str, str]:
    row = await world.admin.fetchrow("SELECT state, closed_because FROM fleet.dead_letters WHERE id = $1", letter)
    assert row is not None
    return row["state"], row["closed_because"]


async def told(world: World, intent: UUID) -> list[str]:
    """Return what the journal says of the payment's letters; the chains are proven on the way."""
    async with world.uow() as uow:
        assert not (await prove(uow, world.core.worker_ports.journal, None)).faults
    async with world.uow() as uow:
        wanted = AuditFilter(world.caller.tenant_id, action="letter_closed", subject=f"intent:{intent}")
        return [entry.data for entry in await world.core.worker_ports.journal.page(uow, wanted, None, 10)]


async def test_an_answer_that_settles_the_payment_closes_its_letter_and_every_count_agrees(world: World) -> None:
    wallet = await world.wallet(1000)
    paid, other = await world.pay(wallet), await world.pay(wallet)
    await world.sent(paid)
    letter, left = await bury(world, paid, other)
    await world.tell(pay_job(paid), "SUCCEEDED")
    assert await ended(world, letter) == ("CLOSED", "its payment is SETTLED: SUCCEEDED")
    (entry,) = await told(world, paid)
    assert str(letter) in entry
    letters = world.core.worker_ports.letters
    async with world.uow() as uow:
        assert [x.id for x in await letters.list_letters(uow, LetterFilter(), 10)] == [left]
        assert [x.letters for x in await letters.group_letters(uow, LetterFilter(), 10)] == [1]
        (closed,) = await letters.list_letters(uow, LetterFilter(state=LetterState.CLOSED), 10)
        assert (closed.id, closed.closed_because) == (letter, "its payment is SETTLED: SUCCEEDED")
        story = await tell(uow, world.core.worker_ports.stories, letter, None)
    counted = [x for x in await figures.read_figures(world.core.worker_database) if x[0] == "dead_letters_open"]
    assert counted == [("dead_letters_open", RAIL, "", 1.0)]
    assert any("CLOSED: its payment is SETTLED" in line.text for line in story.lines if line.what == "letter")


async def test_a_payment_that_the_resolver_gives_back_takes_its_letter_along(world: World) -> None:
    intent = await world.pay(await world.wallet(1000))
    (letter,) = await bury(world, intent)
    await world.pass_time(3600)
    await world.resolve()
    state, failure = await world.state(intent)
    assert await ended(world, letter) == ("CLOSED", f"its payment is {state}: {failure}")
    assert len(await told(world, intent)) == 1


async def test_a_lookup_that_died_leaves_its_payment_to_a_redrive_as_long_as_its_deadline_runs(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await bury(world, intent, job_of=lookup_job)
    await world.pass_time(500)
    await world.check_now()
    await world.resolve()
    assert ((await world.state(intent))[0], await world.money(wallet)) == ("VALIDATED", (1000, 0))
    view = await ask(world, **FAST)
    assert (view.state, view.verdicts) == ("RUNNING", {"SAFE": 1})
    await run(world)
    (read,) = await world.ask([lookup_job(intent)])
    assert (read.mode, read.answer) == ("READ", "GRANTED")
    await world.settle(found(world, intent))
    assert (await world.state(intent))[0] == "AWAITING_CONFIRMATION"
    await world.prove()


async def test_a_lookup_that_died_ends_with_its_payment_at_the_deadline_and_is_redriven_no_more(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    (letter,) = await bury(world, intent, job_of=lookup_job)
    await world.pass_time(601)
    await world.resolve()
    assert await world.state(intent) == ("EXPIRED", "deadline_unsent")
    assert await ended(world, letter) == ("CLOSED", "its payment is EXPIRED: deadline_unsent")
    assert len(await told(world, intent)) == 1
    with pytest.raises(Refusal, match="no letter matches"):
        await ask(world, **FAST)
    assert await world.money(wallet) == (1000, 0)
    await world.prove()


async def test_a_letter_of_a_payment_that_waits_for_its_answer_ends_with_that_answer(world: World) -> None:
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    await world.tell(pay_job(intent), "UNKNOWN")
    (letter,) = await bury(world, intent)
    assert (await world.job(pay_job(intent)))["state"] == "WAITING"
    assert (await ended(world, letter))[0] == "OPEN"
    await world.tell(pay_job(intent), "SUCCEEDED")
    assert (await ended(world, letter))[0] == "CLOSED"


@pytest.mark.parametrize(("outcome", "state"), [("PAID", "SETTLED"), ("UNPAID", "FAILED")])
async def test_a_payment_that_people_settle_takes_its_letter_along(world: World, outcome: str, state: str) -> None:
    intent = await world.pay(await world.wallet(1000))
    (letter,) = await bury(world, intent)
    asked: dict[str, Any] = {"intent_id": intent, "outcome": outcome, "provider_tx_id": "T1", "reason": "seen there"}
    request = HandSettlementRequest.model_validate({**asked, "evidence": "the register says so", "incident": "INC-1"})
    view = await ask_settlement(world.core.worker_ports, person(world, "anna"), request)
    assert (await ended(world, letter))[0] == "OPEN"
    await approve(world.core.worker_ports, person(world, "ben"), view.id, "")
    assert await ended(world, letter) == ("CLOSED", f"its payment is {state}: settled_by_hand")


async def test_a_letter_that_comes_after_the_end_is_kept_closed(world: World) -> None:
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED")
    (letter,) = await bury(world, intent)
    assert await ended(world, letter) == ("CLOSED", "its payment is SETTLED: SUCCEEDED")


async def test_letters_that_race_with_the_end_of_their_payments_are_closed_all_the_same(world: World) -> None:
    wallet = await world.wallet(10_000)
    intents = [await world.pay(wallet) for _ in range(8)]
    for intent in intents:
        await world.sent(intent)
    burying = asyncio.create_task(bury(world, *intents))
    await asyncio.gather(*(world.tell(pay_job(intent), "SUCCEEDED") for intent in intents))
    assert {(await ended(world, letter))[0] for letter in await burying} == {"CLOSED"}


async def test_an_answer_that_could_not_be_used_stays_for_a_reader_after_the_payment_ended(world: World) -> None:
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", fence=7, provider_tx_id="T9")
    await world.tell(pay_job(intent), "SUCCEEDED")
    assert (await world.state(intent))[0] == "SETTLED"
    rows = await world.admin.fetch("SELECT state FROM fleet.dead_letters")
    assert [row["state"] for row in rows] == ["OPEN"]
