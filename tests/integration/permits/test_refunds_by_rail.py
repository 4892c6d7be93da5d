"""Refunds of what was collected: held out of the wallet, paid back by the rail, on a real database and ledger."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core.domain.ids import derive_id
from core.domain.operations import AccountCode
from core.services.access.keys import REVIEW_SCOPE
from core.services.payments.cancel import cancel
from core.services.payments.read_intents import IntentFilter
from core.services.payments.reviews import decide_review
from core.services.problems import Refusal
from schemas.api import IntentRequest, ReviewRequest
from schemas.operations import JobKind
from tests.integration.permits.conftest import RAIL, World
from tests.integration.permits.test_collections import limit, opened, paid, shown, suspense, told
from tests.integration.permits.test_fees import income, put

REFUNDS: dict[str, Any] = {"refunds": "parts", "cancel_by_reference": False}


def refund_job(intent_id: UUID) -> UUID:
    """Return the id of the job that pays a refund."""
    return derive_id(intent_id, "job", JobKind.REFUND)


async def collected(world: World, wallet: UUID, amount_minor: int = 2_000, tx: str = "T1") -> UUID:
    """Let a top-up be paid; return the intent."""
    intent = await shown(world, wallet, amount_minor)
    await paid(world, intent, amount_minor, tx)
    assert (await world.state(intent))[0] == "SETTLED"
    return intent


async def refund(world: World, original: UUID, wallet: UUID, amount_minor: int, **more: Any) -> Any:
    """Ask for a refund; return it as it was accepted."""
    body = {"operation": "REFUND", "original_intent_id": original, "wallet_id": wallet, "amount_minor": amount_minor}
    request = IntentRequest.model_validate(body | {"currency": "THB"} | more)
    return (await world.core.accept.accept(world.caller, f"refund-{next(world.numbers)}", request)).intent


async def refused(world: World, original: UUID, wallet: UUID, amount_minor: int, **more: Any) -> str:
    with pytest.raises(Refusal) as caught:
        await refund(world, original, wallet, amount_minor, **more)
    return caught.value.code


async def permitted(world: World, intent: UUID) -> Any:
    """Give the refund its permit, whatever was given before has run out; return the permit."""
    await world.admin.execute("UPDATE fleet.jobs SET busy_until = now() WHERE intent_id = $1", intent)
    (permit,) = await world.ask([refund_job(intent)])
    assert (permit.answer, permit.kind) == ("GRANTED", "refund")
    return permit


async def answered(world: World, intent: UUID, verdict: str, **more: Any) -> None:
    """Permit the refund and let the provider answer."""
    permit = await permitted(world, intent)
    await world.tell(refund_job(intent), verdict, kind="refund", fence=permit.fence, **more)


async def given_back(world: World, original: UUID, wallet: UUID, amount_minor: int, tx: str) -> UUID:
    """Let a refund be paid; return it."""
    made = await refund(world, original, wallet, amount_minor)
    await answered(world, made.id, "SUCCEEDED", amount_minor=amount_minor, currency="THB", provider_tx_id=tx)
    assert (await world.state(made.id))[0] == "SETTLED"
    refund_id: UUID = made.id
    return refund_id


async def test_a_top_up_is_paid_back_in_parts_through_its_rail_and_no_further(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    made = await refund(world, original, wallet, 800)
    assert (made.state, made.direction, made.rail, made.received_minor) == ("AUTHORIZED", "OUT", RAIL, 800)
    assert await world.money(wallet) == (2_001, 800)
    permit = await permitted(world, made.id)
    payee = permit.instruction.payee
    assert (payee.type, payee.value, permit.amount_minor, permit.mode) == ("transaction", "T1", 800, "SEND")
    assert await world.money(wallet) == (2_001, 800)
    money = {"amount_minor": 800, "currency": "THB", "provider_tx_id": "R1"}
    for _ in range(2):
        await world.tell(refund_job(made.id), "SUCCEEDED", kind="refund", **money)
    assert (await world.state(made.id), await world.money(wallet)) == (("SETTLED", None), (1_201, 0))
    assert await refused(world, original, wallet, 1_201) == "refund_exceeds_original"
    await given_back(world, original, wallet, 1_200, "R2")
    assert await refused(world, original, wallet, 1) == "refund_exceeds_original"
    assert await world.money(wallet) == (1, 0)
    shown_rows = await world.core.read.page(world.caller, IntentFilter(original_intent_id=original), None, 5)
    assert sorted(row.amount_minor for row in shown_rows[0]) == [800, 1_200]
    await world.prove()


def _end(answer: Any) -> str:
    return str(answer.failure_code or answer.state)


async def test_refunds_asked_for_at_once_never_exceed_what_was_paid(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    await world._accept({"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": 9_000})
    answers = await asyncio.gather(*(refund(world, original, wallet, 700) for _ in range(6)), return_exceptions=True)
    ends = Counter(each.code if isinstance(each, Refusal) else _end(each) for each in answers)
    assert ends == {"AUTHORIZED": 2, "refund_exceeds_original": 4}
    assert await world.money(wallet) == (11_001, 1_400)
    await world.prove()


async def test_what_the_provider_refuses_goes_back_into_the_wallet_and_may_be_asked_for_again(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    made = await refund(world, original, wallet, 2_000)
    await answered(world, made.id, "DECLINED", reason="payment_not_found")
    assert await world.state(made.id) == ("FAILED", "payment_not_found")
    assert await world.money(wallet) == (2_001, 0)
    await given_back(world, original, wallet, 2_000, "R1")
    assert await world.money(wallet) == (1, 0)
    await world.prove()


async def test_a_refund_in_doubt_is_held_and_asked_about_and_sent_again_only_under_its_reference(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    made = await refund(world, original, wallet, 500)
    first = await permitted(world, made.id)
    await world.tell(refund_job(made.id), "UNKNOWN", kind="refund")
    assert (await world.money(wallet))[1] == 500
    await world.check_now()
    await world.resolve()
    await world.answer_question(made.id, "NOT_FOUND")
    # It never arrived, and nothing buries it: the provider knows the reference again if it did.
    await world.admin.execute("UPDATE fleet.jobs SET not_before = now() WHERE id = $1", refund_job(made.id))
    again = await permitted(world, made.id)
    assert (again.mode, again.reference, again.fence) == ("SEND", first.reference, 2)
    await world.tell(refund_job(made.id), "UNKNOWN", kind="refund", fence=2)
    await world.pass_time(3_000)
    await world.resolve()
    assert (await world.state(made.id))[0] == "UNRESOLVED"
    await world.answer_question(made.id, "SUCCEEDED", amount_minor=500, currency="THB", provider_tx_id="R1")
    assert (await world.state(made.id), await world.money(wallet)) == (("SETTLED", None), (1_501, 0))
    await world.prove()


async def test_a_refund_that_proves_paid_after_its_void_is_paid_by_suspense(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    made = await refund(world, original, wallet, 500)
    await answered(world, made.id, "DECLINED", reason="declined")
    await world.tell(refund_job(made.id), "SUCCEEDED", kind="refund", amount_minor=500, currency="THB")
    assert (await world.state(made.id))[0] == "FAILED"
    assert (await world.money(wallet), await suspense(world)) == ((2_001, 0), -500)
    assert ("page", "success_after_void") in await world.alerts()
    # Who paid has it, though out of suspense: only the rest is left.
    assert await refused(world, original, wallet, 1_501) == "refund_exceeds_original"
    await given_back(world, original, wallet, 1_500, "R2")
    assert await refused(world, original, wallet, 1) == "refund_exceeds_original"


@pytest.mark.parametrize(("confirmed_minor", "left_in_suspense"), [(2_000, -4_000), (1_999, -2_000)])
async def test_a_refund_that_proves_paid_after_its_void_leaves_nothing_to_refund_or_to_take_back(
    world: World, confirmed_minor: int, left_in_suspense: int
) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    made = await refund(world, original, wallet, 2_000)
    await answered(world, made.id, "DECLINED", reason="declined")
    # Of another amount it is not applied, and a person looks at it: it was paid all the same.
    money = {"amount_minor": confirmed_minor, "currency": "THB", "provider_tx_id": "R1"}
    await world.tell(refund_job(made.id), "SUCCEEDED", kind="refund", **money)
    assert await refused(world, original, wallet, 1) == "refund_exceeds_original"
    assert await told(world, {"kind": "RETURN", "source": "STATEMENT"}) == ["REVERSED"]
    assert (await world.money(wallet), await suspense(world)) == ((2_001, 0), left_in_suspense)
    assert ("page", "return_exceeds_original") in await world.alerts()
    assert await suspense(world, AccountCode.RECEIVABLE) == 0


@pytest.mark.parametrize(
    ("able", "amount_minor", "code"),
    [
        ({"refunds": "none"}, 2_000, "refund_not_offered"),
        ({"refunds": "full"}, 1_999, "refund_parts_not_offered"),
        ({"refunds": "parts", "min_amount_minor": 2_000}, 1_999, "amount_out_of_bounds"),
    ],
)
async def test_a_rail_that_cannot_refuses_before_anything_is_held(
    world: World, able: dict[str, Any], amount_minor: int, code: str
) -> None:
    wallet = await opened(world, **able)
    original = await collected(world, wallet)
    assert await refused(world, original, wallet, amount_minor) == code
    other = await world.wallet(5_000)
    assert await refused(world, original, other, amount_minor) == "refund_wallet_differs"
    assert await refused(world, original, wallet, 2_001) == "refund_exceeds_original"
    open_ = await shown(world, wallet)
    assert await refused(world, open_, wallet, 1) == "original_not_settled"
    # Of an adapter that has moved to another account, none would ever have a permit.
    await world.register(account="moved", also=("TOPUP", "REFUND"), **able | {"collection_lives_s": 600})
    assert await refused(world, original, wallet, 2_000) == "rail_unavailable"
    assert await world.money(wallet) == (2_001, 0)


async def test_a_rail_that_pays_back_whole_payments_does(world: World) -> None:
    wallet = await opened(world, refunds="full", cancel_by_reference=False)
    await given_back(world, await collected(world, wallet), wallet, 2_000, "R1")
    assert await world.money(wallet) == (1, 0)
    await world.prove()


async def test_the_fees_that_go_back_come_from_who_got_them_and_the_payer_gets_it_all(world: World) -> None:
    wallet, partner = await opened(world, **REFUNDS), await world.wallet(1)
    shares = [{"parts": 1}, {"wallet_id": str(partner), "parts": 1}]
    back = {"operation": "TOPUP", "phase": "POST", "on_refund": "RETURNED", "shares": shares}
    await put(world, name="back", fee={"fixed_minor": 40}, **back)
    await put(world, name="kept", operation="TOPUP", phase="POST", fee={"fixed_minor": 7})
    original = await collected(world, wallet)
    assert (await world.money(wallet), await income(world)) == ((1_954, 0), 27)
    half = await refund(world, original, wallet, 1_000)
    # Ten of each share go back: the wallet gives what is lacking of what the payer gets.
    assert (half.received_minor, half.principal_minor, await world.money(wallet)) == (1_000, 980, (1_954, 980))
    assert (await permitted(world, half.id)).amount_minor == 1_000
    await world.prove()
    done = {"amount_minor": 1_000, "currency": "THB", "provider_tx_id": "R1"}
    await world.tell(refund_job(half.id), "SUCCEEDED", kind="refund", **done)
    assert (await world.money(wallet), await income(world)) == ((974, 0), 17)
    declined = await refund(world, original, wallet, 980)
    await answered(world, declined.id, "DECLINED", reason="declined")
    # The whole rest: all of the fee that goes back has gone back.
    await world._accept({"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": 6})
    await given_back(world, original, wallet, 1_000, "R2")
    assert (await world.money(wallet), await world.money(partner), await income(world)) == ((0, 0), (1, 0), 7)
    await world.prove()


async def test_what_was_not_sent_is_withdrawn_and_what_was_is_not(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    first = await refund(world, original, wallet, 2_000)
    assert (await cancel(world.core.ports, world.caller, first.id)).state == "CANCELLED"
    assert await world.money(wallet) == (2_001, 0)
    second = await refund(world, original, wallet, 2_000)
    await permitted(world, second.id)
    with pytest.raises(Refusal, match="may have been sent"):
        await cancel(world.core.ports, world.caller, second.id)
    await world.prove()


async def test_a_limit_gets_back_what_was_refunded_once_it_is_paid(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    await limit(world, "daily", operation="TOPUP", max_amount_minor=2_000, refund_gives_back=True)
    original = await collected(world, wallet)
    made = await refund(world, original, wallet, 600)
    top_up = {"operation": "TOPUP", "wallet_id": wallet, "amount_minor": 600}
    assert await world.state(await world._accept(top_up)) == ("FAILED", "limit_exceeded")
    await answered(world, made.id, "SUCCEEDED", amount_minor=600, currency="THB", provider_tx_id="R1")
    assert (await world.state(await world._accept(top_up)))[0] == "AUTHORIZED"
    await world.prove()


async def test_a_refund_that_comes_back_is_in_the_wallet_again_and_may_be_refunded_anew(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    made = await given_back(world, original, wallet, 2_000, "R1")
    back: dict[str, Any] = {"amount_minor": 2_000, "currency": "THB", "provider_tx_id": "R1"}
    for _ in range(2):
        # Told by a statement, which knows the reference and not what kind of job sent it.
        await world.tell(refund_job(made), "RETURNED", kind="pay", basis="REFERENCE_STATUS", **back)
    assert await world.money(wallet) == (2_001, 0)
    await given_back(world, original, wallet, 2_000, "R2")
    assert await refused(world, original, wallet, 1) == "refund_exceeds_original"
    assert await world.money(wallet) == (1, 0)
    await world.prove()


async def test_a_refund_that_comes_back_into_suspense_may_be_made_anew_and_no_third_time(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    await world.admin.execute("UPDATE fleet.tenants SET returns_to = 'SUSPENSE'")
    original = await collected(world, wallet)
    made = await given_back(world, original, wallet, 2_000, "R1")
    back: dict[str, Any] = {"amount_minor": 2_000, "currency": "THB", "provider_tx_id": "R1"}
    await world.tell(refund_job(made), "RETURNED", kind="refund", basis="REFERENCE_STATUS", **back)
    assert (await world.money(wallet), await suspense(world)) == ((1, 0), 2_000)
    await world._accept({"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": 9_000})
    await given_back(world, original, wallet, 2_000, "R2")
    assert await refused(world, original, wallet, 1) == "refund_exceeds_original"
    assert (await world.money(wallet), await suspense(world)) == ((7_001, 0), 2_000)
    await world.prove()


async def test_a_top_up_that_is_taken_back_after_its_refund_takes_no_more_than_was_left(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    await world._accept({"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": 9_000})
    await given_back(world, original, wallet, 1_500, "R1")
    assert await world.money(wallet) == (9_501, 0)
    assert await told(world, {"kind": "RETURN", "source": "STATEMENT"}) == ["REVERSED"]
    # 3,500 left for 2,000 that came: the excess is nobody's wallet's, and a person is called.
    assert (await world.money(wallet), await suspense(world)) == ((9_001, 0), -1_500)
    assert await suspense(world, AccountCode.RECEIVABLE) == 0
    assert ("page", "return_exceeds_original") in await world.alerts()
    assert await refused(world, original, wallet, 1) == "refund_exceeds_original"
    await world.prove()


async def test_a_refund_may_wait_for_a_review_and_then_goes_to_its_rail(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    made = await refund(world, original, wallet, 900, requires_monitoring=True)
    assert (made.state, await world.money(wallet)) == ("REVIEW", (2_001, 900))
    reviewer = replace(world.caller, key_id="other", operations=frozenset({"*", REVIEW_SCOPE}))
    decided = await decide_review(world.core.ports, reviewer, made.id, ReviewRequest(decision="APPROVE"))
    assert decided.state == "AUTHORIZED"
    await answered(world, made.id, "SUCCEEDED", amount_minor=900, currency="THB", provider_tx_id="R1")
    assert (await world.state(made.id), await world.money(wallet)) == (("SETTLED", None), (1_101, 0))
    await world.prove()
