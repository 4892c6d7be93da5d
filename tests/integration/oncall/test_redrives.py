"""Redrives on real rows: what is safe goes again once, what is not waits or is refused; every step is journalled."""

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.services.access.keys import Caller
from core.services.on_call.audit import AuditFilter, prove
from core.services.on_call.redrives import ask_redrive, cancel_redrive, reject_redrive, show_redrive
from core.services.on_call.run_redrives import run_redrives
from core.services.problems import Refusal
from core.services.settling.close_job import RACES
from core.services.settling.settle import settle_batch
from core.services.settling.settle_by_hand import approve, ask_settlement
from schemas.on_call import HandSettlementRequest, RedriveRequest, RedriveView
from tests.integration.oncall.conftest import bury
from tests.integration.permits.conftest import World, pay_job

SCOPES = frozenset({"DEAD_LETTERS", "REDRIVE_APPROVAL", "AUDIT"})
FAST: dict[str, Any] = {"canary": 0, "ramp_s": 0, "rate_per_s": 5000, "dry_run": False}


def person(world: World, name: str) -> Caller:
    """Return a key of the world's tenant that belongs to somebody."""
    return replace(world.caller, key_id=name, operations=SCOPES)


async def ask(world: World, who: str = "anna", **asked: Any) -> RedriveView:
    body = {"selection": {"error_class": "poison"}, "reason": "the gateway is back", "incident": "INC-1"} | asked
    return await ask_redrive(world.core.worker_ports, person(world, who), RedriveRequest.model_validate(body))


async def run(world: World) -> int:
    # The ramp is a matter of milliseconds here: the first turn only begins it.
    await run_redrives(world.core.worker_ports, world.uow)
    await asyncio.sleep(0.02)
    return await run_redrives(world.core.worker_ports, world.uow)


async def shown(world: World, redrive_id: UUID) -> RedriveView:
    async with world.uow() as uow:
        return await show_redrive(uow, world.core.worker_ports, person(world, "anna"), redrive_id)


async def dead(world: World, count: int, **more: Any) -> list[UUID]:
    """Make payments whose jobs died before any permit; return the intents."""
    wallet = await world.wallet(10_000)
    intents = [await world.pay(wallet) for _ in range(count)]
    await bury(world, *intents, **more)
    return intents


async def test_a_dry_run_counts_all_that_match_and_changes_nothing(world: World) -> None:
    never = await dead(world, 3)
    doubtful = await world.pay(await world.wallet(1000))
    await world.sent(doubtful)
    await bury(world, doubtful, error_class="timeouts")
    view = await ask(world, selection={"operation": "PAYOUT"})
    assert (view.state, view.total, view.needs_approval) == ("DRY_RUN", 4, True)
    assert view.verdicts == {"SAFE": 3, "INQUIRE_FIRST": 1}
    assert not (await ask(world)).needs_approval
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.redrives") == 0
    assert {(await world.job(pay_job(intent)))["state"] for intent in [*never, doubtful]} == {"DEAD"}


async def test_what_was_never_sent_goes_again_once_and_ends_the_redrive(world: World) -> None:
    intents = await dead(world, 3)
    view = await ask(world, **FAST)
    assert (view.state, view.total, view.verdicts) == ("RUNNING", 3, {"SAFE": 3})
    await run(world)
    for intent in intents:
        job = await world.job(pay_job(intent))
        assert (job["state"], job["failures"]) == ("READY", 0)
        permit = await world.sent(intent)
        assert (permit.mode, permit.fence) == ("SEND", 1)
        await world.tell(pay_job(intent), "SUCCEEDED")
    assert await run(world) == 0
    done = await shown(world, view.id)
    assert (done.state, done.progress.succeeded, done.progress.waiting) == ("DONE", 3, 0)
    assert [(await world.state(intent))[0] for intent in intents] == ["SETTLED"] * 3
    await world.prove()
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.dead_letters WHERE state = 'REDRIVEN'") == 3


