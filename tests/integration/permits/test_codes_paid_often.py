"""A static code is paid again and again: each payment is a credit of its own, matched by its own name, once."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from core.domain.operations import AccountCode
from core.services.money_in.provider_payments import tell_again
from core.services.terms.set_limits import wallet_limits
from schemas.collections import PaymentFate
from tests.integration.permits.conftest import World
from tests.integration.permits.test_collections import (
    collect_job,
    limit,
    opened,
    payments,
    reference,
    shown,
    suspense,
    told,
    top_up,
)
from tests.integration.permits.test_fees import income, put

OFTEN: dict[str, Any] = {"collection_reusable": True}
STATIC = {"kind": "QR", "payload": "00020101021129", "expires_at": None}


async def code(world: World, **more: Any) -> tuple[UUID, UUID, str]:
    """Return a wallet with 1, its deposit by a static code of 2000, and the code's reference."""
    wallet = await opened(world, **OFTEN)
    intent = await shown(world, wallet, operation="DEPOSIT", reference="TILL-7", **more)
    return wallet, intent, await reference(world, intent)


async def further(world: World) -> list[Any]:
    """Return the deposits that further payments made."""
    return list(await world.admin.fetch("SELECT * FROM fleet.intents WHERE direction = 'RELEASE' ORDER BY id"))


async def test_three_payments_of_one_amount_out_of_order_and_one_told_twice_are_three_credits(world: World) -> None:
    wallet, intent, ours = await code(world)
    order = ["T2", "T1", "T2", "T3"]
    fates = [(await told(world, {"reference": ours, "transaction_id": name}, event_id=f"E{place}"))[0]
             for place, name in enumerate(order)]  # fmt: skip
    assert fates == [PaymentFate.CREDITED, PaymentFate.SUSPENDED, PaymentFate.KNOWN, PaymentFate.SUSPENDED]
    assert await told(world, {"reference": ours, "transaction_id": "T1"}) == [PaymentFate.KNOWN]
    assert await world.money(wallet) == (6_001, 0)
    assert await suspense(world) == 0
    assert await world.state(intent) == ("SETTLED", None)
    made = await further(world)
    assert [(each["provider_reference"], each["amount_minor"], each["state"]) for each in made] == [
        ("T1", 2_000, "SETTLED"), ("T3", 2_000, "SETTLED"),
    ]  # fmt: skip
    assert {each["client_reference"] for each in made} == {"TILL-7"}
    assert await world.alerts() == [], "nothing is left to a person"
    await world.prove()


async def test_further_payments_count_over_a_limit_too_and_what_is_asked_for_next_is_refused(world: World) -> None:
    await limit(world, "deposits", operation="DEPOSIT", max_amount_minor=5_000, refund_gives_back=True)
    wallet, _, ours = await code(world)
    # Set once the code was shown: no counter of it is there when the first further payment comes.
    await limit(world, "by-owner", subject="OWNER", kind="MONTH", max_count=3)
    for name in ("T1", "T2"):
        await told(world, {"reference": ours, "transaction_id": name})
    assert await standing(world, wallet) == {"deposits": (4_000, 0, 1_000, 2), "by-owner": (2_000, 0, None, 1)}
    await told(world, {"reference": ours, "transaction_id": "T3"})
    assert await told(world, {"reference": ours, "transaction_id": "T3"}) == [PaymentFate.KNOWN]
    assert await standing(world, wallet) == {"deposits": (6_000, 0, 0, 3), "by-owner": (4_000, 0, None, 2)}
    assert await world.money(wallet) == (6_001, 0)
    refused = await top_up(world, wallet, 1, operation="DEPOSIT")
    assert await world.state(refused) == ("FAILED", "limit_exceeded")
    async with world.uow() as uow:
        assert await world.core.worker_ports.limit_store.verify(uow) == []
    await world.prove()


async def standing(world: World, wallet: UUID) -> dict[str, tuple[int, int, int | None, int]]:
    """Return what is used, held and left of each limit, and how often it was used."""
    async with world.core.ports.unit_of_work(world.caller.context()) as uow:
        ports, tenant = world.core.ports, world.caller.tenant_id
        shown = await wallet_limits(uow, ports.limit_store, tenant, wallet, datetime.now(UTC))
    return {each.name: (each.used_minor, each.held_minor, each.left_minor, each.used_count) for each in shown.items}


async def test_an_answer_that_lists_three_payments_credits_each_and_again_none(world: World) -> None:
    wallet, intent, _ = await code(world)
    listed = [{"transaction_id": name, "amount_minor": 2_000, "currency": "THB"} for name in ("T2", "T3")]
    money = {"amount_minor": 2_000, "currency": "THB", "provider_tx_id": "T1", "further": listed}
    for _ in range(2):
        await world.tell(collect_job(intent), "PAID", kind="collect", **money)
    assert (await world.money(wallet), len(await further(world))) == ((6_001, 0), 2)
    await world.prove()


