"""What adapters tell about money that came in, outside of any job: callbacks, registers, statements."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

from core.domain.intents import IntentRow
from core.services.close_job import RACES, ResolutionRefusedError, end_intents
from core.services.collections import (
    SYSTEM_TENANT,
    CollectionPorts,
    Taken,
    facts_hash,
    names_of,
    reference_of,
    take_money,
)
from core.services.facts import Alert
from core.services.problems import Refusal
from core.services.rails import RailUnknownError
from schemas.collections import (
    PaymentFate,
    PaymentSource,
    PaymentStatus,
    ProviderPayment,
    ProviderPaymentAnswers,
    ProviderPaymentBatch,
)
from schemas.ids import derive_id

_log = logging.getLogger(__name__)
UnitOfWorkFactory = Callable[[], AbstractAsyncContextManager[Any]]


async def receive_payments(
    ports: CollectionPorts,
    unit_of_work: UnitOfWorkFactory,
    rail: str,
    batch: ProviderPaymentBatch,
    serves: frozenset[UUID] | None = None,
) -> ProviderPaymentAnswers:
    """Take the facts of one callback, or one page of a register, in one transaction; a repeat changes nothing.

    `serves` are the tenants that the teller's key is for, None for all: a batch with money of another one, or of none
    that is known, is refused whole. Where the ledger refuses facts together each is taken by itself, so that one holds
    up no other. Raises RailUnknownError before an adapter of the rail has registered, Refusal operation_not_permitted,
    and ResolutionRefusedError where the ledger refuses a fact by itself too: then the others are kept, and the batch is
    to be told again.
    """
    try:
        return await _receive_racing(ports, unit_of_work, rail, batch, serves)
    except ResolutionRefusedError:
        if len(batch.facts) == 1:
            raise
    fates: list[PaymentFate] = []
    refused: ResolutionRefusedError | None = None
    for fact in batch.facts:
        try:
            alone = ProviderPaymentBatch(facts=[fact])
            fates += (await _receive_racing(ports, unit_of_work, rail, alone, serves)).fates
        except ResolutionRefusedError as error:
            refused = error
    if refused is not None:
        raise refused
    if batch.event_id is not None:
        # Only now: an event that is noted is not taken again.
        async with unit_of_work() as uow:
            await ports.collections.note_event(uow, rail, batch.event_id, facts_hash(batch.facts))
    return ProviderPaymentAnswers(fates=fates)


async def _receive_racing(
    ports: CollectionPorts,
    unit_of_work: UnitOfWorkFactory,
    rail: str,
    batch: ProviderPaymentBatch,
    serves: frozenset[UUID] | None,
) -> ProviderPaymentAnswers:
    for races_left in reversed(range(RACES)):
        try:
            async with unit_of_work() as uow:
                return await _receive(uow, ports, rail, batch, serves)
        except ResolutionRefusedError:
            if not races_left:
                raise
    raise AssertionError("the last race is raised")


async def _receive(
    uow: Any, ports: CollectionPorts, rail: str, batch: ProviderPaymentBatch, serves: frozenset[UUID] | None
) -> ProviderPaymentAnswers:
    if batch.event_id is not None:
        ours = facts_hash(batch.facts)
        first = await ports.collections.note_event(uow, rail, batch.event_id, ours)
        if first == ours:
            return ProviderPaymentAnswers(fates=[PaymentFate.KNOWN] * len(batch.facts), replayed=True)
        if first is not None:
            about = derive_id(SYSTEM_TENANT, rail, batch.event_id)
            detail = f"{rail} event {batch.event_id} came with other facts than before"
            await ports.facts.raise_alerts(uow, [Alert(SYSTEM_TENANT, "page", "callback_differs", about, None, detail)])
            return ProviderPaymentAnswers(fates=[PaymentFate.QUARANTINED] * len(batch.facts))
    taken = await _take(uow, ports, rail, batch.facts, serves)
    return ProviderPaymentAnswers(fates=taken.fates)


async def _take(
    uow: Any, ports: CollectionPorts, rail: str, facts: Sequence[ProviderPayment], serves: frozenset[UUID] | None
) -> Taken:
    intents = await _lock(uow, ports, rail, facts)
    state = await ports.rails.rail_state(uow, rail)
    if state.registration is None:
        raise RailUnknownError(rail)
    taken = await take_money(uow, ports, rail, state.registration.provider, facts, intents, state.now)
    if serves is not None and not taken.tenants <= serves:
        # What was written for the batch by now is undone with the transaction.
        _log.warning("audit: a key of rail %s for some tenants told of money that is not theirs", rail)
        raise Refusal("operation_not_permitted", "this key does not serve the tenant of every payment in the batch")
    await end_intents(uow, ports, list(taken.endings.values()), taken.transfers, taken.made)
    return taken


async def _lock(uow: Any, ports: CollectionPorts, rail: str, facts: Sequence[ProviderPayment]) -> dict[UUID, IntentRow]:
    """Lock the collections that the facts may be about, jobs before intents, and return the intents."""
    references = sorted({reference_of(fact) for fact in facts if fact.reference})
    found = await ports.collections.by_reference(uow, rail, references)
    jobs = {collection.job_id for collection in found.values()}
    jobs |= await ports.collections.jobs_of_transactions(uow, rail, [name for fact in facts for name in names_of(fact)])
    _, intents = await ports.jobs.lock_jobs_and_intents(uow, sorted(jobs), [])
    return dict(intents)


async def park_lapsed(ports: CollectionPorts, unit_of_work: UnitOfWorkFactory, limit: int) -> int:
    """Put into suspense what a statement booked for a collection that ended without it; return how many were taken."""
    async with unit_of_work() as uow:
        rows = await ports.collections.lapsed_notes(uow, limit)
    by_rail: dict[str, list[ProviderPayment]] = defaultdict(list)
    for row in rows:
        by_rail[row["rail"]].append(
            ProviderPayment(
                provider_account=row["provider_account"],
                environment=row["environment"],
                transaction_id=row["transaction_id"],
                recycled_on=row["recycled_on"],
                status=PaymentStatus.SUCCEEDED,
                amount_minor=row["amount_minor"],
                currency=row["currency"],
                reference=row["reference"],
                source=PaymentSource.STATEMENT,
                occurred_at=row["occurred_at"],
            )
        )
    for rail, facts in by_rail.items():
        await receive_payments(ports, unit_of_work, rail, ProviderPaymentBatch(facts=facts))
    return len(rows)