async def test_a_doubt_waits_for_a_second_person_and_is_asked_about_before_anything_is_sent(world: World) -> None:
    await world.register(inquiry=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await bury(world, intent)
    view = await ask(world, **FAST)
    assert (view.state, view.verdicts) == ("AWAITING_APPROVAL", {"INQUIRE_FIRST": 1})
    assert await run(world) == 0
    ports = world.core.worker_ports
    with pytest.raises(Refusal, match="another person"):
        await approve(ports, person(world, "anna"), view.id, "")
    approved = await approve(ports, person(world, "ben"), view.id, "checked with the provider")
    assert (approved.state, approved.decided_by) == ("RUNNING", "key:ben")
    assert (await approve(ports, person(world, "ben"), view.id, "")).state == "RUNNING"
    await run(world)
    await world.admin.execute("UPDATE fleet.jobs SET busy_until = now()")
    (permit,) = await world.ask([pay_job(intent)])
    assert permit.mode == "INQUIRE_ONLY"


async def test_a_redrive_of_many_waits_for_a_second_person_and_a_rejected_one_frees_its_letters(world: World) -> None:
    await dead(world, 3)
    ports = replace(world.core.worker_ports, approval_above=2)
    body = RedriveRequest.model_validate(
        {"selection": {"error_class": "poison"}, "reason": "again", "incident": "INC-1", **FAST}
    )
    view = await ask_redrive(ports, person(world, "anna"), body)
    assert (view.state, view.needs_approval) == ("AWAITING_APPROVAL", True)
    async with world.uow() as uow:
        await reject_redrive(uow, ports, person(world, "ben"), view.id, "not yet")
    rejected = await shown(world, view.id)
    assert (rejected.state, rejected.progress.released) == ("REJECTED", 3)
    assert (await ask(world, **FAST)).total == 3


async def test_two_people_at_once_have_one_effect(world: World) -> None:
    intents = await dead(world, 5)
    answers = await asyncio.gather(
        *(ask(world, who, **FAST) for who in ("anna", "ben", "carl", "dora")), return_exceptions=True
    )
    started = [each for each in answers if isinstance(each, RedriveView)]
    refused = [each for each in answers if isinstance(each, Refusal)]
    assert (len(started), len(refused)) == (1, 3)
    assert {each.code for each in refused} == {"nothing_selected"}
    await asyncio.gather(*(run(world) for _ in range(3)))
    for intent in intents:
        assert (await world.job(pay_job(intent)))["rounds"] == 1
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.outbox WHERE round = 1") == 5


async def test_a_repeated_request_is_the_same_redrive(world: World) -> None:
    await dead(world, 2)
    name = str(uuid4())
    first, again = [await ask(world, id=name, **FAST) for _ in range(2)]
    assert first.id == again.id
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.redrives") == 1


@pytest.mark.parametrize(
    "other",
    [{"selection": {"error_class": "timeouts"}}, {"action": "DISCARD"}, {"canary": 3}, {"incident": "INC-2"}],
    ids=lambda other: next(iter(other)),
)
async def test_a_known_id_with_other_terms_is_refused_and_changes_nothing(world: World, other: dict[str, Any]) -> None:
    (intent,) = await dead(world, 1)
    name = str(uuid4())
    await ask(world, id=name, **FAST)
    before = dict(await world.admin.fetchrow("SELECT * FROM fleet.redrives") or {})
    for dry_run in (True, False):
        with pytest.raises(Refusal, match=next(iter(other))) as refused:
            await ask(world, id=name, **FAST | other | {"dry_run": dry_run})
        assert (refused.value.code, refused.value.field) == ("idempotency_conflict", "id")
    settlement = HandSettlementRequest.model_validate(
        {"id": name, "intent_id": str(intent), "outcome": "UNPAID", "evidence": "the register of today: nothing"}
        | {"reason": "never sent", "incident": "INC-1"}
    )
    with pytest.raises(Refusal, match="another action"):
        await ask_settlement(world.core.worker_ports, person(world, "anna"), settlement)
    assert dict(await world.admin.fetchrow("SELECT * FROM fleet.redrives") or {}) == before


async def test_the_counts_of_a_redrive_are_those_of_its_letters_whoever_changes_them(world: World) -> None:
    await dead(world, 5)
    view = await ask(world, **FAST | {"canary": 2})
    await run(world)
    assert (view.progress.waiting, (await shown(world, view.id)).progress.sent) == (5, 2)
    for state in ("SUCCEEDED", "FAILED", "SKIPPED", "RELEASED"):
        await world.admin.execute(
            "UPDATE fleet.redrive_items SET state = $1 WHERE letter_id ="
            " (SELECT letter_id FROM fleet.redrive_items WHERE state IN ('WAITING', 'SENT') ORDER BY place LIMIT 1)",
            state,
        )
        counted = await world.admin.fetch(
            "SELECT lower(state) AS state, count(*) AS n FROM fleet.redrive_items GROUP BY 1"
        )
        kept = (await shown(world, view.id)).progress.model_dump()
        assert {name: n for name, n in kept.items() if n} == {row["state"]: row["n"] for row in counted}


async def test_the_verdict_is_taken_again_where_it_is_acted_upon(world: World) -> None:
    ended, sent = await dead(world, 2)
    view = await ask(world, **FAST)
    await world.admin.execute("UPDATE fleet.intents SET state = 'CANCELLED' WHERE id = $1", ended)
    await world.admin.execute("UPDATE fleet.jobs SET fence = 1 WHERE id = $1", pay_job(sent))
    await world.admin.execute(
        "INSERT INTO fleet.attempts (job_id, fence, tenant_id, mode, reference, provider_account, environment,"
        " service_key_id, incarnation, request_id) SELECT id, 1, tenant_id, 'SEND', reference, provider_account,"
        " environment, 'k', gen_random_uuid(), gen_random_uuid() FROM fleet.jobs WHERE id = $1",
        pay_job(sent),
    )
    await run(world)
    await run(world)
    done = await shown(world, view.id)
    assert (done.state, done.progress.skipped) == ("DONE", 2)
    details = await world.admin.fetch("SELECT verdict, detail FROM fleet.redrive_items ORDER BY verdict")
    assert [row["verdict"] for row in details] == ["INQUIRE_FIRST", "REFUSED"]
    assert "nobody approved that" in details[0]["detail"]
    assert (await world.job(pay_job(sent)))["state"] == "DEAD"


async def test_the_canary_goes_alone_and_its_failure_stops_the_rest(world: World) -> None:
    intents = await dead(world, 10)
    view = await ask(world, **FAST | {"canary": 2})
    await run(world)
    await run(world)
    went = [intent for intent in intents if (await world.job(pay_job(intent)))["state"] == "READY"]
    assert len(went) == 2, "nobody goes on before the canary's outcome is known"
    await bury(world, went[0], message="poison again")
    await world.sent(went[1])
    await world.tell(pay_job(went[1]), "SUCCEEDED")
    await run(world)
    stopped = await shown(world, view.id)
    assert (stopped.state, stopped.progress.released, stopped.progress.failed) == ("STOPPED", 8, 1)
    assert "1 of 2" in stopped.ended_because
    # What was given back is open, and so is the letter of the one that died again.
    assert (await ask(world)).total == 9


async def test_a_canary_that_lives_lets_the_rest_go(world: World) -> None:
    intents = await dead(world, 6)
    view = await ask(world, **FAST | {"canary": 1})
    await run(world)
    (first,) = [intent for intent in intents if (await world.job(pay_job(intent)))["state"] == "READY"]
    await world.sent(first)
    await world.tell(pay_job(first), "DECLINED", reason="payee_not_found")
    await run(world)
    await run(world)
    assert (await shown(world, view.id)).progress.waiting == 0
    assert sum([(await world.job(pay_job(intent)))["state"] == "READY" for intent in intents]) == 5


async def test_a_cancelled_redrive_acts_on_nothing_more(world: World) -> None:
    intents = await dead(world, 4)
    view = await ask(world, **FAST | {"canary": 1})
    await run(world)
    async with world.uow() as uow:
        await cancel_redrive(uow, world.core.worker_ports, person(world, "ben"), view.id, "wrong incident")
    assert await run(world) == 0
    assert (await shown(world, view.id)).progress.released == 3
    assert sum([(await world.job(pay_job(intent)))["state"] == "DEAD" for intent in intents]) == 3


async def test_an_answer_that_could_not_be_used_counts_once_it_can(world: World) -> None:
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.tell(pay_job(intent), "SUCCEEDED", provider_tx_id="T1")
    assert (await world.state(intent))[0] == "AUTHORIZED"
    view = await ask(world, selection={"error_class": "attempt_missing"}, **FAST)
    assert view.verdicts == {"SAFE": 1}
    await run(world)
    assert (await shown(world, view.id)).progress.failed == 1
    # The permit that was missing is there, as after a replica that lagged.
    await world.sent(intent)
    again = await ask(world, selection={"error_class": "attempt_missing"}, **FAST)
    await run(world)
    await run(world)
    assert (await shown(world, again.id)).state == "DONE"
    assert (await world.state(intent))[0] == "SETTLED"
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.facts WHERE applied_at IS NULL") == 0
    assert await world.money(wallet) == (900, 0)
    await world.prove()


async def test_a_paid_result_that_failed_to_settle_blocks_every_void_until_it_is_booked(world: World) -> None:
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    paid = world.fact(pay_job(intent), "SUCCEEDED", provider_tx_id="T1")
    settled = await settle_batch(world.core.worker_ports, world.losing(RACES), [paid])
    assert [error for _, error in settled.unusable] == ["settlement_failed"]
    async with world.uow() as uow:
        assert await world.core.worker_ports.facts.unapplied_positives(uow, [intent]) == {intent}
    await world.tell(pay_job(intent), "DECLINED", reason="refused")
    assert ((await world.state(intent))[0], await world.money(wallet)) == ("AUTHORIZED", (1000, 100))
    view = await ask(world, selection={"error_class": "settlement_failed"}, **FAST)
    assert view.verdicts == {"SAFE": 1}
    await run(world)
    await run(world)
    assert (await shown(world, view.id)).progress.succeeded == 1
    assert await world.state(intent) == ("SETTLED", None)
    assert await world.money(wallet) == (900, 0)
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.facts WHERE applied_at IS NULL") == 0
    await world.prove()


async def test_a_discard_needs_a_second_person_and_leaves_the_job_to_its_deadline(world: World) -> None:
    (intent,) = await dead(world, 1)
    view = await ask(world, action="DISCARD", **FAST)
    assert view.state == "AWAITING_APPROVAL"
    await approve(world.core.worker_ports, person(world, "ben"), view.id, "")
    await run(world)
    await run(world)
    assert (await shown(world, view.id)).state == "DONE"
    assert await world.admin.fetchval("SELECT state FROM fleet.dead_letters") == "CLOSED"
    assert (await world.job(pay_job(intent)))["state"] == "DEAD"
    await world.pass_time(10_000)
    await world.resolve()
    assert await world.state(intent) == ("EXPIRED", "deadline_unsent")


def by_hand(intent: UUID, outcome: str, **more: Any) -> HandSettlementRequest:
    body = {"intent_id": intent, "outcome": outcome, "evidence": "line 7 of the register of 2026-11-21"}
    return HandSettlementRequest.model_validate(
        body | {"reason": "the provider told us by phone", "incident": "INC-2"} | more
    )


@pytest.mark.parametrize(
    ("outcome", "state", "money"), [("PAID", "SETTLED", (900, 0)), ("UNPAID", "FAILED", (1000, 0))]
)
async def test_a_payment_is_settled_by_hand_by_two_people_and_their_evidence(
    world: World, outcome: str, state: str, money: tuple[int, int]
) -> None:
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    ports = world.core.worker_ports
    asked = by_hand(intent, outcome, **({"provider_tx_id": "T9"} if outcome == "PAID" else {}))
    view = await ask_settlement(ports, person(world, "anna"), asked)
    assert view.state == "AWAITING_APPROVAL"
    assert await world.money(wallet) == (1000, 100)
    with pytest.raises(Refusal) as running:
        await approve(ports, person(world, "ben"), view.id, "")
    assert running.value.code == "permit_running"
    await world.admin.execute("UPDATE fleet.jobs SET busy_until = now()")
    with pytest.raises(Refusal) as own:
        await approve(ports, person(world, "anna"), view.id, "")
    assert own.value.code == "redrive_own"
    assert (await approve(ports, person(world, "ben"), view.id, "seen")).state == "DONE"
    assert (await world.state(intent))[0] == state
    proven = "SELECT negative_at IS NOT NULL FROM fleet.attempts"
    assert await world.admin.fetchval(proven) is (outcome == "UNPAID"), "as its story and its letter tell people"
    assert await world.money(wallet) == money
    await world.prove()
    sealed = await world.admin.fetchval("SELECT ciphertext FROM fleet.evidence WHERE id = $1", view.evidence_id)
    assert b"register" not in sealed


async def test_what_a_fact_calls_paid_is_not_settled_as_unpaid(world: World) -> None:
    intent = await world.pay(await world.wallet(1000))
    await world.tell(pay_job(intent), "SUCCEEDED")
    ports = world.core.worker_ports
    view = await ask_settlement(ports, person(world, "anna"), by_hand(intent, "UNPAID"))
    with pytest.raises(Refusal, match="says that it was paid"):
        await approve(ports, person(world, "ben"), view.id, "")


async def test_another_tenant_s_letters_are_neither_counted_nor_touched(world: World) -> None:
    await dead(world, 2)
    stranger = replace(person(world, "eve"), tenant_id=uuid4())
    asked = {"selection": {"error_class": "poison"}, "reason": "mine", "incident": "INC-3"}
    ports = world.core.worker_ports
    assert (await ask_redrive(ports, stranger, RedriveRequest.model_validate(asked))).total == 0
    with pytest.raises(Refusal) as nothing:
        await ask_redrive(ports, stranger, RedriveRequest.model_validate(asked | {"dry_run": False}))
    assert nothing.value.code == "nothing_selected"
    operator = replace(stranger, tenant_id=UUID(int=0))
    assert (await ask_redrive(ports, operator, RedriveRequest.model_validate(asked))).total == 2


async def test_the_journal_tells_who_asked_who_approved_and_what_was_done(world: World) -> None:
    await dead(world, 2)
    ports = replace(world.core.worker_ports, approval_above=1)
    body = {"selection": {"error_class": "poison"}, "reason": "again", "incident": "INC-9", **FAST}
    view = await ask_redrive(ports, person(world, "anna"), RedriveRequest.model_validate(body))
    await approve(ports, person(world, "ben"), view.id, "fine")
    await run(world)
    async with world.uow() as uow:
        entries = await ports.journal.page(uow, AuditFilter(subject=f"redrive:{view.id}"), None, 20)
    told = [(entry.action, entry.actor) for entry in reversed(entries)]
    assert told == [
        ("redrive_asked", "key:anna"),
        ("redrive_approved", "key:ben"),
        ("redrive_canary_passed", "core"),
        ("redrive_acted", "core"),
    ]
    assert "INC-9" in entries[-1].data
    async with world.uow() as uow:
        assert (await prove(uow, ports.journal, None)).faults == []
