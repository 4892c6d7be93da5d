"""Refunds of payments between wallets, on a real database with the real ledger."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from core.bootstrap import open_core
from core.services.access.keys import Caller
from core.services.payments.accept import Accepted
from core.services.payments.read_intents import IntentFilter
from core.services.problems import Refusal
from core.services.terms.set_limits import set_limit
from schemas.api import IntentRequest, WalletRequest
from schemas.limits import LimitRequest
from tests.integration.permits.conftest import World
from tests.integration.permits.test_fees import income, put
from tests.integration.permits.test_internal_operations import move
from tests.support.lock_waits import somebody_waits


def request(original: Any, amount_minor: int, **changed: Any) -> IntentRequest:
    """A refund of a payment between wallets, changed."""
    body = {
        "operation": "REFUND", "original_intent_id": original.id, "wallet_id": original.counterparty_wallet_id,
        "amount_minor": amount_minor, "currency": "THB",
    }  # fmt: skip
    return IntentRequest.model_validate(body | changed)


async def refund(world: World, original: Any, amount_minor: int, caller: Caller | None = None, **changed: Any) -> Any:
    """Ask for a refund; return it as it was accepted."""
    asked = request(original, amount_minor, **changed)
    return (await world.core.accept.accept(caller or world.caller, f"refund-{next(world.numbers)}", asked)).intent


async def refused(world: World, original: Any, amount_minor: int, **changed: Any) -> str:
    """Ask for a refund that is refused; return the code."""
    with pytest.raises(Refusal) as caught:
        await refund(world, original, amount_minor, **changed)
    return caught.value.code


@pytest.mark.parametrize("operation", ["INTERNAL_P2P", "MINIAPP_CHARGE", "MINIAPP_CREDIT"])
async def test_a_payment_is_refunded_in_parts_up_to_what_it_moved_and_no_further(world: World, operation: str) -> None:
    payer, recipient = await world.wallet(1000), await world.wallet(1)
    caller = replace(world.caller, operations=world.caller.operations | {"MINIAPP_CHARGE"})
    original = await move(world, operation, payer, recipient, 100, caller)
    first = await refund(world, original, 30)
    assert (first.state, first.original_intent_id, first.counterparty_wallet_id) == ("SETTLED", original.id, payer)
    assert (await world.money(payer), await world.money(recipient)) == ((930, 0), (71, 0))
    assert await refused(world, original, 71) == "refund_exceeds_original"
    assert (await refund(world, original, 70)).state == "SETTLED"
    assert await refused(world, original, 1) == "refund_exceeds_original"
    assert (await world.money(payer), await world.money(recipient)) == ((1000, 0), (1, 0))
    page, _ = await world.core.read.page(world.caller, IntentFilter(original_intent_id=original.id), None, 10)
    assert sorted(each.amount_minor for each in page) == [30, 70]
    told = await world.admin.fetchval(
        "SELECT data->>'original_intent_id' FROM fleet.intent_events WHERE intent_id = $1", first.id
    )
    assert told == str(original.id)
    await world.prove()


async def test_fifty_refunds_at_once_never_exceed_what_was_settled(world: World) -> None:
    payer, recipient = await world.wallet(1000), await world.wallet(1000)
    original = await move(world, "INTERNAL_P2P", payer, recipient, 100)
    async with open_core(world.core.settings) as second:
        worlds = [world, replace(world, core=second)]
        answers = await asyncio.gather(
            *(refund(worlds[n % 2], original, 7, caller) for n, caller in enumerate(world.callers(50))),
            return_exceptions=True,
        )
    ends = Counter(each.code if isinstance(each, Refusal) else each.state for each in answers)  # type: ignore[union-attr]
    assert ends == {"SETTLED": 14, "refund_exceeds_original": 36}
    assert (await world.money(payer), await world.money(recipient)) == ((998, 0), (1002, 0))
    await world.prove()


async def test_in_one_batch_a_repeat_takes_no_room_and_what_does_not_fit_fails(world: World) -> None:
    payer, recipient = await world.wallet(1000), await world.wallet(1)
    original = await move(world, "INTERNAL_P2P", payer, recipient, 100)
    (first,) = await world.core.accept.accept_all(world.caller, [("one", request(original, 40))])
    again, second, third = await world.core.accept.accept_all(
        world.caller,
        [("one", request(original, 40)), ("two", request(original, 60)), ("three", request(original, 1))],
    )
    assert not isinstance(first, Exception)
    assert not isinstance(again, Exception)
    assert not isinstance(second, Exception)
    assert not isinstance(third, Exception)
    assert (again.replayed, again.intent.id) == (True, first.intent.id)
    assert second.intent.state == "SETTLED"
    assert (third.intent.state, third.intent.failure_code) == ("FAILED", "refund_exceeds_original")
    repeated = await world.core.accept.accept(world.caller, "three", request(original, 1))
    assert (repeated.replayed, repeated.intent.failure_code) == (True, "refund_exceeds_original")
    assert await world.money(payer) == (1000, 0)
    await world.prove()


async def test_fees_go_back_in_proportion_where_their_rule_says_so_and_stay_where_not(world: World) -> None:
    payer, recipient = await world.wallet(1000), await world.wallet(1)
    await put(world, operation="INTERNAL_P2P", name="kept", fee={"kind": "RATE", "fixed_minor": 20})
    await put(
        world, operation="INTERNAL_P2P", name="back", fee={"kind": "RATE", "fixed_minor": 10}, on_refund="RETURNED"
    )
    await put(
        world, operation="INTERNAL_P2P", name="out", phase="POST", fee={"kind": "RATE", "fixed_minor": 1},
        on_refund="RETURNED",
    )  # fmt: skip
    original = await move(world, "INTERNAL_P2P", payer, recipient, 100)
    assert (await world.money(payer), await world.money(recipient), await income(world)) == ((870, 0), (100, 0), 31)
    part = await refund(world, original, 33)
    assert (part.fee_minor, part.received_minor) == (0, 33 + 3)
    assert (await world.money(payer), await world.money(recipient), await income(world)) == ((906, 0), (67, 0), 28)
    assert await refused(world, original, 67) == "refund_exceeds_original"
    assert (await refund(world, original, 66)).received_minor == 66 + 7 + 1
    assert (await world.money(payer), await world.money(recipient), await income(world)) == ((980, 0), (1, 0), 20)
    await world.prove()


async def give_back(world: World) -> None:
    """Set a limit of the day that refunds give back to."""
    body = {
        "name": "daily", "kind": "DAY", "currency": "THB", "operation": "INTERNAL_P2P", "max_amount_minor": 100,
        "refund_gives_back": True,
    }  # fmt: skip
    ports = world.core.ports
    async with ports.unit_of_work(world.caller.context()) as uow:
        limit = LimitRequest.model_validate(body)
        await set_limit(uow, ports.limit_store, world.caller.tenant_id, "test", limit)
    ports.limits.forget(world.caller.tenant_id)


async def test_a_refund_gives_back_what_a_limit_lets_it(world: World) -> None:
    payer, recipient = await world.wallet(1000), await world.wallet(1)
    await give_back(world)
    ports = world.core.ports
    original = await move(world, "INTERNAL_P2P", payer, recipient, 100)
    assert (await move(world, "INTERNAL_P2P", payer, recipient, 1)).failure_code == "limit_exceeded"
    assert (await refund(world, original, 30)).state == "SETTLED"
    assert (await move(world, "INTERNAL_P2P", payer, recipient, 31)).failure_code == "limit_exceeded"
    assert (await move(world, "INTERNAL_P2P", payer, recipient, 30)).state == "SETTLED"
    async with world.uow() as uow:
        assert await ports.limit_store.verify(uow) == []
    await world.prove()


async def test_what_a_refund_gives_back_is_locked_with_what_others_take_and_before_any_account(world: World) -> None:
    low, high, recipient = await world.wallet(1000), await world.wallet(1000), await world.wallet(1)
    await give_back(world)
    originals = [await move(world, "INTERNAL_P2P", high, recipient, 10) for _ in range(4)]
    await move(world, "INTERNAL_P2P", low, recipient, 10)
    counter = "SELECT FROM fleet.limit_usage WHERE subject = $1 FOR NO KEY UPDATE"
    accounts = "SELECT FROM fleet.accounts WHERE id = ANY ($1::uuid[]) FOR NO KEY UPDATE SKIP LOCKED"

    async def held_up(held: UUID, original: Any, *, doubted: bool) -> int:
        """Return how many of the accounts, and of counters that come later, are free while a batch waits for one."""
        # Who was refused a payment last has the ledger asked before the end.
        world.core.accept._doubted = {world.caller.key_id} if doubted else set()
        batch = [(f"back-{held}-{original.id}", request(original, 1)), (f"new-{held}-{original.id}", taking)]
        async with world.uow() as holder:
            await holder.connection.fetch(counter, str(held))
            asked = asyncio.create_task(world.core.accept.accept_all(world.caller, batch))
            await somebody_waits(world.core.worker_database)
            free = len(await holder.connection.fetch(accounts, [low, high, recipient]))
            if held == low:
                free += len(await holder.connection.fetch(f"{counter} SKIP LOCKED", str(high)))
        assert [each.intent.state for each in await asked if isinstance(each, Accepted)] == ["SETTLED"] * 2
        return free

    body = {"operation": "INTERNAL_P2P", "wallet_id": low, "counterparty_wallet_id": recipient, "currency": "THB"}
    taking = IntentRequest.model_validate(body | {"amount_minor": 1})
    for doubted in (False, True):
        assert [await held_up(held, originals.pop(), doubted=doubted) for held in (low, high)] == [4, 3], doubted
    await world.prove()


async def test_a_recipient_without_money_refunds_nothing_and_may_try_again(world: World) -> None:
    payer, recipient, third = await world.wallet(1000), await world.wallet(1), await world.wallet(1)
    original = await move(world, "INTERNAL_P2P", payer, recipient, 100)
    await move(world, "INTERNAL_P2P", recipient, third, 101)
    failed = await refund(world, original, 100)
    assert (failed.state, failed.failure_code) == ("FAILED", "insufficient_funds")
    await move(world, "INTERNAL_P2P", third, recipient, 100)
    assert (await refund(world, original, 100)).state == "SETTLED"
    assert await world.money(payer) == (1000, 0)
    await world.prove()


async def test_a_refund_that_cannot_be_meant_is_refused_and_moves_nothing(world: World) -> None:
    await world.register()
    payer, recipient = await world.wallet(1000), await world.wallet(1)
    rouble, _ = await world.core.wallets.create(world.caller, WalletRequest(owner="anna", currency="RUB"))
    original = await move(world, "INTERNAL_P2P", payer, recipient, 100)
    lacking = await move(world, "INTERNAL_P2P", recipient, payer, 10_000)
    sent = await world.core.read.get(world.caller, await world.pay(payer))
    back = await refund(world, original, 1)
    for changed, code in (
        ({"original_intent_id": None}, "original_missing"),
        ({"operation": "INTERNAL_P2P", "counterparty_wallet_id": payer}, "original_not_expected"),
        ({"original_intent_id": UUID(int=7)}, "original_not_found"),
        ({"original_intent_id": sent.id}, "original_not_refundable"),
        ({"original_intent_id": back.id}, "original_not_refundable"),
        ({"original_intent_id": lacking.id, "wallet_id": payer}, "original_not_settled"),
        ({"wallet_id": payer}, "refund_wallet_differs"),
        ({"wallet_id": rouble.id, "currency": "RUB"}, "currency_mismatch"),
        ({"counterparty_wallet_id": payer}, "counterparty_not_expected"),
        ({"direction": "DEBIT"}, "direction_not_expected"),
    ):
        caller = replace(world.caller, operations=world.caller.operations | {"ADJUSTMENT_DEBIT"})
        assert await refused(world, original, 5, caller=caller, **changed) == code
    # Confined to its own wallets, a key refunds out of these alone.
    payers = replace(world.caller, accounts=frozenset({payer}))
    assert await refused(world, original, 5, caller=payers) == "account_not_permitted"
    assert await world.money(recipient) == (100, 0)


async def test_another_tenant_finds_nothing_to_refund(world: World) -> None:
    payer, recipient = await world.wallet(1000), await world.wallet(1)
    original = await move(world, "INTERNAL_P2P", payer, recipient, 100)
    stranger = UUID(int=77)
    await world.admin.execute("INSERT INTO fleet.tenants (tenant_id, name) VALUES ($1, 'other')", stranger)
    theirs = replace(world.caller, tenant_id=stranger, key_id="theirs")
    own, _ = await world.core.wallets.create(theirs, WalletRequest(owner="ben", currency="THB"))
    assert await refused(world, original, 5, caller=theirs) == "wallet_not_found"
    assert await refused(world, original, 5, caller=theirs, wallet_id=own.id) == "original_not_found"
    assert await world.money(recipient) == (101, 0)
