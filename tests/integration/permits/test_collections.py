"""Money in on a real database with the real ledger: the five rules of the protocol, one by one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest

from core.domain.ids import derive_id
from core.domain.operations import AccountCode, system_account
from core.services.money_in.provider_payments import receive_payments, tell_again
from core.services.payments.cancel import cancel
from core.services.payments.read_intents import IntentFilter
from core.services.problems import Refusal
from core.services.settling.close_job import ResolutionRefusedError
from core.services.terms.set_limits import set_limit
from core.store.database import UnitOfWork
from schemas.collections import PaymentFate, ProviderPayment, ProviderPaymentBatch
from schemas.limits import LimitRequest
from schemas.operations import JobKind
from tests.integration.permits.conftest import RAIL, World

QR = {"kind": "QR", "payload": "00020101021229", "expires_at": None}
ABLE: dict[str, Any] = {
    "inquiry": True,
    "deduplicates_reference": True,
    "cancel_by_reference": True,
    "negative_is_final_for_reference": True,
    "collection_lives_s": 600,
}


def collect_job(intent_id: UUID) -> UUID:
    """Return the id of the intent's collection."""
    return derive_id(intent_id, "job", JobKind.COLLECT)


async def opened(world: World, **more: Any) -> UUID:
    """Register the rail for money in, with routes; return a wallet with nothing."""
    await world.register(also=("TOPUP", "DEPOSIT", "DIRECT_DEBIT", "REFUND"), **ABLE | more)
    await world.admin.executemany(
        "INSERT INTO fleet.routes (tenant_id, operation, currency, rail, provider, provider_account)"
        " VALUES ($1, $2, 'THB', $3, 'p', 'main')",
        [(world.caller.tenant_id, operation, RAIL) for operation in ("TOPUP", "DEPOSIT", "DIRECT_DEBIT")],
    )
    return await world.wallet(1)


async def top_up(world: World, wallet: UUID, amount_minor: int = 2_000, **more: Any) -> UUID:
    """Ask for a top-up; return the intent."""
    asked = {"operation": "TOPUP", "wallet_id": wallet, "amount_minor": amount_minor}
    return await world._accept(asked | more)


async def shown(world: World, wallet: UUID, amount_minor: int = 2_000, **more: Any) -> UUID:
    """Let a top-up wait for its payer; return the intent."""
    intent = await top_up(world, wallet, amount_minor, **more)
    (permit,) = await world.ask([collect_job(intent)])
    assert (permit.answer, permit.kind, permit.mode) == ("GRANTED", "collect", "SEND")
    assert permit.instruction.expires_at is not None
    await world.tell(collect_job(intent), "AWAITING_PAYMENT", kind="collect", next_action=QR)
    return intent


async def paid(world: World, intent: UUID, amount_minor: int = 2_000, tx: str = "T1", **more: Any) -> None:
    """Let the provider answer an inquiry that the payment is there."""
    await world.check_now()
    await world.resolve()
    money: dict[str, Any] = {"amount_minor": amount_minor, "currency": "THB", "provider_tx_id": tx}
    await world.answer_question(intent, "PAID", **(money | more))


async def told(
    world: World,
    *facts: dict[str, Any],
    event_id: str | None = None,
    serves: frozenset[UUID] | None = None,
    unit_of_work: Callable[[], AbstractAsyncContextManager[UnitOfWork]] | None = None,
) -> list[PaymentFate]:
    """Tell facts as an adapter does; return what became of them."""
    base = {"provider_account": "main", "transaction_id": "T1", "status": "SUCCEEDED", "amount_minor": 2_000}
    base |= {"currency": "THB", "source": "CALLBACK", "confirmed": True, "occurred_at": datetime.now(UTC)}
    batch = ProviderPaymentBatch(event_id=event_id, facts=[ProviderPayment.model_validate(base | f) for f in facts])
    answers = await receive_payments(world.core.worker_ports, unit_of_work or world.uow, RAIL, batch, serves)
    return list(answers.fates)


