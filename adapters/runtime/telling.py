"""Facts about money that came in are told a page at a time, and one that the core refuses holds up no other."""

import logging
from collections.abc import Sequence
from typing import Final

from adapters.runtime.core_client import CoreRefusedError, PaymentsPort
from schemas.collections import ProviderPayment, ProviderPaymentBatch

log = logging.getLogger(__name__)

_OF_FACTS: Final = frozenset({400, 403, 413, 422})
"""Refusals that one fact may be the cause of; any other is of the teller, whatever it tells."""


async def tell_facts(core: PaymentsPort, facts: Sequence[ProviderPayment]) -> list[ProviderPayment]:
    """Tell facts in their order; return those that the core refuses one by one, where all others are taken.

    A page that is refused is halved until it is one fact. Raises CoreUnavailableError, and CoreRefusedError where no
    fact is the cause; told again after that, what was taken has no further effect.
    """
    try:
        await core.post_payments(ProviderPaymentBatch(facts=list(facts)))
    except CoreRefusedError as error:
        if error.status not in _OF_FACTS:
            raise
        if len(facts) == 1:
            log.error("the core refuses a fact about transaction %s: %s", facts[0].transaction_id, error)  # noqa: TRY400
            return list(facts)
        half = len(facts) // 2
        return await tell_facts(core, facts[:half]) + await tell_facts(core, facts[half:])
    return []
