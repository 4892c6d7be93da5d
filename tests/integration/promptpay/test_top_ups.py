"""Top-ups by QR code through PromptPay: the old system's abnormal cases by their names, and the provider's webhooks."""

import asyncio
from typing import Any

import httpx
import pytest

from core.services.payments.cancel import cancel
from core.services.payments.read_intents import IntentFilter
from schemas.codes.emvco import decode
from tests.integration.promptpay.conftest import Street


async def payments(street: Street) -> list[tuple[str, str, str]]:
    """Return kind, state and reason of every payment that was told of."""
    rows = await street.world.admin.fetch(
        "SELECT kind, state, reason FROM fleet.provider_payments ORDER BY kind, reason"
    )
    return [tuple(row) for row in rows]


async def test_a_code_is_shown_and_its_payment_credited_by_asking(street: Street) -> None:
    intent = await street.top_up()
    (row,) = (await street.world.core.read.page(street.world.caller, IntentFilter(wallet_id=street.wallet), None, 1))[0]
    assert row.next_action is not None
    assert decode(row.next_action["payload"]).amount_minor == 2_000
    await street.poll()
    assert await street.money() == 1  # nobody has paid yet
    await street.pay(intent)
    await street.poll()
    assert (await street.state(intent), await street.money()) == ("SETTLED", 2_001)
    await street.world.prove()


async def test_a_webhook_credits_at_once_and_its_bytes_are_kept_first(street: Street) -> None:
    intent = await street.top_up()
    await street.pay(intent, "once")
    assert await street.told(1) == [200]
    assert (await street.state(intent), await street.money()) == ("SETTLED", 2_001)
    kept = await street.world.admin.fetch("SELECT id FROM fleet.evidence WHERE kind = 'callback'")
    linked = await street.world.admin.fetch("SELECT evidence_id FROM fleet.provider_payment_sources")
    assert [row["id"] for row in kept] == [row["evidence_id"] for row in linked]
    await street.world.prove()


async def test_duplicate_txid_on_top_up(street: Street) -> None:
    first, second = await street.top_up(), await street.top_up()
    txid = await street.pay(first, "twice")
    assert await street.told(2) == [200, 200]
    await street.poll()
    # The same transaction under another code: one payment is one payment, and the other code was not paid by it.
    await street.pay(second, "once", psp_txid=txid)
    await street.told(1)
    assert (await street.state(first), await street.money()) == ("SETTLED", 2_001)
    assert await payments(street) == [("PAYMENT", "CREDITED", "")]
    await street.world.prove()


async def test_duplicate_txid_with_another_amount_elsewhere(street: Street) -> None:
    first, second = await street.top_up(), await street.top_up(500)
    txid = await street.pay(first, "once")
    await street.told(1)
    await street.pay(second, "once", psp_txid=txid)
    await street.told(1)
    assert (await street.state(first), await street.money()) == ("SETTLED", 2_001)
    assert ("page", "same_transaction_other_money") in await street.world.alerts()
    await street.world.prove()


@pytest.mark.parametrize("baht", [1, 2, 18, 19, 20, 21])
async def test_odd_small_amounts_against_a_code_of_20_baht(street: Street, baht: int) -> None:
    intent = await street.top_up(2_000)
    await street.pay(intent, "once", amount_minor=baht * 100)
    await street.told(1)
    if baht == 20:
        assert (await street.state(intent), await street.money(), await street.suspense()) == ("SETTLED", 2_001, 0)
    else:
        assert await street.world.state(intent) == ("FAILED", "amount_differs")
        assert (await street.money(), await street.suspense()) == (1, baht * 100)
    await street.world.prove()


async def test_slow_debit_leaves_a_top_up_uncredited_until_the_provider_has_booked_it(street: Street) -> None:
    intent = await street.top_up()
    for _ in range(3):
        await street.poll()
        assert (await street.state(intent) in ("AUTHORIZED", "DISPATCHED"), await street.money()) == (True, 1)
    await street.pay(intent)
    await street.poll()
    assert (await street.state(intent), await street.money()) == ("SETTLED", 2_001)


async def test_payment_after_expiry(street: Street) -> None:
    intent = await street.top_up()
    reference = await street.reference(intent)
    await cancel(street.world.core.ports, street.world.caller, intent)
    await street.poll()
    assert await street.state(intent) == "CANCELLED"
    await street.control.post("/_control/pay", json={"reference": reference, "manner": "late"})
    assert await street.told(1) == [200]
    assert (await street.state(intent), await street.money(), await street.suspense()) == ("CANCELLED", 1, 2_000)
    assert await payments(street) == [("PAYMENT", "SUSPENDED", "late_payment")]
    await street.world.prove()


