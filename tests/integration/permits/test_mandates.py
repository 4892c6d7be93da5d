"""Direct debits under mandates, on a real database: what may be drawn, as which debit, and what a cancel ends."""

import asyncio
from contextlib import suppress
from datetime import date
from typing import Any
from uuid import UUID

import pytest

from core.domain.stranded import StrandedKind
from core.services.cursors import encode_cursor
from core.services.payments.keep_mandates import cancel_mandate, list_mandates, register_mandate, show_mandate
from core.services.problems import Refusal
from core.services.terms.set_limits import set_limit
from core.store.payments.mandates import MandateStore
from schemas.api import IntentRequest
from schemas.limits import LimitRequest
from schemas.mandates import MandateDetail, MandateKind, MandateRequest
from tests.integration.permits.conftest import World
from tests.integration.permits.test_collections import collect_job, opened
from tests.integration.permits.test_completer import completed
from tests.integration.permits.test_fees import put

DEBTOR = {"debtor_account": "004-0123456789", "debtor_name": "Somchai Jaidee"}


async def signed(world: World, wallet: UUID, name: str = "MANDATE-17", **more: Any) -> MandateDetail:
    """Register a mandate."""
    body = {"mandate_id": name, "wallet_id": wallet, "signed_on": date(2026, 1, 5), **DEBTOR, **more}
    return await register_mandate(world.core.ports, world.caller, MandateRequest.model_validate(body))


async def debit(world: World, wallet: UUID, name: str = "MANDATE-17", amount_minor: int = 500) -> UUID:
    """Ask for a direct debit; return the intent."""
    payee = {"type": "mandate", "value": name}
    return await world._accept(
        {"operation": "DIRECT_DEBIT", "wallet_id": wallet, "amount_minor": amount_minor, "payee": payee}
    )


async def instructed(world: World, intent: UUID) -> str:
    """Give the debit its permit; return the mandate as the adapter is told it."""
    (permit,) = await world.ask([collect_job(intent)])
    return str(permit.instruction.payee.value)


async def shown(world: World, name: str = "MANDATE-17") -> MandateDetail:
    return await show_mandate(world.core.ports, world.caller, name)


async def test_debits_are_first_then_recurring_then_final_and_then_none(world: World) -> None:
    wallet = await opened(world)
    await signed(world, wallet)
    written = "MANDATE-17;2026-01-05;{};004-0123456789;Somchai Jaidee"
    first = await debit(world, wallet)
    assert await instructed(world, first) == written.format("FRST")
    assert await instructed(world, await debit(world, wallet)) == written.format("RCUR")
    last = await debit(world, wallet, "MANDATE-17;FNAL")
    assert await instructed(world, last) == written.format("FNAL")
    with pytest.raises(Refusal) as used:
        await debit(world, wallet)
    assert used.value.code == "mandate_used"
    # The last one failed: it was none, and the mandate may be drawn on again.
    await world.tell(collect_job(last), "DECLINED", kind="collect", reason="no_funds")
    newest = (await shown(world)).debits[0]
    assert (newest.sequence, newest.state) == ("FNAL", "FAILED")
    assert await instructed(world, await debit(world, wallet)) == written.format("RCUR")


async def test_a_first_debit_that_failed_was_none(world: World) -> None:
    wallet = await opened(world)
    await signed(world, wallet)
    first = await debit(world, wallet)
    await instructed(world, first)
    await world.tell(collect_job(first), "DECLINED", kind="collect", reason="no_funds")
    assert ";FRST;" in await instructed(world, await debit(world, wallet))


async def test_of_two_debits_at_once_under_a_mandate_for_once_one_is_refused(world: World) -> None:
    wallet = await opened(world)
    await signed(world, wallet, kind=MandateKind.ONE_OFF)
    asked = {
        "operation": "DIRECT_DEBIT", "wallet_id": wallet, "amount_minor": 500,
        "payee": {"type": "mandate", "value": "MANDATE-17"},
    }  # fmt: skip
    both = await asyncio.gather(*(world._accept(asked, caller) for caller in world.callers(2)), return_exceptions=True)
    refused = [each for each in both if isinstance(each, Refusal)]
    assert [each.code for each in refused] == ["mandate_used"]
    mandate = await shown(world)
    assert (mandate.state, [each.sequence for each in mandate.debits]) == ("ENDED", ["OOFF"])


