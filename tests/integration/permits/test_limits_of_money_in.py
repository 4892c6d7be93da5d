"""What becomes of limits where money in comes back, once or in parts, and where a person gives it out of suspense."""

from typing import Any
from uuid import UUID

import pytest

from tests.integration.permits.conftest import World
from tests.integration.permits.test_codes_paid_often import OFTEN, standing
from tests.integration.permits.test_collections import limit, opened, reference, shown, suspense, told, top_up
from tests.integration.permits.test_fees import put
from tests.integration.permits.test_refunds_by_rail import REFUNDS, collected, given_back, refund_job
from tests.integration.permits.test_returns_of_collections import BACK

GIVES: dict[str, Any] = {"max_amount_minor": 2_000, "refund_gives_back": True}


async def used(world: World, wallet: UUID, name: str = "in") -> tuple[int, int]:
    """Return what is used and held of a limit, which must agree with what intents have at it."""
    used_minor, held_minor, _, _ = (await standing(world, wallet))[name]
    async with world.uow() as uow:
        assert await world.core.worker_ports.limit_store.verify(uow) == []
    await world.prove()
    return used_minor, held_minor


@pytest.mark.parametrize("spent_minor", [0, 500, 2_001], ids=["there", "spent in part", "spent"])
async def test_what_a_provider_takes_back_gives_the_limit_back_once_whoever_bears_it(
    world: World, spent_minor: int
) -> None:
    await limit(world, "in", operation="TOPUP", **GIVES)
    await limit(world, "keeps", operation="TOPUP", max_amount_minor=9_000)
    wallet = await opened(world, **REFUNDS)
    await collected(world, wallet)
    if spent_minor:
        await world.pay(wallet, spent_minor)
    assert await world.state(await top_up(world, wallet, 1)) == ("FAILED", "limit_exceeded")
    assert [await told(world, BACK) for _ in range(3)] == [["REVERSED"], ["KNOWN"], ["KNOWN"]]
    assert (await used(world, wallet), await used(world, wallet, "keeps")) == ((0, 0), (2_000, 0))
    assert (await world.state(await top_up(world, wallet, 2_000)))[0] == "AUTHORIZED"


async def test_what_was_refunded_before_is_given_back_by_the_refund_and_the_rest_by_the_return(world: World) -> None:
    await limit(world, "in", operation="TOPUP", **GIVES)
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    await world._accept({"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": 9_000})
    await given_back(world, original, wallet, 1_500, "R1")
    assert await used(world, wallet) == (500, 0)
    assert await told(world, BACK) == ["REVERSED"]
    # What left twice left suspense the second time: the limit had counted it once.
    assert (await suspense(world), await used(world, wallet)) == (-1_500, (0, 0))


async def test_a_part_that_is_taken_back_gives_that_part(world: World) -> None:
    await limit(world, "in", operation="TOPUP", **GIVES)
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    assert await told(world, BACK | {"amount_minor": 700}) == ["REVERSED"]
    assert await used(world, wallet) == (1_300, 0)
    await given_back(world, original, wallet, 1_300, "R1")
    assert await used(world, wallet) == (0, 0)


async def test_of_fees_on_top_no_limit_gives_anything_back(world: World) -> None:
    await limit(world, "in", operation="TOPUP", **GIVES)
    await put(world, operation="TOPUP", fee={"kind": "RATE", "fixed_minor": 7})
    wallet = await opened(world, **REFUNDS)
    intent = await shown(world, wallet)
    assert await told(world, {"reference": await reference(world, intent), "amount_minor": 2_007}) == ["CREDITED"]
    assert await used(world, wallet) == (2_000, 0)
    assert await told(world, BACK | {"amount_minor": 2_007}) == ["REVERSED"]
    assert await used(world, wallet) == (0, 0)


async def test_what_is_taken_back_out_of_suspense_was_counted_by_no_limit_and_gives_none_back(world: World) -> None:
    await limit(world, "in", operation="TOPUP", **GIVES)
    wallet = await opened(world, **REFUNDS)
    intent = await shown(world, wallet)
    ours = await reference(world, intent)
    for name in ("T1", "T2"):
        await told(world, {"reference": ours, "transaction_id": name})
    assert await told(world, BACK | {"transaction_id": "T2"}) == ["REVERSED"]
    assert (await suspense(world), await used(world, wallet)) == (0, (2_000, 0))


async def test_a_further_payment_that_is_taken_back_gives_back_what_it_used(world: World) -> None:
    await limit(world, "in", operation="DEPOSIT", **GIVES)
    wallet = await opened(world, **OFTEN, **REFUNDS)
    intent = await shown(world, wallet, operation="DEPOSIT")
    ours = await reference(world, intent)
    paid = [{"reference": ours, "transaction_id": name} for name in ("T1", "T2", "T3")]
    assert await told(world, *paid) == ["CREDITED", "SUSPENDED", "SUSPENDED"]
    assert await used(world, wallet) == (6_000, 0)
    # Of one batch, too: paid and taken back at once.
    assert await told(world, paid[2] | BACK, {"reference": ours, "transaction_id": "T4"}) == ["REVERSED", "SUSPENDED"]
    assert await told(world, paid[1] | BACK) == ["REVERSED"]
    assert await used(world, wallet) == (4_000, 0)


async def test_parts_of_a_further_payment_give_no_more_back_than_it_used(world: World) -> None:
    await limit(world, "in", operation="DEPOSIT", **GIVES | {"max_amount_minor": 4_000})
    await put(world, operation="DEPOSIT", fee={"kind": "RATE", "fixed_minor": 30})
    wallet = await opened(world, **OFTEN, **REFUNDS)
    intent = await shown(world, wallet, operation="DEPOSIT")
    ours = await reference(world, intent)
    for name in ("T1", "T2"):
        await told(world, {"reference": ours, "transaction_id": name, "amount_minor": 2_030})
    await world._accept({"operation": "MANUAL_ADJUSTMENT", "wallet_id": wallet, "amount_minor": 59})  # of the fees
    further = await world.admin.fetchval("SELECT id FROM fleet.intents WHERE direction = 'RELEASE'")
    assert await used(world, wallet) == (4_000, 0)
    await given_back(world, intent, wallet, 2_030, "R1")
    for place, part_minor in enumerate((1_000, 1_030), start=2):
        await given_back(world, further, wallet, part_minor, f"R{place}")
    # Each part is rounded down: 985 and 1014 of 2000.
    assert await used(world, wallet) == (1, 0)


async def test_a_refund_that_comes_back_is_used_again_until_it_is_refunded_anew(world: World) -> None:
    await limit(world, "in", operation="TOPUP", **GIVES)
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    first = await given_back(world, original, wallet, 2_000, "R1")
    assert await used(world, wallet) == (0, 0)
    back: dict[str, Any] = {"amount_minor": 2_000, "currency": "THB", "provider_tx_id": "R1"}
    for _ in range(2):
        await world.tell(refund_job(first), "RETURNED", kind="refund", basis="REFERENCE_STATUS", **back)
    assert (await world.money(wallet), await used(world, wallet)) == ((2_001, 0), (2_000, 0))
    await given_back(world, original, wallet, 2_000, "R2")
    assert (await world.money(wallet), await used(world, wallet)) == ((1, 0), (0, 0))