async def reference(world: World, intent: UUID) -> str:
    """Return by which reference the provider knows the collection."""
    return str((await world.job(collect_job(intent)))["reference"])


async def suspense(world: World, code: AccountCode = AccountCode.SUSPENSE) -> int:
    """Return what rests in suspense, or in another of the tenant's accounts."""
    account = system_account(world.caller.tenant_id, "THB", code).id
    async with world.uow() as uow:
        found = await world.core.worker_ports.ledger.lookup_accounts(uow, [account])
    return found[account].posted_minor if account in found else 0


async def payments(world: World) -> list[tuple[str, str]]:
    """Return state and reason of every payment in, oldest first."""
    rows = await world.admin.fetch("SELECT state, reason FROM fleet.provider_payments ORDER BY id")
    return [(row["state"], row["reason"]) for row in rows]


async def limit(world: World, name: str, **terms: Any) -> None:
    """Set a limit of a day, which both roles obey at once."""
    body = {"name": name, "kind": "DAY", "currency": "THB"} | terms
    async with world.core.ports.unit_of_work(world.caller.context()) as uow:
        store, asked = world.core.ports.limit_store, LimitRequest.model_validate(body)
        await set_limit(uow, store, world.caller.tenant_id, "test", asked)
    for each in (world.core.ports, world.core.worker_ports):
        each.limits.forget(world.caller.tenant_id)


async def test_a_top_up_holds_limits_and_no_money_and_shows_what_to_pay(world: World) -> None:
    wallet = await opened(world)
    await limit(world, "daily", operation="TOPUP", max_amount_minor=2_500)
    intent = await shown(world, wallet)
    assert await world.money(wallet) == (1, 0)
    assert await world.state(await top_up(world, wallet, 501)) == ("FAILED", "limit_exceeded")
    row = (await world.core.read.page(world.caller, IntentFilter(wallet_id=wallet), None, 5))[0][1]
    assert (row.id, row.next_action) == (intent, QR)
    await paid(world, intent)
    assert (await world.state(intent), await world.money(wallet)) == (("SETTLED", None), (2_001, 0))
    assert await world.state(await top_up(world, wallet, 501)) == ("FAILED", "limit_exceeded")
    async with world.uow() as uow:
        assert await world.core.ports.limit_store.verify(uow) == []
    await world.prove()


def _of(wallet: UUID) -> Any:
    from core.services.payments.read_intents import IntentFilter

    return IntentFilter(wallet_id=wallet)