async def at_once(world: World, *asked: tuple[str, dict[str, Any]]) -> list[Any]:
    """Ask for debits under keys of their own, in one transaction; return the answers."""
    base = {"operation": "DIRECT_DEBIT", "amount_minor": 500, "currency": "THB"}
    base["payee"] = {"type": "mandate", "value": "MANDATE-17"}
    requests = [(key, IntentRequest.model_validate(base | each)) for key, each in asked]
    return await world.core.accept.accept_all(world.caller, requests)


async def test_a_repeat_beside_a_new_debit_draws_nothing(world: World) -> None:
    wallet = await opened(world)
    await signed(world, wallet, kind=MandateKind.ONE_OFF)
    one, other = ("K1", {"wallet_id": wallet}), ("K2", {"wallet_id": wallet})
    (first,) = await at_once(world, one)
    await instructed(world, first.intent.id)
    await world.tell(collect_job(first.intent.id), "DECLINED", kind="collect", reason="no_funds")
    again, made = await at_once(world, one, other)
    assert (again.replayed, again.intent.id) == (True, first.intent.id)
    assert ";OOFF;" in await instructed(world, made.intent.id)
    assert [(each.sequence, each.state) for each in (await shown(world)).debits][1:] == [("OOFF", "FAILED")]


async def test_what_is_refused_for_its_price_or_a_limit_is_no_first_debit_of_its_neighbours(world: World) -> None:
    wallet = await opened(world)
    await put(world, operation="DIRECT_DEBIT")
    dear = ("K1", {"wallet_id": wallet, "auto_confirm": {"max_fee_minor": 0}})
    limited = ("K2", {"wallet_id": wallet, "amount_minor": 50_000})
    ports, body = world.core.ports, {"name": "each", "kind": "TRANSACTION", "currency": "THB", "max_amount_minor": 900}
    async with ports.unit_of_work(world.caller.context()) as uow:
        await set_limit(uow, ports.limit_store, world.caller.tenant_id, "test", LimitRequest.model_validate(body))
    ports.limits.forget(world.caller.tenant_id)
    await signed(world, wallet)
    refused, failed, first, second = await at_once(
        world, dear, limited, ("K3", {"wallet_id": wallet}), ("K4", {"wallet_id": wallet})
    )
    assert (refused.code, failed.intent.failure_code) == ("fee_above_agreed", "limit_exceeded")
    assert ";FRST;" in await instructed(world, first.intent.id)
    assert ";RCUR;" in await instructed(world, second.intent.id)


async def test_what_was_not_signed_is_refused_before_anything_is_held(world: World) -> None:
    wallet = await opened(world)
    other = await world.wallet(1)
    await signed(world, wallet, max_amount_minor=500)
    await signed(world, wallet, "AHEAD", valid_from=date(2999, 1, 1))
    await signed(world, wallet, "OVER", valid_until=date(2026, 1, 6))
    for code, payee, asked_for, amount_minor in (
        ("mandate_not_found", "MANDATE-18", wallet, 1),
        ("mandate_not_found", "MANDATE-17;2026-01-05;RCUR;004-9999999999;Anong", wallet, 1),
        ("mandate_wallet_differs", "MANDATE-17", other, 1),
        ("mandate_amount_exceeded", "MANDATE-17", wallet, 501),
        ("mandate_not_yet_valid", "AHEAD", wallet, 1),
        ("mandate_expired", "OVER", wallet, 1),
    ):
        with pytest.raises(Refusal) as refused:
            await debit(world, asked_for, payee, amount_minor)
        assert refused.value.code == code
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.jobs") == 0


async def test_a_cancelled_mandate_ends_what_was_not_sent_and_leaves_what_was(world: World) -> None:
    wallet = await opened(world, cancel_by_reference=False)
    await signed(world, wallet)
    sent, waiting = await debit(world, wallet), await debit(world, wallet)
    await instructed(world, sent)
    after = await cancel_mandate(world.core.ports, world.caller, "MANDATE-17", "the customer asked")
    assert {each.intent_id: each.state for each in after.debits} == {waiting: "CANCELLED", sent: "AUTHORIZED"}
    assert (await world.ask([collect_job(waiting)]))[0].answer == "CLOSED"
    with pytest.raises(Refusal) as refused:
        await debit(world, wallet)
    assert refused.value.code == "mandate_cancelled"
    again = await cancel_mandate(world.core.ports, world.caller, "MANDATE-17", "twice")
    assert again.cancelled_at == after.cancelled_at
    noted = await world.admin.fetch("SELECT action FROM fleet.audit_entries WHERE subject = 'mandate:MANDATE-17'")
    assert sorted(row["action"] for row in noted) == ["mandate_cancelled", "mandate_registered"]


