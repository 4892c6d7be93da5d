"""More payments for one collection than a result carries: they reach the core before the verdict, and none is lost."""

import logging
from datetime import UTC, datetime
from typing import Final

from pydantic import ValidationError

from adapters.runtime.core_client import CoreRefusedError, CoreUnavailableError, PaymentsPort
from adapters.runtime.execution import Executed
from adapters.runtime.port import Outcome
from adapters.runtime.telling import tell_facts
from schemas.collections import (
    MOST_FURTHER,
    PaymentKind,
    PaymentSource,
    PaymentStatus,
    ProviderPayment,
)
from schemas.permits import Granted
from schemas.results import Verdict

log = logging.getLogger(__name__)

_PAGE: Final = 200


async def told_apart(core: PaymentsPort, granted: Granted, executed: Executed) -> Executed:
    """Return what a result can carry; payments that are too many for one are told to the core first, all of them.

    They go in the provider's order, since the first of them is the one that counts. Where the core does not take them
    the outcome is UNKNOWN, so that it asks again: a repeat of what it took has no further effect.
    """
    outcome = executed.outcome
    if len(outcome.further) <= MOST_FURTHER:
        return executed
    try:
        facts = _facts(granted, outcome)
        # No other may take the place of the first one.
        refused = await tell_facts(core, facts[:1])
        for at in range(1, len(facts) if not refused else 1, _PAGE):
            refused += await tell_facts(core, facts[at : at + _PAGE])
    except (CoreUnavailableError, CoreRefusedError, ValidationError) as error:
        log.warning("%d payments for one collection are not taken: %s", len(outcome.further), type(error).__name__)
        return _doubted(executed)
    if refused:
        log.error("%d of %d payments for one collection are refused by the core", len(refused), len(facts))
        return _doubted(executed)
    log.warning("%d payments came for one collection, told apart from its verdict", len(facts))
    return executed._replace(outcome=outcome._replace(further=()))


def _doubted(executed: Executed) -> Executed:
    was = executed.outcome
    doubt = Outcome(Verdict.UNKNOWN, reason="payments_not_taken", evidence=was.evidence, basis=was.basis)
    return executed._replace(outcome=doubt)


def _facts(granted: Granted, outcome: Outcome) -> list[ProviderPayment]:
    first = ProviderPayment.model_validate(
        {
            "provider_account": granted.provider_account,
            "environment": granted.environment,
            "transaction_id": outcome.provider_tx_id,
            "kind": PaymentKind.RETURN if outcome.verdict is Verdict.RETURNED else PaymentKind.PAYMENT,
            "status": PaymentStatus.SUCCEEDED,
            "amount_minor": outcome.amount_minor,
            "currency": outcome.currency,
            "reference": granted.instruction.target_reference or granted.reference,
            "source": PaymentSource.POLL,
            "confirmed": True,
            "occurred_at": datetime.now(UTC),
        }
    )
    others = [each for each in outcome.further if each.transaction_id != first.transaction_id]
    return [first, *(first.model_copy(update={"kind": PaymentKind.PAYMENT, **each.model_dump()}) for each in others)]
