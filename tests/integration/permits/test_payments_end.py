"""How a payment ends: every proof, on a real database with the real ledger and vault."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest

from core.services.settling.settle import settle_batch
from tests.integration.permits.conftest import H_S, World, lookup_job, pay_job
from tests.support.waiting import PATIENCE_S

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
PAID: dict[str, Any] = {"amount_minor": 100, "currency": "THB", "provider_tx_id": "T1"}


async def test_a_success_posts_the_hold_once_whatever_is_repeated(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    permit = await world.sent(intent)
    assert permit.instruction.payee.value == "0812345678"
    assert (permit.mode, permit.first, permit.fence) == ("SEND", True, 1)
    assert await world.money(wallet) == (1000, 100)
    for _ in range(2):
        await world.tell(pay_job(intent), "SUCCEEDED", **PAID)
        assert await world.state(intent) == ("SETTLED", None)
        assert await world.money(wallet) == (900, 0)
    await world.tell(pay_job(intent), "DECLINED", reason="late")
    assert await world.state(intent) == ("SETTLED", None)
    assert await world.alerts() == [("page", "failure_after_success")]
    (closed,) = await world.ask([pay_job(intent)])
    assert (closed.answer, closed.reason) == ("CLOSED", "SUCCEEDED")
    await world.prove()


async def test_a_refusal_of_the_only_permit_releases_the_hold(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "DECLINED", reason="account_closed")
    assert await world.state(intent) == ("FAILED", "account_closed")
    assert await world.money(wallet) == (1000, 0)
    await world.prove()


async def test_a_refusal_of_one_of_two_permits_waits_for_the_other(world: World) -> None:
    await world.register(deduplicates_reference=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    assert (await world.sent(intent)).fence == 2
    await world.tell(pay_job(intent), "DECLINED", fence=2, reason="refused")
    assert (await world.state(intent))[0] == "AUTHORIZED"
    assert await world.money(wallet) == (1000, 100)
    await world.tell(pay_job(intent), "DECLINED", fence=1, reason="refused")
    assert await world.state(intent) == ("FAILED", "refused")
    await world.prove()


@pytest.mark.parametrize("mixed", [True, False])
async def test_what_ends_in_one_batch_keeps_each_its_own_transaction_and_its_own_reason(
    world: World, mixed: bool
) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intents = [await world.pay(wallet) for _ in range(4)]
    for intent in intents:
        await world.sent(intent)
    told = [world.fact(pay_job(intent), "SUCCEEDED", **(PAID | {"provider_tx_id": transaction}))
            for intent, transaction in zip(intents, ("T2", None, "T1"), strict=False)]  # fmt: skip
    refused = world.fact(pay_job(intents[3]), "DECLINED", reason="account_closed")
    for batch in [[*reversed(told), refused]] if mixed else [[*reversed(told)], [refused]]:
        assert (await world.settle(*batch)).unusable == []
    rows = await world.admin.fetch(
        "SELECT i.state, i.decision, i.provider_reference, i.failure_code, e.type, e.state AS told, e.data::text,"
        " j.outcome FROM fleet.intents i JOIN fleet.intent_events e ON e.intent_id = i.id AND e.seq = i.version"
        " JOIN fleet.jobs j ON j.intent_id = i.id ORDER BY i.id"
    )
    assert [tuple(row) for row in rows] == [
        *(
            ("SETTLED", "POST", transaction, None, "settled", "SETTLED", "{}", "SUCCEEDED")
            for transaction in ("T2", None, "T1")
        ),
        (
            "FAILED",
            "VOID",
            None,
            "account_closed",
            "failed",
            "FAILED",
            '{"reason": "account_closed"}',
            "account_closed",
        ),
    ]
    await world.prove()


@pytest.mark.parametrize("final", [True, False])
async def test_a_status_of_the_reference_releases_only_where_the_provider_means_it(world: World, final: bool) -> None:
    await world.register(inquiry=True, negative_is_final_for_reference=final)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "UNKNOWN")
    await world.check_now()
    assert await world.resolve() == 1
    await world.answer_question(intent, "DECLINED", reason="expired_there")
    assert await world.state(intent) == (("FAILED", "expired_there") if final else ("AUTHORIZED", None))
    assert await world.money(wallet) == (1000, 0 if final else 100)
    await world.prove()


@pytest.mark.parametrize("expiry", [True, False])
async def test_not_found_counts_after_the_horizon_and_only_with_an_expiry(world: World, expiry: bool) -> None:
    await world.register(inquiry=True, request_expiry=expiry)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "UNKNOWN")
    await world.check_now()
    await world.resolve()
    await world.answer_question(intent, "NOT_FOUND")
    assert (await world.state(intent))[0] == "AUTHORIZED"
    await world.pass_time(H_S + 1)
    await world.check_now()
    await world.resolve()
    await world.answer_question(intent, "NOT_FOUND")
    assert await world.state(intent) == (("FAILED", "not_found") if expiry else ("AUTHORIZED", None))
    assert await world.money(wallet) == (1000, 0 if expiry else 100)
    await world.prove()


async def test_a_not_found_that_waited_in_the_stream_for_longer_than_the_horizon_proves_nothing(world: World) -> None:
    await world.register(inquiry=True, request_expiry=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    assert (await world.sent(intent)).mode == "INQUIRE_ONLY"
    await world.tell(pay_job(intent), "UNKNOWN")
    await world.check_now()
    await world.resolve()
    await world.pass_time(H_S + 1)
    await world.tell(pay_job(intent), "NOT_FOUND", fence=2, basis="REFERENCE_STATUS")
    await world.answer_question(intent, "NOT_FOUND")
    assert await world.state(intent) == ("AUTHORIZED", None)
    await world.tell(pay_job(intent), "SUCCEEDED")
    assert await world.state(intent) == ("SETTLED", None)
    await world.prove()


async def test_a_tombstone_precedes_the_void_where_not_found_is_no_proof(world: World) -> None:
    await world.register(inquiry=True, cancel_by_reference=True, deduplicates_reference=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "UNKNOWN")
    await world.check_now()
    await world.resolve()
    await world.pass_time(H_S + 1)
    await world.answer_question(intent, "NOT_FOUND")
    await world.check_now()
    await world.resolve()
    tombstone = await world.admin.fetchval("SELECT id FROM fleet.jobs WHERE kind = 'cancel'")
    (asked,) = await world.ask([tombstone])
    assert (asked.mode, asked.fence) == ("READ", 0)
    assert asked.instruction.target_reference == (await world.job(pay_job(intent)))["reference"]
    await world.answer_question(intent, "CANCELLED", kind="cancel", reason="cancelled_there")
    assert await world.state(intent) == ("FAILED", "withdrawn")
    assert await world.money(wallet) == (1000, 0)
    await world.prove()


async def test_money_that_proves_paid_after_a_void_rests_in_suspense_with_one_alert(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "DECLINED", reason="refused")
    for _ in range(2):
        await world.tell(pay_job(intent), "SUCCEEDED", **PAID)
    assert await world.state(intent) == ("FAILED", "refused")
    assert await world.money(wallet) == (1000, 0)
    assert await world.admin.fetchval("SELECT sum(debits_posted) FROM fleet.accounts WHERE code = 4") == 100
    assert await world.alerts() == [("page", "success_after_void")]
    await world.prove()


async def test_a_void_and_the_payment_that_comes_too_late_for_it_in_one_batch_are_told_in_that_order(
    world: World,
) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    job = pay_job(intent)
    await world.settle(world.fact(job, "DECLINED", reason="refused"), world.fact(job, "SUCCEEDED", **PAID))
    rows = await world.admin.fetch(
        "SELECT type, state FROM fleet.intent_events WHERE intent_id = $1 ORDER BY seq DESC LIMIT 2", intent
    )
    assert [tuple(row) for row in rows] == [("paid_after_void", "FAILED"), ("failed", "FAILED")]
    assert await world.money(wallet) == (1000, 0)
    assert await world.admin.fetchval("SELECT sum(debits_posted) FROM fleet.accounts WHERE code = 4") == 100
    await world.prove()


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("void", [True, False])
async def test_a_second_transaction_of_one_payment_is_told_apart_from_the_first_and_kept(
    world: World, void: bool, together: bool
) -> None:
    await world.register(deduplicates_reference=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    for fence in (1, 2, 3):
        assert (await world.sent(intent)).fence == fence
    if void:
        for fence in (1, 2, 3):
            await world.tell(pay_job(intent), "DECLINED", fence=fence, reason="refused")
    told = [
        world.fact(pay_job(intent), "SUCCEEDED", fence=fence, **(PAID | {"provider_tx_id": transaction}))
        for fence, transaction in ((1, "T1"), (2, "T1"), (3, "T2"))
    ]
    for batch in [told] if together else [[each] for each in told]:
        await world.settle(*batch)
    assert (await world.state(intent))[0] == ("FAILED" if void else "SETTLED")
    assert await world.alerts() == [("page", "success_after_void")] * void + [("page", "second_transaction")]
    last = await world.admin.fetch(
        "SELECT i.provider_reference, e.type, e.state FROM fleet.intents i"
        " JOIN fleet.intent_events e ON e.intent_id = i.id AND e.seq = i.version WHERE i.id = $1",
        intent,
    )
    assert [tuple(row) for row in last] == [
        ("T1", "paid_after_void", "FAILED") if void else ("T1", "settled", "SETTLED")
    ]
    suspense = await world.admin.fetchval("SELECT coalesce(sum(debits_posted), 0) FROM fleet.accounts WHERE code = 4")
    assert suspense == (100 if void else 0)
    unapplied = "SELECT quarantine FROM fleet.facts WHERE intent_id = $1 AND applied_at IS NULL"
    assert await world.admin.fetchval(unapplied, intent) == "second_transaction"
    await world.prove()


async def test_not_sent_comes_again_under_its_reference_until_the_deadline(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    first = await world.sent(intent)
    await world.admin.execute("DELETE FROM fleet.outbox")
    await world.tell(pay_job(intent), "NOT_SENT", retry_after_s=3, reason="connect_failed")
    job = await world.job(pay_job(intent))
    assert (job["state"], job["failures"]) == ("READY", 1)
    delay = await world.admin.fetchval("SELECT not_before - now() FROM fleet.outbox WHERE job_id = $1", job["id"])
    assert 0 < delay.total_seconds() <= 3
    (early,) = await world.ask([job["id"]])
    assert (early.answer, early.reason) == ("CLOSED", "rescheduled")
    await world.pass_time(4)
    second = await world.sent(intent)
    assert (second.reference, second.fence, second.mode) == (first.reference, 2, "SEND")
    await world.pass_time(10_000)
    await world.tell(pay_job(intent), "NOT_SENT", fence=2, retry_after_s=3)
    assert (await world.state(intent))[0] == "FAILED"
    assert await world.money(wallet) == (1000, 0)
    await world.prove()


@pytest.mark.parametrize(
    ("changed", "kind"),
    [({"amount_minor": 99}, "amount_differs"), ({"currency": "USD"}, "currency_differs"),
     ({"reference": "ANOTHERREFERENCE1"}, "reference_differs")],
)  # fmt: skip
async def test_a_success_about_other_money_is_quarantined_and_blocks_every_void(
    world: World, changed: dict[str, Any], kind: str
) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", **(PAID | changed))
    await world.tell(pay_job(intent), "DECLINED", reason="refused")
    assert (await world.state(intent))[0] == "AUTHORIZED"
    assert await world.money(wallet) == (1000, 100)
    assert await world.alerts() == [("page", kind)]
    await world.pass_time(10_000)
    await world.resolve()
    assert (await world.state(intent))[0] == "UNRESOLVED"
    await world.prove()


async def test_a_return_that_could_not_be_used_says_that_it_was_paid_and_blocks_every_void(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "RETURNED", amount_minor=101)
    await world.tell(pay_job(intent), "DECLINED", reason="refused")
    assert (await world.state(intent))[0] == "AUTHORIZED"
    assert await world.money(wallet) == (1000, 100)
    assert await world.alerts() == [("page", "amount_differs")]


async def test_another_transaction_under_the_same_key_is_quarantined(world: World) -> None:
    await world.register()
    intent = await world.pay(await world.wallet(1000))
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", **PAID)
    await world.tell(pay_job(intent), "SUCCEEDED", **(PAID | {"provider_tx_id": "T2"}))
    assert await world.alerts() == [("page", "same_fact_other_money")]
    unapplied = await world.admin.fetchval("SELECT quarantine FROM fleet.facts WHERE applied_at IS NULL")
    assert unapplied == "same_fact_other_money"


async def test_unusable_results_become_dead_letters_and_their_neighbours_settle(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    paid, unsent, foreign = [await world.pay(wallet) for _ in range(3)]
    await world.sent(paid)
    batch = [
        world.fact(pay_job(unsent), "SUCCEEDED", **PAID),
        world.fact(pay_job(foreign), "DECLINED", rail="otherrail"),
        world.fact(pay_job(paid), "SUCCEEDED", **PAID),
        world.fact(world.caller.tenant_id, "DECLINED"),
    ]
    settled = await world.settle(*batch)
    assert [error for _, error in settled.unusable] == ["attempt_missing", "rail_differs", "job_unknown"]
    assert len(settled.acked) == 4
    assert (await world.state(paid))[0] == "SETTLED"
    assert await world.money(wallet) == (900, 200)
    # What claims to be paid without a permit is never voided, not even unsent at the deadline.
    await world.pass_time(10_000)
    await world.resolve()
    assert (await world.state(unsent))[0] == "AUTHORIZED"
    assert await world.state(foreign) == ("EXPIRED", "deadline_unsent")
    await world.prove()


@pytest.mark.parametrize("together", [True, False])
async def test_a_paid_that_is_unusable_blocks_every_void_also_in_its_own_batch(world: World, together: bool) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    foreign = world.fact(pay_job(intent), "SUCCEEDED", fence=9, **PAID)
    refused = world.fact(pay_job(intent), "DECLINED", reason="refused")
    for batch in [(foreign, refused)] if together else [(foreign,), (refused,)]:
        await world.settle(*batch)
    assert (await world.state(intent))[0] == "AUTHORIZED"
    assert await world.money(wallet) == (1000, 100)
    assert await world.admin.fetchval("SELECT error_class FROM fleet.dead_letters") == "attempt_missing"


@pytest.mark.parametrize(("kind", "verdict"), [("inquire", "DECLINED"), ("cancel", "CANCELLED")])
async def test_no_answer_to_a_question_voids_what_an_unusable_fact_calls_paid(
    world: World, kind: str, verdict: str
) -> None:
    await world.register(inquiry=True, cancel_by_reference=True, negative_is_final_for_reference=True)
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    await world.tell(pay_job(intent), "SUCCEEDED", **(PAID | {"amount_minor": 99}))
    await world.check_now()
    await world.resolve()
    if kind == "cancel":
        await world.pass_time(H_S + 1)
        await world.answer_question(intent, "NOT_FOUND")
        await world.check_now()
        await world.resolve()
    await world.answer_question(intent, verdict, kind=kind, reason="refused")
    assert (await world.state(intent))[1] is None
    assert await world.money(wallet) == (1000, 100)
    await world.prove()


async def test_a_poisoned_item_fails_alone(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    good, bad = await world.pay(wallet), await world.pay(wallet)
    await world.sent(good)
    await world.sent(bad)
    # The ledger refuses to post a hold that is voided already: what a defect elsewhere would look like.
    await world.admin.execute(
        "INSERT INTO fleet.transfer_resolutions (pending_id, tenant_id, kind)"
        " SELECT id, tenant_id, 16 FROM fleet.transfers WHERE user_data = $1",
        bad,
    )
    facts = [world.fact(pay_job(each), "SUCCEEDED", **PAID) for each in (bad, good)]
    settled = await world.settle(*facts)
    assert [error for _, error in settled.unusable] == ["settlement_failed"]
    assert (await world.state(good))[0] == "SETTLED"
    assert (await world.state(bad))[0] == "AUTHORIZED"
    assert await world.admin.fetchval("SELECT error_class FROM fleet.dead_letters") == "settlement_failed"


async def test_a_result_that_loses_a_race_at_the_ledger_is_settled_by_another_attempt(world: World) -> None:
    await world.register()
    wallet = await world.wallet(1000)
    intent = await world.pay(wallet)
    await world.sent(intent)
    fact = world.fact(pay_job(intent), "SUCCEEDED", **PAID)
    settled = await settle_batch(world.core.worker_ports, world.losing(2), [fact])
    assert not settled.unusable
    assert (await world.state(intent))[0] == "SETTLED"
    assert await world.money(wallet) == (900, 0)
    await world.prove()


async def test_a_job_asked_for_twice_in_one_request_is_sent_once(world: World) -> None:
    await world.register()
    job = pay_job(await world.pay(await world.wallet(1000)))
    first, twin = await world.ask([job, job])
    assert (first.answer, first.mode, twin.answer) == ("GRANTED", "SEND", "BUSY")
    assert (await world.job(job))["fence"] == 1


async def test_a_settled_batch_locks_accounts_in_the_order_of_an_acceptance(world: World) -> None:
    await world.register(lookup=True)
    wallet, other = [await world.wallet(1000) for _ in range(2)]
    intent, looked_up = [await world.pay(each, auto_confirm={"max_fee_minor": 0}) for each in (wallet, other)]
    expires_at = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()

    def found(intent_id: Any) -> Any:
        lookup = {"lookup_id": "L1", "expires_at": expires_at}
        return world.fact(lookup_job(intent_id), "FOUND", kind="lookup", fence=0, basis="LOOKUP", lookup=lookup)

    await world.settle(found(intent))
    await world.sent(intent)
    async with world.admin.transaction():
        lock = "SELECT FROM fleet.accounts WHERE {} ORDER BY id FOR NO KEY UPDATE"
        await world.admin.execute(lock.format("id = $1"), wallet)
        batch = [found(looked_up), world.fact(pay_job(intent), "SUCCEEDED", **PAID)]
        settling = asyncio.create_task(world.settle(*batch))
        async with asyncio.timeout(PATIENCE_S):
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            while not await world.admin.fetchval(waits):  # noqa: ASYNC110 - another session's lock sets no event
                await asyncio.sleep(0.01)
        # An acceptance goes on from its wallet to the hot accounts: the settler must not hold those meanwhile.
        await world.admin.execute(lock.format("id <> $1"), wallet)
    await settling
    assert [(await world.state(each))[0] for each in (intent, looked_up)] == ["SETTLED", "AUTHORIZED"]
    await world.prove()


async def test_a_settler_locks_payments_in_the_order_of_their_ids_whatever_order_they_come_in(world: World) -> None:
    await world.register()
    wallet = await world.wallet(10_000)
    jobs = [await world.job(pay_job(await world.pay(wallet))) for _ in range(12)]
    await world.ask([job["id"] for job in jobs])
    jobs.sort(key=lambda job: job["id"].int)
    # Two whose references, and the order they come in, are the other way round than their ids.
    low, high = next((a, b) for a, b in combinations(jobs, 2) if a["reference"] > b["reference"])
    lock = "SELECT FROM fleet.jobs WHERE id = $1 FOR UPDATE NOWAIT"
    async with world.admin.transaction():
        await world.admin.execute(lock, low["id"])
        settling = asyncio.create_task(world.settle(*(world.fact(job["id"], "DECLINED") for job in (high, low))))
        async with asyncio.timeout(PATIENCE_S):
            while not await world.admin.fetchval(_WAITING):  # noqa: ASYNC110 - the server sets no event
                await asyncio.sleep(0.01)
        await world.admin.execute(lock, high["id"])
    await settling
    assert {(await world.state(job["intent_id"]))[0] for job in (high, low)} == {"FAILED"}