async def dies(*_: Any) -> None:
    """End a process in the middle of its work."""
    raise ConnectionError


async def test_no_debit_of_a_cancelled_mandate_is_sent_though_whoever_cancelled_it_died(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    wallet = await opened(world)
    await signed(world, wallet)
    sent, waiting = await debit(world, wallet), await debit(world, wallet)
    await instructed(world, sent)
    with monkeypatch.context() as dying:
        # The first transaction has committed, and the process does not come to the second.
        dying.setattr(MandateStore, "open_debits", dies)
        with pytest.raises(ConnectionError):
            await cancel_mandate(world.core.ports, world.caller, "MANDATE-17", "the customer asked")
    (refused,) = await world.ask([collect_job(waiting)])
    assert (refused.answer, refused.reason) == ("CLOSED", "mandate_cancelled")
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.attempts") == 1
    await completed(world, StrandedKind.UNCANCELLED, waiting)
    after = await shown(world)
    assert {each.intent_id: each.state for each in after.debits} == {waiting: "CANCELLED", sent: "AUTHORIZED"}


@pytest.mark.parametrize("dying", [False, True])
async def test_a_debit_that_provably_did_not_leave_is_not_sent_again_once_its_mandate_is_cancelled(
    world: World, monkeypatch: pytest.MonkeyPatch, dying: bool
) -> None:
    wallet = await opened(world, cancel_by_reference=False)
    await signed(world, wallet)
    refused = await debit(world, wallet)
    await instructed(world, refused)
    await world.tell(collect_job(refused), "NOT_SENT", kind="collect", reason="bank_away", retry_after_s=1)
    await world.admin.execute("UPDATE fleet.jobs SET not_before = now(), busy_until = now()")
    with monkeypatch.context() as process:
        if dying:
            process.setattr(MandateStore, "open_debits", dies)
        with suppress(ConnectionError):
            await cancel_mandate(world.core.ports, world.caller, "MANDATE-17", "the customer asked")
    (answer,) = await world.ask([collect_job(refused)])
    assert answer.answer == "CLOSED"
    if dying:
        await completed(world, StrandedKind.UNCANCELLED, refused)
    assert (await world.state(refused))[0] == "CANCELLED"
    assert await world.admin.fetchval("SELECT count(*) FROM fleet.attempts") == 1
    await world.prove()


async def test_the_same_mandate_again_is_the_same_and_another_under_its_id_is_refused(world: World) -> None:
    wallet = await opened(world)
    assert (await signed(world, wallet)) == (await signed(world, wallet))
    for change in ({"max_amount_minor": 5}, {"debtor_name": "Anong P."}):
        with pytest.raises(Refusal) as refused:
            await signed(world, wallet, **change)
        assert refused.value.code == "mandate_exists"
    await signed(world, wallet, "A-1")
    page = await list_mandates(world.core.ports, world.caller, wallet, None, 1)
    assert [each.mandate_id for each in page.items] == ["A-1"]
    rest = await list_mandates(world.core.ports, world.caller, None, page.next_cursor, 1)
    assert ([each.mandate_id for each in rest.items], rest.next_cursor) == (["MANDATE-17"], None)
    with pytest.raises(Refusal) as unknown:
        await shown(world, "MANDATE\0")
    with pytest.raises(Refusal) as malformed:
        await list_mandates(world.core.ports, world.caller, None, encode_cursor("A\0"), 1)
    assert (unknown.value.code, malformed.value.code) == ("not_found", "cursor_malformed")
    # Who signed is sealed, and no answer tells it.
    stored = await world.admin.fetchrow("SELECT debtor, account_masked FROM fleet.mandates WHERE mandate_id = 'A-1'")
    assert stored is not None
    assert stored["account_masked"] == "**********6789"
    assert b"Somchai" not in stored["debtor"]
    assert "Somchai" not in (await shown(world)).model_dump_json()
