"""Lookups, confirmations, deadlines, pauses, epochs and dead letters, on a real database with the real ledger."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from core.services.on_call import dead_letters
from core.services.on_call.dead_letters import LetterFilter
from core.services.payments.cancel import cancel
from core.services.payments.confirm import confirm
from core.services.problems import Refusal
from core.services.settling import permits
from core.services.settling.rails import pause, resume
from core.services.settling.resolve import ResolverMemory, resolve_due
from core.services.settling.settle import Delivery
from core.store.settling import rails
from schemas.api import ConfirmRequest
from schemas.dead_letters import DeadLetter
from schemas.permits import Sending
from tests.integration.permits.conftest import RAIL, World, lookup_job, pay_job

PAID: dict[str, Any] = {"amount_minor": 100, "currency": "THB", "provider_tx_id": "T1"}


def found(world: World, intent: UUID, fee_minor: int = 0, expires_s: float = 300, **more: Any) -> Delivery:
    """Return the answer of a lookup."""
    lookup = {"lookup_id": "L1", "fee_minor": fee_minor, "expires_at": datetime.now(UTC) + timedelta(seconds=expires_s)}
    return world.fact(
        lookup_job(intent), "FOUND", kind="lookup", fence=0, basis="LOOKUP", lookup=lookup,
        payee_name_masked="So*** K.", **more
    )  # fmt: skip


async def test_a_looked_up_payee_is_paid_once_confirmed_and_its_lookup_is_closed(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    (read,) = await world.ask([lookup_job(intent)])
    assert (read.mode, read.fence, read.instruction.payee.value) == ("READ", 0, "0812345678")
    await world.settle(found(world, intent, fee_minor=5))
    assert (await world.state(intent))[0] == "AWAITING_CONFIRMATION"
    assert await world.money(wallet) == (1000, 0)
    request = ConfirmRequest(amount_minor=100, fee_minor=5, payee_name_masked="So*** K.")
    for _ in range(2):
        assert (await confirm(world.core.ports, world.caller, intent, request)).state == "AUTHORIZED"
    assert await world.money(wallet) == (1000, 105)
    assert (await world.job(lookup_job(intent)))["outcome"] == "confirmed"
    permit = await world.sent(intent)
    assert permit.instruction.lookup.lookup_id == "L1"
    await world.tell(pay_job(intent), "SUCCEEDED", **PAID)
    assert await world.money(wallet) == (895, 0)
    await world.prove()


@pytest.mark.parametrize("expires_s", [300, 100_000])
async def test_what_nobody_confirms_expires_with_its_lookup_or_its_deadline(world: World, expires_s: float) -> None:
    await world.register(lookup=True)
    intent = await world.pay(await world.wallet(1000))
    await world.settle(found(world, intent, expires_s=expires_s))
    assert await world.resolve() == 0
    await world.pass_time(601)
    await world.admin.execute(
        "UPDATE fleet.intents SET lookup = jsonb_set(lookup, '{expires_at}', to_jsonb((lookup->>'expires_at')"
        "::timestamptz - interval '601 seconds')) WHERE lookup IS NOT NULL"
    )
    with pytest.raises(Refusal, match="lookup"):
        await confirm(world.core.ports, world.caller, intent, ConfirmRequest(amount_minor=100, fee_minor=0))
    assert await world.resolve() == 1
    assert await world.state(intent) == ("EXPIRED", "confirmation_expired")
    await world.prove()


async def test_a_lookup_that_is_never_answered_expires_at_its_deadline(world: World) -> None:
    await world.register(lookup=True)
    intent = await world.pay(await world.wallet(1000))
    await world.pass_time(601)
    await world.resolve()
    assert await world.state(intent) == ("EXPIRED", "deadline_unsent")
    await world.prove()


@pytest.mark.parametrize(
    ("fee", "told", "state"),
    [(5, "somchai  KHAMDEE", "AUTHORIZED"), (6, "Somchai Khamdee", "AWAITING_CONFIRMATION"),
     (5, "Somchai Khamdii", "AWAITING_CONFIRMATION"), (5, None, "AWAITING_CONFIRMATION")],
)  # fmt: skip
async def test_a_confirmation_given_beforehand_holds_for_its_name_and_fee_alone(
    world: World, fee: int, told: str | None, state: str
) -> None:
    await world.register(lookup=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet, auto_confirm={"payee_name": "Somchai Khamdee", "max_fee_minor": 5})
    evidence: dict[str, Any] = {} if told is None else {"evidence_id": await world.keep_name(told)}
    await world.settle(found(world, intent, fee_minor=fee, **evidence))
    assert (await world.state(intent))[0] == state
    assert await world.money(wallet) == (1000, 105 if state == "AUTHORIZED" else 0)
    assert bool(await world.job(pay_job(intent))) == (state == "AUTHORIZED")
    await world.prove()


async def test_funds_that_are_gone_by_the_confirmation_fail_that_payment_alone(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.wallet(150)
    first, second = [await world.pay(wallet, auto_confirm={"max_fee_minor": 0}) for _ in range(2)]
    await world.settle(found(world, first), found(world, second))
    ended = {await world.state(first), await world.state(second)}
    assert ended == {("AUTHORIZED", None), ("FAILED", "insufficient_funds")}
    assert await world.money(wallet) == (150, 100)
    await world.prove()


async def test_a_doubt_is_asked_about_at_the_set_pace(world: World) -> None:
    await world.register(inquiry=True)
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    await world.tell(pay_job(intent), "PENDING")
    waits = []
    for _ in range(3):
        left = await world.admin.fetchval("SELECT next_check_at - now() FROM fleet.jobs WHERE kind = 'pay'")
        waits.append(round(left.total_seconds()))
        await world.check_now()
        await world.resolve()
        await world.answer_question(intent, "PENDING")
    assert waits == [5, 10, 20]


async def test_what_stays_open_is_parked_at_its_deadline_and_settles_later(world: World) -> None:
    await world.register(inquiry=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "UNKNOWN")
    await world.pass_time(10_000)
    for _ in range(2):
        await world.resolve()
        await world.check_now()
    assert (await world.state(intent))[0] == "UNRESOLVED"
    assert await world.alerts() == [("page", "unresolved")]
    assert await world.money(wallet) == (1000, 100)
    question = await world.admin.fetchval("SELECT min(id::text)::uuid FROM fleet.jobs WHERE kind = 'inquire'")
    await world.tell(question, "SUCCEEDED", kind="inquire", fence=0, basis="REFERENCE_STATUS", **PAID)
    assert (await world.state(intent))[0] == "SETTLED"
    closed = await world.admin.fetchrow(
        "SELECT closed_by, closed_because FROM fleet.alerts WHERE closed_at IS NOT NULL"
    )
    assert closed is not None
    assert tuple(closed) == ("core", "the payment has ended"), "nobody is left to decide anything about it"
    assert await world.money(wallet) == (900, 0)
    await world.prove()


async def test_waiting_is_not_failing_while_a_rail_is_paused(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    unsent, sent = await world.pay(wallet), await world.pay(wallet)
    await world.sent(sent)
    async with world.uow() as uow:
        assert await pause(uow, rails, RAIL, reason="maintenance")
    await world.admin.execute("UPDATE fleet.jobs SET busy_until = now()")
    answers = await world.ask([pay_job(unsent), pay_job(sent)])
    assert [answer.answer for answer in answers] == ["PAUSED", "GRANTED"]
    await world.pass_time(10_000)
    await world.admin.execute("UPDATE fleet.rail_pauses SET paused_at = paused_at - interval '10000 seconds'")
    await world.resolve()
    assert (await world.state(unsent))[0] == "AUTHORIZED"
    async with world.uow() as uow:
        assert await resume(uow, rails, RAIL) == 1
    await world.check_now()
    await world.resolve()  # it has just been seen open: adapters get I to catch up, and the pause was given back
    assert (await world.state(unsent))[0] == "AUTHORIZED"
    assert (await world.ask([pay_job(unsent)]))[0].answer == "GRANTED"


async def test_what_waited_for_a_paused_rail_gets_the_time_back(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    sent, waited = await world.pay(wallet), await world.pay(wallet)
    await world.sent(sent)
    async with world.uow() as uow:
        await rails.pause_rail(uow, RAIL, "*", "anna", "maintenance")
    await world.admin.execute(
        "UPDATE fleet.rail_pauses SET paused_at = paused_at - interval '100 seconds';"
        "UPDATE fleet.jobs SET created_at = created_at - interval '101 seconds'"
    )
    deadlines = (
        "SELECT i.deadline, j.deadline FROM fleet.intents i JOIN fleet.jobs j ON j.intent_id = i.id WHERE i.id = $1"
    )
    before = [tuple(*await world.admin.fetch(deadlines, each)) for each in (sent, waited)]
    async with world.uow() as uow:
        assert await rails.resume_rail(uow, RAIL, "*") == 1
    after = [tuple(*await world.admin.fetch(deadlines, each)) for each in (sent, waited)]
    gained_s = [
        [(b - a).total_seconds() for a, b in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)
    ]
    assert gained_s[0] == [0, 0]
    assert all(100 <= each < 130 for each in gained_s[1])


async def test_nothing_of_an_older_ledger_epoch_counts_as_unsent(world: World) -> None:
    await world.register(inquiry=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.admin.execute("INSERT INTO fleet.ledger_epochs (epoch, reason) VALUES (2, 'restored')")
    (answer,) = await world.ask([pay_job(intent)])
    assert answer.answer == "PAUSED"
    with pytest.raises(Refusal) as refused:
        await cancel(world.core.ports, world.caller, intent)
    assert refused.value.code == "already_sent"
    await world.pass_time(10_000)
    await world.resolve()
    # At its deadline a person is told, and the provider is asked: nothing of it is voided.
    assert (await world.state(intent))[0] == "UNRESOLVED"
    assert ("page", "unresolved") in await world.alerts()
    assert await world.money(wallet) == (1000, 100)
    await world.admin.execute("UPDATE fleet.ledger_epochs SET cleared_at = now()")
    await world.answer_question(intent, "UNKNOWN")
    await world.check_now()
    await world.resolve()
    assert (await world.state(intent))[0] == "UNRESOLVED", "unknown is no answer: it is asked again"
    await world.answer_question(intent, "NOT_FOUND")
    await world.check_now()
    await world.resolve()
    assert (await world.state(intent))[0] == "UNRESOLVED", "what was sent may be on its way there"
    await world.answer_question(intent, "NOT_FOUND")
    await world.admin.execute("UPDATE fleet.ledger_epochs SET raised_at = raised_at - interval '121 seconds'")
    await world.check_now()
    await world.resolve()
    assert await world.state(intent) == ("EXPIRED", "deadline_unsent")
    await world.prove()


async def test_a_lookup_of_an_older_ledger_epoch_may_have_been_paid_since(world: World) -> None:
    await world.register(lookup=True)
    wallet = await world.wallet(1000)
    refused, asked, withdrawn = [await world.pay(wallet, auto_confirm={"max_fee_minor": 0}) for _ in range(3)]
    shown = await world.pay(wallet)
    await world.settle(found(world, shown))
    await world.admin.execute("INSERT INTO fleet.ledger_epochs (epoch, reason) VALUES (2, 'restored')")
    lookup = {"kind": "lookup", "fence": 0, "basis": "LOOKUP"}
    await world.settle(world.fact(lookup_job(refused), "DECLINED", **lookup), found(world, asked))
    with pytest.raises(Refusal, match="restored"):
        await cancel(world.core.ports, world.caller, withdrawn)
    with pytest.raises(Refusal, match="restored"):
        await confirm(world.core.ports, world.caller, shown, ConfirmRequest(amount_minor=100, fee_minor=0))
    states = [(await world.state(each))[0] for each in (refused, asked, withdrawn, shown)]
    assert states == ["VALIDATED", "VALIDATED", "VALIDATED", "AWAITING_CONFIRMATION"]
    assert await world.money(wallet) == (1000, 0)
    await world.admin.execute("UPDATE fleet.ledger_epochs SET cleared_at = now()")
    assert (await cancel(world.core.ports, world.caller, withdrawn)).state == "CANCELLED"
    await world.pass_time(601)
    await world.check_now()
    await world.resolve()
    assert [await world.state(each) for each in (refused, asked)] == [("EXPIRED", "deadline_unsent")] * 2
    await world.prove()


async def test_a_lost_reply_burns_no_permit_and_another_account_gets_none(world: World) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    ours: dict[str, Any] = {"request": UUID(int=1), "incarnation": UUID(int=2)}
    answers = [(await world.ask([pay_job(intent)], **ours))[0] for _ in range(2)]
    assert [answer.fence for answer in answers] == [1, 1]
    assert [answer.first for answer in answers] == [True, True]
    (stranger,) = await world.ask([pay_job(intent)], request=ours["request"])
    assert stranger.answer == "BUSY"
    await world.pass_time(2)
    (late,) = await world.ask([pay_job(intent)], **ours)
    assert (late.fence, late.mode) == (1, "SEND")
    assert 0 < late.send_by_s <= 3, "what is left of S, not S again"
    await world.pass_time(3)
    (other,) = await world.ask([pay_job(intent)])
    assert other.answer == "BUSY"
    assert 0 < other.after_s <= 15
    await world.register(account="moved")
    await world.admin.execute("UPDATE fleet.jobs SET busy_until = now()")
    (moved,) = await world.ask([pay_job(intent)])
    assert moved.answer == "PAUSED"


def sending(number: int) -> dict[str, Any]:
    """One sending of an asking for permits."""
    return {"request": Sending(7, number).request_id, "incarnation": UUID(int=2)}


async def _negatives(world: World, job_id: UUID) -> list[bool]:
    told = "SELECT negative_at IS NOT NULL FROM fleet.attempts WHERE job_id = $1 ORDER BY fence"
    return [row[0] for row in await world.admin.fetch(told, job_id)]


async def test_who_asks_again_never_read_an_answer_so_a_lapsed_permit_is_replaced_by_one_to_send(world: World) -> None:
    # No provider that deduplicates: what may have been sent could only be asked about.
    await world.register(inquiry=True)
    wallet = await world.wallet(1000)
    intent, asked_anew = await world.pay(wallet), await world.pay(wallet)
    ids = [pay_job(intent), pay_job(asked_anew)]
    assert [(each.fence, each.first) for each in await world.ask(ids, **sending(1))] == [(1, True)] * 2
    await world.pass_time(6)
    for number in (2, 3):
        (again,) = await world.ask(ids[:1], **sending(number))
        assert (again.fence, again.mode, again.first) == (2, "SEND", False)
        assert 0 < again.send_by_s <= 5
    await world.pass_time(16)
    (anew,) = await world.ask(ids[1:])
    assert (anew.fence, anew.mode) == (2, "INQUIRE_ONLY"), "another asking says nothing about the first"
    assert [await _negatives(world, each) for each in ids] == [[True, False], [False, False]]
    await world.tell(ids[0], "SUCCEEDED", fence=2)
    assert (await world.state(intent))[0] == "SETTLED"


@pytest.mark.parametrize("told", [True, False], ids=["already told", "still being called"])
async def test_a_sending_that_arrives_behind_a_later_one_proves_nothing(world: World, told: bool) -> None:
    await world.register(inquiry=True)
    intent = await world.pay(await world.wallet(1000))
    job_id = pay_job(intent)
    await world.ask([job_id], **sending(1))
    (used,) = await world.ask([job_id], **sending(3))
    assert used.fence == 1, "read, and used"
    if told:
        await world.tell(job_id, "UNKNOWN")
    await world.pass_time(6)
    # The second sending, held up until now, and a copy of the third.
    for number in (2, 3):
        (late,) = await world.ask([job_id], **sending(number))
        assert late.answer in ("BUSY", "CLOSED")
    assert await _negatives(world, job_id) == [False]


async def test_what_was_accepted_for_one_environment_is_neither_sent_nor_asked_about_in_another(world: World) -> None:
    await world.register(inquiry=True)
    wallet = await world.wallet(1000)
    waiting, asked = await world.pay(wallet), await world.pay(wallet)
    assert (await world.sent(asked)).environment == "sandbox"
    await world.tell(pay_job(asked), "UNKNOWN")
    await world.check_now()
    await world.resolve()
    question = await world.admin.fetchval("SELECT id FROM fleet.jobs WHERE kind = 'inquire'")
    await world.register(inquiry=True, environment="production")
    answers = await world.ask([pay_job(waiting), question])
    assert [answer.answer for answer in answers] == ["PAUSED", "PAUSED"]
    await world.register(inquiry=True)
    answers = await world.ask([pay_job(waiting), question])
    assert [(answer.answer, answer.environment) for answer in answers] == [("GRANTED", "sandbox")] * 2


async def test_a_dead_letter_buries_its_job_and_the_resolver_goes_on(world: World) -> None:
    await world.register(inquiry=True)
    wallet = await world.wallet(1000)
    unsent, sent = await world.pay(wallet), await world.pay(wallet)
    await world.sent(sent)
    letters = [
        DeadLetter(job_id=pay_job(each), rail=RAIL, stream=f"{{{RAIL}}}:jobs", entry_id=f"{n}-0", error_class="poison",
                   fingerprint="f", message="it never parses", deliveries=3, body="{}")
        for n, each in enumerate((unsent, sent))
    ]  # fmt: skip
    store = world.core.worker_ports.letters
    for _ in range(2):
        async with world.uow() as uow:
            await dead_letters.receive(uow, store, letters)
    async with world.uow() as uow:
        verdicts = {view.job_id: view.verdict[0] for view in await store.list_letters(uow, LetterFilter(RAIL), 10)}
    assert verdicts == {pay_job(unsent): "SAFE", pay_job(sent): "INQUIRE_FIRST"}
    assert {(await world.job(pay_job(each)))["state"] for each in (unsent, sent)} == {"DEAD"}
    await world.resolve()
    await world.answer_question(sent, "SUCCEEDED", **PAID)
    assert (await world.state(sent))[0] == "SETTLED"
    await world.pass_time(10_000)
    await world.resolve()
    assert await world.state(unsent) == ("EXPIRED", "deadline_unsent")
    assert await world.money(wallet) == (900, 0)
    await world.prove()


async def test_a_payment_that_cannot_be_resolved_holds_up_no_other_and_is_alerted(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    bad, *good = [await world.pay(wallet) for _ in range(4)]
    # The ledger refuses to void a hold that has expired already: what a defect elsewhere would look like.
    await world.admin.execute(
        "INSERT INTO fleet.transfer_resolutions (pending_id, tenant_id, kind)"
        " SELECT id, tenant_id, 16 FROM fleet.transfers WHERE user_data = $1",
        bad,
    )
    await world.pass_time(10_000)
    await world.admin.execute(
        "UPDATE fleet.jobs SET deadline = deadline - interval '1 second' WHERE intent_id = $1", bad
    )
    assert await world.resolve() == 4
    assert [(await world.state(each))[0] for each in good] == ["EXPIRED"] * 3
    assert (await world.state(bad))[0] == "AUTHORIZED"
    assert await world.alerts() == [("page", "resolution_failed")]
    assert await world.resolve() == 0, "it comes again later, and not at once"


async def test_automatic_voids_stop_above_the_rate_of_all_resolvers_together(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intents = [await world.pay(wallet) for _ in range(6)]
    await world.pass_time(10_000)
    world.memory.voids_per_minute = 4
    other = ResolverMemory(4, dict(world.memory.open_since))
    steps = (resolve_due(world.core.worker_ports, world.uow, memory, 3) for memory in (world.memory, other))
    assert await asyncio.gather(*steps) == [3, 3]
    states = [(await world.state(intent))[0] for intent in intents]
    assert sorted(states) == ["AUTHORIZED"] * 2 + ["EXPIRED"] * 4
    assert await world.alerts() == [("page", "void_rate_exceeded")]
    await world.prove()


async def test_resolvers_settlers_permits_and_cancels_at_once_have_one_effect(world: World) -> None:
    await world.register(inquiry=True, deduplicates_reference=True)
    wallet = await world.wallet(10_000)
    intents = [await world.pay(wallet) for _ in range(40)]
    sent = intents[:20]
    for answer in await world.ask([pay_job(intent) for intent in sent]):
        assert answer.answer == "GRANTED"
    await world.settle(*[world.fact(pay_job(intent), "UNKNOWN") for intent in sent])
    await world.pass_time(10_000)
    outcomes = ("SUCCEEDED", "DECLINED")
    facts = [
        world.fact(
            pay_job(intent), outcomes[n % 2], reason="", **(PAID | {"provider_tx_id": f"T{n}"} if n % 2 == 0 else {})
        )
        for n, intent in enumerate(sent)
    ]

    async def cancelled(intent: UUID) -> None:
        with suppress(Refusal):  # whoever comes first
            await cancel(world.core.ports, world.caller, intent)

    await asyncio.gather(
        *(resolve_due(world.core.worker_ports, world.uow, ResolverMemory(600, dict(world.memory.open_since)), 15)
          for _ in range(4)),
        world.settle(*facts[:12]), world.settle(*reversed(facts[8:])),
        world.ask([pay_job(intent) for intent in intents]),
        *(cancelled(intent) for intent in intents[15:30:5]),
    )  # fmt: skip
    for _ in range(2):
        await world.check_now()
        await world.resolve()
    states = [(await world.state(intent))[0] for intent in intents]
    assert states[:20] == ["SETTLED", "FAILED"] * 10
    permitted = {
        row["intent_id"] for row in await world.admin.fetch("SELECT intent_id FROM fleet.jobs WHERE fence > 0")
    }
    for intent, state in zip(intents[20:], states[20:], strict=True):
        assert state in ({"UNRESOLVED"} if intent in permitted else {"EXPIRED", "CANCELLED"})
    posted, held = await world.money(wallet)
    assert posted == 10_000 - 1000
    assert held == 100 * states.count("UNRESOLVED")
    await world.prove()


async def test_a_request_that_waits_for_a_job_keeps_none_from_who_holds_that_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    jobs = sorted([pay_job(await world.pay(wallet)) for _ in range(2)])
    monkeypatch.setattr(permits, "_PAUSES_S", (0.01,) * 5000)
    lock = "SELECT FROM fleet.jobs WHERE id = $1 FOR UPDATE"
    # A relay in the middle of its batch: one is noted, the other it comes to while the adapter asks for both.
    async with world.uow() as marking:
        await marking.connection.fetch(lock, jobs[0])
        asking = asyncio.create_task(world.ask(jobs))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(20):
            await marking.connection.fetch(lock, jobs[1])
        assert not asking.done()
    assert [answer.answer for answer in await asking] == ["GRANTED"] * 2


async def test_a_job_that_another_transaction_holds_for_a_moment_is_granted_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    brief, long = await world.pay(wallet), await world.pay(wallet)
    monkeypatch.setattr(permits, "_PAUSES_S", (0.01,) * 500)
    async with world.uow() as marking:
        await marking.connection.fetch("SELECT FROM fleet.jobs WHERE id = $1 FOR UPDATE", pay_job(brief))
        asking = asyncio.create_task(world.ask([pay_job(brief)]))
        await asyncio.sleep(0.1)
        assert not asking.done()
    (answer,) = await asking
    assert (answer.answer, answer.mode) == ("GRANTED", "SEND")
    monkeypatch.setattr(permits, "_PAUSES_S", (0.001, 0.001))
    async with world.uow() as holding:
        await holding.connection.fetch("SELECT FROM fleet.jobs WHERE id = $1 FOR UPDATE", pay_job(long))
        (answer,) = await world.ask([pay_job(long)])
    assert answer.answer == "BUSY"
