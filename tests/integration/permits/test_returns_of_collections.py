"""What a payer's bank takes back of what was collected: twice, in part, too much, in other money, around refunds."""

from typing import Any

import pytest

from tests.integration.permits.conftest import World
from tests.integration.permits.test_collections import opened, reference, shown, suspense, told
from tests.integration.permits.test_refunds_by_rail import (
    REFUNDS,
    answered,
    collected,
    given_back,
    refund,
    refused,
)

BACK = {"kind": "RETURN", "source": "STATEMENT"}


async def test_a_return_told_again_does_nothing_and_one_of_another_amount_is_for_a_person(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    part = BACK | {"amount_minor": 700}
    assert [await told(world, part) for _ in range(2)] == [["REVERSED"], ["KNOWN"]]
    assert await world.money(wallet) == (1_301, 0)
    assert await told(world, BACK | {"amount_minor": 900}) == ["QUARANTINED"]
    assert (await world.money(wallet), ("page", "second_return") in await world.alerts()) == ((1_301, 0), True)
    # What is left of the payment may still be refunded, and not a unit more.
    assert await refused(world, original, wallet, 1_301) == "refund_exceeds_original"
    await given_back(world, original, wallet, 1_300, "R1")
    assert await world.money(wallet) == (1, 0)
    await world.prove()


@pytest.mark.parametrize("other", [{"amount_minor": 2_001}, {"currency": "RUB"}], ids=["more_than_paid", "currency"])
async def test_a_return_that_cannot_be_of_the_payment_moves_nothing(world: World, other: dict[str, Any]) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    assert await told(world, BACK | other) == ["QUARANTINED"]
    assert (await world.money(wallet), await suspense(world)) == ((2_001, 0), 0)
    assert ("page", "return_differs") in await world.alerts()
    await given_back(world, original, wallet, 2_000, "R1")
    await world.prove()


async def test_a_register_alone_takes_nothing_back_and_a_statement_does(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    await collected(world, wallet)
    assert await told(world, BACK | {"source": "REGISTER"}) == ["NOTED"]
    assert await world.money(wallet) == (2_001, 0)
    assert await told(world, BACK) == ["REVERSED"]
    assert await world.money(wallet) == (1, 0)
    await world.prove()


async def test_a_return_before_the_payment_settled_leaves_nothing_to_refund(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    intent = await shown(world, wallet)
    assert await told(world, {"kind": "RETURN"}) == ["NOTED"]
    await told(world, {"reference": await reference(world, intent)})
    assert await world.money(wallet) == (1, 0)
    assert await refused(world, intent, wallet, 1) == "original_not_settled"
    await world.prove()


async def test_a_part_that_is_taken_back_after_a_part_was_refunded_takes_what_is_left_of_it(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    await given_back(world, original, wallet, 500, "R1")
    assert await told(world, BACK | {"amount_minor": 700}) == ["REVERSED"]
    assert (await world.money(wallet), await suspense(world)) == ((801, 0), 0)
    assert await refused(world, original, wallet, 801) == "refund_exceeds_original"
    assert ("page", "return_exceeds_original") not in await world.alerts()
    await world.prove()


async def test_a_return_while_a_refund_is_on_its_way_takes_only_what_the_refund_leaves(world: World) -> None:
    wallet = await opened(world, **REFUNDS)
    original = await collected(world, wallet)
    running = await refund(world, original, wallet, 1_500)
    assert await told(world, BACK) == ["REVERSED"]
    assert (await world.money(wallet), await suspense(world)) == ((1_501, 1_500), -1_500)
    # The provider, from whom it was taken, refuses the refund: its money is in the wallet, and a person was called.
    await answered(world, running.id, "DECLINED", reason="payment_not_found")
    assert (await world.money(wallet), await suspense(world)) == ((1_501, 0), -1_500)
    assert ("page", "return_exceeds_original") in await world.alerts()
    assert await refused(world, original, wallet, 1) == "refund_exceeds_original"
    await world.prove()