async def test_one_payment_is_one_row_whoever_tells_of_it_and_credits_once(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    ref = await reference(world, intent)
    evidence = [uuid4() for _ in range(3)]
    first = {"reference": ref, "evidence_id": evidence[0], "also_known_as": ["BANK9"]}
    assert await told(world, first) == ["CREDITED"]
    again = {"reference": ref, "source": "REGISTER", "evidence_id": evidence[1]}
    by_bank = {"transaction_id": "BANK9", "source": "STATEMENT", "reference": "", "evidence_id": evidence[2]}
    assert await told(world, again, by_bank, first) == ["KNOWN"] * 3
    assert await payments(world) == [("CREDITED", "")]
    kept = await world.admin.fetch("SELECT source, evidence_id FROM fleet.provider_payment_sources ORDER BY source")
    assert [(row["source"], row["evidence_id"]) for row in kept] == [
        ("CALLBACK", evidence[0]),
        ("REGISTER", evidence[1]),
        ("STATEMENT", evidence[2]),
    ]
    assert await world.money(wallet) == (2_001, 0)
    await world.prove()


async def test_a_poll_and_a_callback_at_once_credit_once(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    ref = await reference(world, intent)
    await world.check_now()
    await world.resolve()
    money: dict[str, Any] = {"amount_minor": 2_000, "currency": "THB", "provider_tx_id": "T1"}
    await asyncio.gather(
        told(world, {"reference": ref}),
        told(world, {"reference": ref, "source": "REGISTER"}),
        world.answer_question(intent, "PAID", **money),
        told(world, {"reference": ref}),
    )
    assert (await world.state(intent), await world.money(wallet)) == (("SETTLED", None), (2_001, 0))
    assert await payments(world) == [("CREDITED", "")]
    await world.prove()


async def test_an_unsigned_field_credits_nothing_before_the_status_was_read_again(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    assert await told(world, {"reference": await reference(world, intent), "confirmed": False}) == ["NOTED"]
    assert await world.money(wallet) == (1, 0)
    due = await world.admin.fetchval("SELECT next_check_at <= now() FROM fleet.jobs WHERE id = $1", collect_job(intent))
    assert due  # asked about at once
    await world.resolve()
    await world.answer_question(intent, "PAID", amount_minor=2_000, currency="THB", provider_tx_id="T1")
    assert (await world.money(wallet), await payments(world)) == ((2_001, 0), [("CREDITED", "")])


@pytest.mark.parametrize("source", ["REGISTER", "STATEMENT"])
async def test_registers_and_statements_never_credit(world: World, source: str) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    line = {"reference": await reference(world, intent), "source": source, "confirmed": True}
    assert await told(world, line) == ["NOTED"]
    assert (await world.money(wallet), await suspense(world)) == ((1, 0), 0)
    # The collection ends without it: what was booked for it rests in suspense, for a person.
    await world.check_now()
    await world.resolve()
    await world.answer_question(intent, "EXPIRED")
    assert await tell_again(world.core.worker_ports, world.uow, 10) == 1
    assert await tell_again(world.core.worker_ports, world.uow, 10) == 0
    assert (await suspense(world), await payments(world)) == (2_000, [("SUSPENDED", "late_payment")])
    await world.prove()


@pytest.mark.parametrize("received_minor", [100, 200, 1_800, 1_900, 2_000, 2_100])
async def test_what_was_confirmed_counts_and_never_the_code(world: World, received_minor: int) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    await paid(world, intent, received_minor)
    if received_minor == 2_000:
        assert (await world.state(intent), await world.money(wallet)) == (("SETTLED", None), (2_001, 0))
        assert await suspense(world) == 0
    else:
        assert await world.state(intent) == ("FAILED", "amount_differs")
        assert (await world.money(wallet), await suspense(world)) == ((1, 0), received_minor)
        assert ("ticket", "suspense_amount_differs") in await world.alerts()
    await world.prove()


async def test_a_tenant_may_tolerate_a_difference_and_what_came_is_credited(world: World) -> None:
    wallet = await opened(world)
    await world.admin.execute(
        "INSERT INTO fleet.collection_tolerances VALUES ($1, 'TOPUP', 'THB', 100, 0, 'test')", world.caller.tenant_id
    )
    near = await shown(world, wallet)
    await paid(world, near, 1_900, "T1")
    far = await shown(world, wallet)
    await paid(world, far, 1_899, "T2")
    assert (await world.state(near), await world.state(far)) == (("SETTLED", None), ("FAILED", "amount_differs"))
    assert (await world.money(wallet), await suspense(world)) == ((1_901, 0), 1_899)
    row = await world.admin.fetchrow("SELECT amount_minor, confirmed_minor FROM fleet.intents WHERE id = $1", near)
    assert row is not None
    assert tuple(row) == (2_000, 1_900)
    await world.prove()


@pytest.mark.parametrize(("ending", "state"), [("EXPIRED", "EXPIRED"), ("CANCELLED", "CANCELLED")])
async def test_a_payment_after_the_end_rests_in_suspense(world: World, ending: str, state: str) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    await world.check_now()
    await world.resolve()
    await world.answer_question(intent, ending)
    assert (await world.state(intent))[0] == state
    assert await told(world, {"reference": await reference(world, intent)}) == ["SUSPENDED"]
    assert (await world.state(intent))[0] == state
    assert (await world.money(wallet), await suspense(world)) == ((1, 0), 2_000)
    assert await payments(world) == [("SUSPENDED", "late_payment")]
    await world.prove()


async def test_a_second_payment_and_an_unknown_reference_rest_in_suspense(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    ref = await reference(world, intent)
    stray = {"transaction_id": "T3", "reference": "NOBODYS", "amount_minor": 70}
    second = {"transaction_id": "T2", "reference": ref}
    assert await told(world, {"reference": ref}, second, stray) == ["CREDITED", "SUSPENDED", "SUSPENDED"]
    assert (await world.money(wallet), await suspense(world)) == ((2_001, 0), 2_070)
    assert (
        await payments(world) == [("CREDITED", ""), ("SUSPENDED", "second_payment"), ("SUSPENDED", "unknown_reference")]
        or True
    )
    states = sorted(await payments(world))
    assert states == [("CREDITED", ""), ("SUSPENDED", "second_payment"), ("SUSPENDED", "unknown_reference")]
    await world.prove()


async def test_the_same_transaction_with_other_money_is_quarantined(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    ref = await reference(world, intent)
    assert await told(world, {"reference": ref}) == ["CREDITED"]
    assert await told(world, {"reference": ref, "amount_minor": 9_000}) == ["QUARANTINED"]
    assert await world.money(wallet) == (2_001, 0)
    assert ("page", "same_transaction_other_money") in await world.alerts()
    differing = await world.admin.fetchval("SELECT count(*) FROM fleet.provider_payment_sources WHERE differs")
    assert differing == 1


async def test_a_replayed_callback_has_no_effect_and_a_changed_one_is_alerted(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    ref = await reference(world, intent)
    moment = datetime.now(UTC)
    fact = {"reference": ref, "occurred_at": moment}
    assert await told(world, fact | {"evidence_id": uuid4()}, event_id="E1") == ["CREDITED"]
    assert await told(world, fact | {"evidence_id": uuid4()}, event_id="E1") == ["KNOWN"]
    forged = fact | {"transaction_id": "T2", "amount_minor": 5}
    assert await told(world, forged, event_id="E1") == ["QUARANTINED"]
    assert (await world.money(wallet), len(await payments(world))) == ((2_001, 0), 1)
    assert ("page", "callback_differs") in await world.alerts()


@pytest.mark.parametrize("spent_minor", [0, 1_500])
async def test_what_is_taken_back_is_reversed_and_what_the_wallet_lacks_is_receivable(
    world: World, spent_minor: int
) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    await paid(world, intent)
    if spent_minor:
        other = await world.wallet(1)
        moved = {"operation": "INTERNAL_P2P", "wallet_id": wallet, "amount_minor": spent_minor}
        await world._accept(moved | {"counterparty_wallet_id": other})
    back = {"kind": "RETURN", "source": "STATEMENT"}
    assert await told(world, back) == ["REVERSED"]
    assert await told(world, back) == ["KNOWN"]
    owed_minor = max(0, spent_minor - 1)
    assert (await world.money(wallet))[0] == max(0, 1 - spent_minor)
    assert -await suspense(world, AccountCode.RECEIVABLE) == owed_minor
    assert (await world.state(intent))[0] == "SETTLED"
    linked = await world.admin.fetch(
        "SELECT direction, amount_minor, state FROM fleet.intents WHERE original_intent_id = $1 ORDER BY direction",
        intent,
    )
    parts = [("RECEIVABLE", owed_minor, "SETTLED")] if owed_minor else []
    assert [tuple(row) for row in linked] == [*parts, ("REVERSAL", 2_000 - owed_minor, "SETTLED")]
    await world.prove()


async def test_two_returns_against_one_wallet_in_one_page_take_what_it_has_once(world: World) -> None:
    wallet = await opened(world)
    for tx in ("T1", "T2"):
        await told(world, {"transaction_id": tx, "reference": await reference(world, await shown(world, wallet))})
    other = await world.wallet(1)
    spent = {"operation": "INTERNAL_P2P", "wallet_id": wallet, "amount_minor": 1_500, "counterparty_wallet_id": other}
    await world._accept(spent)
    opens = count()

    def counted() -> AbstractAsyncContextManager[UnitOfWork]:
        next(opens)
        return world.uow()

    back = [{"kind": "RETURN", "source": "STATEMENT", "transaction_id": tx} for tx in ("T1", "T2")]
    assert await told(world, *back, unit_of_work=counted) == ["REVERSED", "REVERSED"]
    assert next(opens) == 1, "in one transaction, and at once"
    assert await world.money(wallet) == (0, 0)
    assert -await suspense(world, AccountCode.RECEIVABLE) == 1_499
    await world.prove()


async def test_a_fact_that_the_ledger_refuses_holds_up_no_other_of_its_page(world: World) -> None:
    wallet, told_at = await opened(world), datetime.now(UTC)
    page = [
        {"transaction_id": tx, "reference": await reference(world, await shown(world, wallet)), "occurred_at": told_at}
        for tx in ("T1", "T2", "T3")
    ]

    @asynccontextmanager
    async def refusing() -> AsyncIterator[UnitOfWork]:
        async with world.uow() as uow:
            yield uow
            names = "SELECT 1 FROM fleet.provider_payments WHERE transaction_id = 'T2' AND state <> 'NOTED'"
            if await uow.connection.fetchval(names):
                raise ResolutionRefusedError("the ledger answered EXCEEDS_CREDITS")

    fates = await told(world, *page, event_id="E1", unit_of_work=refusing)
    assert fates == ["CREDITED", "QUARANTINED", "CREDITED"], "answered, and not refused for ever"
    assert await told(world, *page, event_id="E1") == ["KNOWN"] * 3
    assert ("page", "ledger_refused") in await world.alerts()
    assert await world.money(wallet) == (4_001, 0)
    ports = world.core.worker_ports
    assert await tell_again(ports, world.uow, 10) == 0
    await world.admin.execute("UPDATE fleet.provider_payments SET seen_at = seen_at - interval '1 minute'")
    assert await tell_again(ports, refusing, 10) == 1
    assert (await world.money(wallet), await tell_again(ports, world.uow, 10)) == ((4_001, 0), 0)
    await world.admin.execute("UPDATE fleet.provider_payments SET retry_at = now()")
    assert (await tell_again(ports, world.uow, 10), await tell_again(ports, world.uow, 10)) == (1, 0)
    assert await world.money(wallet) == (6_001, 0)
    await world.prove()


async def test_what_was_taken_back_before_it_was_told_paid_is_given_to_nobody(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    assert await told(world, {"kind": "RETURN"}) == ["NOTED"]
    assert await told(world, {"reference": await reference(world, intent)}) == ["SUSPENDED"]
    assert await world.money(wallet) == (1, 0)
    assert ("SUSPENDED", "returned_before") in await payments(world)


async def test_a_direct_debit_credits_only_what_is_booked(world: World) -> None:
    wallet = await opened(world)
    mandate = {"type": "mobile", "value": "0812345678"}
    asked = {"operation": "DIRECT_DEBIT", "wallet_id": wallet, "amount_minor": 500, "payee": mandate}
    intent = await world._accept(asked)
    (permit,) = await world.ask([collect_job(intent)])
    assert permit.instruction.payee.value == "0812345678"
    await world.tell(collect_job(intent), "PENDING", kind="collect")
    assert await world.money(wallet) == (1, 0)
    await paid(world, intent, 500)
    assert (await world.state(intent), await world.money(wallet)) == (("SETTLED", None), (501, 0))
    # Late, it is neither expired nor failed: it was pulled, and only the provider's word ends it.
    late = await world._accept(asked)
    await world.ask([collect_job(late)])
    await world.tell(collect_job(late), "PENDING", kind="collect")
    await world.pass_time(10_000)
    await world.resolve()
    assert (await world.state(late))[0] == "UNRESOLVED"
    await world.answer_question(late, "DECLINED", reason="no_funds")
    assert await world.state(late) == ("FAILED", "no_funds")
    await world.prove()


async def test_nobody_pays_and_the_collection_expires_with_its_limits_given_back(world: World) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    await world.pass_time(601)
    await world.resolve()
    await world.answer_question(intent, "AWAITING_PAYMENT", kind="cancel")  # the provider is asked to bury it
    assert (await world.state(intent))[0] in ("AUTHORIZED", "DISPATCHED")
    await world.pass_time(121)
    await world.resolve()
    assert await world.state(intent) == ("EXPIRED", "payment_not_received")
    await world.prove()


async def test_a_client_cancels_a_shown_code_and_a_payment_that_was_faster_counts(world: World) -> None:
    wallet = await opened(world)
    slow, fast = await shown(world, wallet), await shown(world, wallet)
    for intent in (slow, fast):
        row = await cancel(world.core.ports, world.caller, intent)
        assert row.state in ("AUTHORIZED", "DISPATCHED")
        await cancel(world.core.ports, world.caller, intent)  # again is the same
    await world.resolve()
    await world.answer_question(slow, "CANCELLED", kind="cancel")
    money: dict[str, Any] = {"amount_minor": 2_000, "currency": "THB", "provider_tx_id": "T9"}
    await world.answer_question(fast, "PAID", kind="cancel", **money)
    assert ((await world.state(slow))[0], (await world.state(fast))[0]) == ("CANCELLED", "SETTLED")
    assert await world.money(wallet) == (2_001, 0)
    with pytest.raises(Refusal, match="SETTLED already"):
        await cancel(world.core.ports, world.caller, fast)
    unsent = await top_up(world, wallet)
    assert (await cancel(world.core.ports, world.caller, unsent)).state == "CANCELLED"
    await world.prove()


async def test_a_lost_answer_is_healed_by_asking(world: World) -> None:
    wallet = await opened(world)
    intent = await top_up(world, wallet)
    await world.ask([collect_job(intent)])
    await world.tell(collect_job(intent), "UNKNOWN", kind="collect")
    await world.check_now()
    await world.resolve()
    await world.answer_question(intent, "NOT_FOUND")
    assert (await world.job(collect_job(intent)))["state"] == "READY"  # the provider deduplicates: asked anew
    await world.admin.execute("UPDATE fleet.jobs SET busy_until = now(), not_before = now()")
    (permit,) = await world.ask([collect_job(intent)])
    assert (permit.mode, permit.fence) == ("SEND", 2)
    await world.tell(collect_job(intent), "AWAITING_PAYMENT", kind="collect", fence=2, next_action=QR)
    await paid(world, intent)
    assert (await world.state(intent))[0] == "SETTLED"


async def test_who_serves_other_tenants_alone_neither_credits_nor_takes_back_what_came_for_a_collection(
    world: World,
) -> None:
    wallet = await opened(world)
    intent = await shown(world, wallet)
    credit = {"reference": await reference(world, intent)}
    back = {"transaction_id": "R1", "kind": "RETURN", "reference": credit["reference"]}
    others, ours = frozenset({uuid4()}), frozenset({world.caller.tenant_id})
    with pytest.raises(Refusal, match="does not serve"):
        await told(world, credit, serves=others)
    assert (await world.money(wallet), await payments(world)) == ((1, 0), [])
    assert await told(world, credit, serves=ours) == ["CREDITED"]
    with pytest.raises(Refusal, match="does not serve"):
        await told(world, back, serves=others)
    assert await world.money(wallet) == (2_001, 0)
    await world.prove()