async def test_a_statement_credits_what_follows_the_first_payment_and_a_register_line_does_not(world: World) -> None:
    wallet, intent, ours = await code(world)
    lines = [{"reference": ours, "transaction_id": name, "source": "STATEMENT"} for name in ("T1", "T2", "T3")]
    assert await told(world, *lines) == [PaymentFate.NOTED] * 3, "the first one is asked about"
    await world.tell(collect_job(intent), "PAID", kind="collect", amount_minor=2_000, currency="THB",
                     provider_tx_id="T2")  # fmt: skip
    await tell_again(world.core.worker_ports, world.uow, 100)
    assert (await world.money(wallet), await suspense(world)) == ((6_001, 0), 0)
    register = {"reference": ours, "transaction_id": "T4", "source": "REGISTER"}
    assert await told(world, register) == [PaymentFate.SUSPENDED]
    assert (await payments(world))[-1] == ("SUSPENDED", "second_payment")
    assert (await world.money(wallet), await suspense(world)) == ((6_001, 0), 2_000)
    await world.prove()


async def test_fees_leave_with_each_payment_and_another_amount_rests(world: World) -> None:
    wallet = await opened(world, **OFTEN)
    await put(world, operation="DEPOSIT", fee={"fixed_minor": 30})
    intent = await shown(world, wallet, operation="DEPOSIT")
    ours = await reference(world, intent)
    for name in ("T1", "T2"):
        await told(world, {"reference": ours, "transaction_id": name, "amount_minor": 2_030})
    await told(world, {"reference": ours, "transaction_id": "T3", "amount_minor": 2_000})
    assert await world.money(wallet) == (1 + 2 * 2_000, 0)
    assert (await income(world), await suspense(world)) == (60, 2_000)
    assert await world.alerts() == [("ticket", "suspense_amount_differs")]
    await world.prove()


@pytest.mark.parametrize("where", ["afterwards", "before", "in one batch"])
async def test_a_further_payment_that_is_taken_back_leaves_the_wallet_it_went_to(world: World, where: str) -> None:
    wallet, _, ours = await code(world)
    await told(world, {"reference": ours, "transaction_id": "T1"})
    paid = {"reference": ours, "transaction_id": "T2"}
    back = paid | {"kind": "RETURN"}
    if where == "in one batch":
        await told(world, paid, back)
    else:
        for fact in (back, paid) if where == "before" else (paid, back):
            await told(world, fact)
    await told(world, back)
    assert await world.money(wallet) == (2_001, 0)
    assert (await suspense(world), await suspense(world, AccountCode.RECEIVABLE)) == (0, 0)
    await world.prove()


async def test_what_comes_after_the_time_that_was_shown_rests_in_suspense(world: World) -> None:
    wallet = await opened(world, **OFTEN)
    intent = await shown(world, wallet, operation="DEPOSIT")
    until = datetime.now(UTC) + timedelta(minutes=10)
    await world.admin.execute(
        "UPDATE fleet.intents SET next_action = jsonb_set(next_action, '{expires_at}', to_jsonb($2::text))"
        " WHERE id = $1", intent, until.isoformat(),
    )  # fmt: skip
    ours = await reference(world, intent)
    late = until + timedelta(seconds=1)
    for name, at in (("T1", until), ("T2", until), ("T3", late)):
        await told(world, {"reference": ours, "transaction_id": name, "occurred_at": at})
    assert (await world.money(wallet), await suspense(world)) == ((4_001, 0), 2_000)
    assert await world.alerts() == [("ticket", "suspense_late_payment")]


async def test_what_the_first_payer_paid_too_little_of_is_no_measure_for_the_next(world: World) -> None:
    await world.admin.execute(
        "INSERT INTO fleet.collection_tolerances VALUES ($1, 'DEPOSIT', 'THB', 10, 0, 'test')", world.caller.tenant_id
    )
    wallet, _, ours = await code(world)
    for name, amount_minor in (("T1", 1_990), ("T2", 2_000), ("T3", 1_990), ("T4", 1_989)):
        await told(world, {"reference": ours, "transaction_id": name, "amount_minor": amount_minor})
    assert [each["amount_minor"] for each in await further(world)] == [2_000, 1_990]
    assert (await world.money(wallet), await suspense(world)) == ((1 + 1_990 + 2_000 + 1_990, 0), 1_989)
    await world.prove()
