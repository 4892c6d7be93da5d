"""What a person gives to a wallet out of suspense takes the limits of its deposits, exactly, or rests on."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from core.services.problems import Refusal
from tests.integration.permits.conftest import World
from tests.integration.permits.test_codes_paid_often import standing
from tests.integration.permits.test_collections import limit, opened, suspense, told, top_up
from tests.integration.permits.test_limits_of_money_in import used
from tests.integration.permits.test_refunds_by_rail import REFUNDS, given_back
from tests.integration.permits.test_reviews import decide
from tests.integration.permits.test_suspense import assign, open_items, parked
from tests.integration.permits.test_suspense_by_two import assign as assign_by_two
from tests.integration.permits.test_suspense_by_two import look, taker


async def exceeded(world: World, item: UUID, wallet: UUID) -> tuple[str | None, int | None, int | None]:
    """Return which limit refuses to let a wallet have an item, and the amount and number that it has left."""
    with pytest.raises(Refusal) as refused:
        await assign(world, item, wallet)
    assert (refused.value.code, refused.value.field) == ("limit_exceeded", "wallet_id")
    told = refused.value.limit
    assert told is not None
    return told.limit, told.remaining_minor, told.remaining_count


async def test_what_just_fits_is_given_and_a_unit_more_rests_on_until_there_is_room(world: World) -> None:
    await limit(world, "in", operation="DEPOSIT", max_amount_minor=1_400)
    wallet = await opened(world)
    items = [await parked(world, minor) for minor in (700, 701, 700)]
    await assign(world, items[0], wallet)
    assert await exceeded(world, items[1], wallet) == ("in", 700, None)
    assert (await used(world, wallet), await open_items(world)) == ((700, 0), items[1:])
    await assign(world, items[2], wallet)
    assert await used(world, wallet) == (1_400, 0)
    assert await world.state(await top_up(world, wallet, 1, operation="DEPOSIT")) == ("FAILED", "limit_exceeded")
    # Whoever may raise the limit lets it through.
    await limit(world, "in", operation="DEPOSIT", max_amount_minor=2_101)
    await assign(world, items[1], wallet)
    assert (await used(world, wallet), await world.money(wallet), await suspense(world)) == ((2_101, 0), (2_102, 0), 0)


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ({"max_count": 0}, ("in", None, 0)),
        ({"kind": "TRANSACTION", "max_amount_minor": 699}, ("in", 699, None)),
        ({"kind": "MONTH", "subject": "OWNER", "max_amount_minor": 699}, ("in", 699, None)),
        ({"subject": "TENANT", "max_amount_minor": 699}, ("in", 699, None)),
        ({"operation": "TOPUP", "max_amount_minor": 699}, None),
    ],
    ids=["number", "transaction", "owner", "tenant", "of another operation"],
)
async def test_every_limit_that_counts_a_deposit_counts_it(world: World, terms: dict[str, Any], told: object) -> None:
    await limit(world, "in", **terms)
    wallet = await opened(world)
    item = await parked(world)
    if told is None:
        await assign(world, item, wallet)
    else:
        assert await exceeded(world, item, wallet) == told
    assert await world.money(wallet) == (701 if told is None else 1, 0)
    await world.prove()


@pytest.mark.parametrize("two", [False, True], ids=["alone", "held for a second key"])
async def test_fifty_at_once_to_one_wallet_fill_the_limit_exactly(world: World, two: bool) -> None:
    await limit(world, "in", max_amount_minor=31 * 100 + 99)
    await limit(world, "number", kind="MONTH", subject="OWNER", max_count=40)
    wallet = await opened(world)
    await told(world, *({"transaction_id": f"T{n}", "reference": "NOBODYS", "amount_minor": 100} for n in range(50)))
    items = [row["id"] for row in await world.admin.fetch("SELECT id FROM fleet.provider_payments")]
    give = assign_by_two if two else assign
    answers = await asyncio.gather(*(give(world, item, wallet) for item in items), return_exceptions=True)
    refused = [each.code for each in answers if isinstance(each, Refusal)]
    assert refused == ["limit_exceeded"] * 19
    given = [each for each in answers if not isinstance(each, BaseException)]
    assert len(given) == 31
    assert await used(world, wallet) == ((0, 3_100) if two else (3_100, 0))
    if two:
        for place, each in enumerate(given):
            await decide(world, taker(each), "APPROVE" if place % 2 else "REJECT")
        assert await used(world, wallet) == (1_500, 0)
    _, _, _, count = (await standing(world, wallet))["number"]
    assert (await world.money(wallet), count) == ((1_501, 0), 15) if two else ((3_101, 0), 31)


async def test_what_waits_for_a_second_key_holds_the_limit_and_gives_it_back_if_it_is_not_given(world: World) -> None:
    await limit(world, "in", operation="DEPOSIT", max_amount_minor=700)
    wallet = await opened(world)
    first, second = await parked(world), await parked(world)
    waiting = taker(await assign_by_two(world, first, wallet))
    assert await used(world, wallet) == (0, 700)
    assert await exceeded(world, second, wallet) == ("in", 0, None)
    await decide(world, waiting, "REJECT")
    assert await used(world, wallet) == (0, 0)
    other = taker(await assign_by_two(world, second, wallet))
    await decide(world, other, "APPROVE")
    assert (await used(world, wallet), (await look(world, second)).state) == ((700, 0), "ASSIGNED")


async def test_what_its_provider_takes_back_gives_back_what_was_given_or_waited(world: World) -> None:
    await limit(world, "in", operation="DEPOSIT", max_amount_minor=1_400, refund_gives_back=True)
    wallet = await opened(world, **REFUNDS)
    given, waits = await assign(world, await parked(world), wallet), await parked(world)
    waiting = await assign_by_two(world, waits, wallet)
    assert await used(world, wallet) == (700, 700)
    for item in (given, waiting):
        back = {"transaction_id": item.transaction_id, "amount_minor": 700, "kind": "RETURN"}
        assert [await told(world, back) for _ in range(2)] == [["REVERSED"], ["KNOWN"]]
    assert (await used(world, wallet), await world.money(wallet), await suspense(world)) == ((0, 0), (1, 0), 0)


async def test_a_refund_of_what_was_given_gives_it_back(world: World) -> None:
    await limit(world, "in", operation="DEPOSIT", max_amount_minor=700, refund_gives_back=True)
    wallet = await opened(world, **REFUNDS)
    item = await assign(world, await parked(world), wallet)
    assert item.taken_by is not None
    await given_back(world, item.taken_by, wallet, 300, "R1")
    assert await used(world, wallet) == (400, 0)