async def test_second_payment_on_a_one_time_qr(street: Street) -> None:
    intent = await street.top_up()
    await street.pay(intent, "once")
    await street.told(1)
    await street.pay(intent, "once")
    await street.told(1)
    assert (await street.money(), await street.suspense()) == (2_001, 2_000)
    assert await payments(street) == [("PAYMENT", "CREDITED", ""), ("PAYMENT", "SUSPENDED", "second_payment")]
    await street.world.prove()


@pytest.mark.parametrize("manner", ["forged", "tampered", "stale"])
async def test_a_webhook_that_is_not_genuine_has_no_effect(street: Street, manner: str) -> None:
    intent = await street.top_up()
    await street.pay(intent, manner)
    assert await street.told(4) == [401] * 4  # refused each time that it is repeated
    assert (await street.money(), await payments(street)) == (1, [])
    assert await street.world.admin.fetchval("SELECT count(*) FROM fleet.evidence WHERE kind = 'callback'") == 0
    await street.poll()
    assert await street.money() == 2_001  # what is true is found by asking


async def test_a_webhook_that_the_core_could_not_keep_is_told_again(street: Street) -> None:
    intent = await street.top_up()
    street.core.away = True
    await street.pay(intent, "once")
    assert await street.told(1) == [503]
    street.core.away = False
    assert await street.told(1) == [200]
    assert (await street.state(intent), await street.money()) == ("SETTLED", 2_001)


async def test_webhooks_out_of_order_and_a_return_after_credit(street: Street) -> None:
    credited, early = await street.top_up(), await street.top_up()
    txid = await street.pay(credited, "once")
    await street.told(1)
    assert await street.money() == 2_001
    await street.control.post("/_control/return", json={"psp_txid": txid})
    await street.told(1)
    assert (await street.money(), await street.state(credited)) == (1, "SETTLED")
    # Here the return is told before the payment: nobody is given what is gone already.
    other = await street.pay(early)
    await street.control.post("/_control/return", json={"psp_txid": other, "before_payment": True})
    await street.told(2)
    assert await street.money() == 1
    assert ("PAYMENT", "SUSPENDED", "returned_before") in await payments(street)
    await street.world.prove()


async def test_every_payment_of_one_code_is_booked_however_many_there_are(street: Street) -> None:
    intent = await street.top_up()
    first = await street.pay(intent, amount_minor=2_000)
    for _ in range(24):
        await street.pay(intent)
    await street.poll()
    assert (await street.state(intent), await street.money(), await street.suspense()) == ("SETTLED", 2_001, 48_000)
    credited = "SELECT transaction_id FROM fleet.provider_payments WHERE state = 'CREDITED'"
    assert await street.world.admin.fetchval(credited) == first
    assert len(await payments(street)) == 25
    await street.world.prove()


async def test_which_of_two_payments_came_back_is_never_guessed(street: Street) -> None:
    intent = await street.top_up()
    await street.pay(intent)
    second = await street.pay(intent)
    await street.control.post("/_control/return", json={"psp_txid": second, "manner": "never"})
    await street.poll()
    # The code says that a payment came back, and not which of the two: nothing is credited and nothing taken back.
    assert await payments(street) == []
    assert (await street.money(), await street.suspense()) == (1, 0)
    await street.control.post("/_control/return", json={"psp_txid": second, "before_payment": True})
    assert await street.told(2) == [200, 200]
    assert [kind for kind, state, _ in await payments(street) if state != "NOTED"] == ["PAYMENT", "RETURN"]
    assert (await street.money(), await street.suspense()) == (1, 0)
    await street.world.prove()


async def test_a_lost_answer_to_a_code_is_found_by_asking_and_makes_one_code(street: Street) -> None:
    script: dict[str, Any] = {"fault": "error_after", "times": 1}
    assert (await street.control.post("/_control/faults", json=script)).is_success
    intent = await street.top_up()
    await street.poll()
    row = await street.world.admin.fetchrow("SELECT next_action FROM fleet.intents WHERE id = $1", intent)
    assert row is not None
    assert row["next_action"] is not None
    await street.pay(intent)
    await street.poll()
    assert (await street.state(intent), await street.money()) == ("SETTLED", 2_001)


async def test_a_thousand_bytes_too_many_and_a_stranger_are_not_let_in(street: Street, callback_port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{callback_port}") as stranger:
        answers = await asyncio.gather(
            stranger.post("/", content=b"x" * 70_000),
            stranger.post("/", content=b"{}"),
            stranger.get("/"),
        )
    assert [answer.status_code for answer in answers] == [413, 401, 405]
