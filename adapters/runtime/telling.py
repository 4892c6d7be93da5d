"""What is told to the core goes a page at a time, and one piece that it refuses holds up no other."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from adapters.runtime.core_client import CoreRefusedError, PaymentsPort
from schemas.collections import ProviderPayment, ProviderPaymentBatch

log = logging.getLogger(__name__)

_OF_FACTS: Final = frozenset({400, 403, 413, 422})
"""Refusals that one fact may be the cause of; any other is of the teller, whatever it tells."""


Item = TypeVar("Item")
Refused = list[tuple[Item, CoreRefusedError]]


async def in_halves(
    post: Callable[[Sequence[Item]], Awaitable[object]],
    items: Sequence[Item],
    by_one: Callable[[CoreRefusedError], bool] = lambda _: True,
) -> Refused[Item]:
    """Post items in their order; return those that the core refuses one by one, where all others are taken.

    What is refused together is halved until it is one item. Raises CoreUnavailableError, and CoreRefusedError where no
    one item can be the cause (`by_one`); all of them may be posted again after that.
    """
    try:
        await post(items)
    except CoreRefusedError as error:
        if not by_one(error):
            raise
        if len(items) == 1:
            return [(items[0], error)]
        half = len(items) // 2
        return await in_halves(post, items[:half], by_one) + await in_halves(post, items[half:], by_one)
    return []


async def tell_facts(core: PaymentsPort, facts: Sequence[ProviderPayment]) -> list[ProviderPayment]:
    """Tell facts in their order; return those that the core refuses one by one, where all others are taken.

    Raises CoreUnavailableError, and CoreRefusedError where no fact is the cause; told again after that, what was taken
    has no further effect.
    """

    async def post(page: Sequence[ProviderPayment]) -> None:
        await core.post_payments(ProviderPaymentBatch(facts=list(page)))

    refused = await in_halves(post, facts, lambda error: error.status in _OF_FACTS)
    for fact, error in refused:
        log.error("the core refuses a fact about transaction %s: %s", fact.transaction_id, error)
    return [fact for fact, _ in refused]
