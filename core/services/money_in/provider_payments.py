"""What adapters tell about money that came in, outside of any job: callbacks, registers, statements."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

from core.domain.intents import IntentRow
from core.services.money_in.collection_port import (
    SYSTEM_TENANT,
    CollectionPorts,
    Taken,
    facts_hash,
    names_of,
    reference_of,
)
from core.services.money_in.collections import take_money
from core.services.problems import Refusal, require_currency
from core.services.settling.close_job import RACES, ResolutionRefusedError, end_intents
from core.services.settling.facts import Alert
from core.services.settling.rails import RailUnknownError
from schemas.collections import (
    PaymentFate,
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
    up no other; one that it refuses by itself too is quarantined with an alert, and told again by the core. Raises
    RailUnknownError before an adapter of the rail has registered, and Refusal: unknown_currency,
    operation_not_permitted.
    """
    try:
        return await _receive_racing(ports, unit_of_work, rail, batch, serves)
    except ResolutionRefusedError:
        fates: list[PaymentFate] = []
    for fact in batch.facts:
        alone = ProviderPaymentBatch(facts=[fact])
        try:
            fates += (await _receive_racing(ports, unit_of_work, rail, alone, serves)).fates
        except ResolutionRefusedError:
            _log.exception("a payment of rail %s cannot be booked", rail)
            fates += (await _receive_racing(ports, unit_of_work, rail, alone, serves, refused=True)).fates
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
    *,
    refused: bool = False,
) -> ProviderPaymentAnswers:
    for races_left in reversed(range(RACES)):
        try:
            async with unit_of_work() as uow:
                return await _receive(uow, ports, rail, batch, serves, refused=refused)
        except ResolutionRefusedError:
            if not races_left:
                raise
    raise AssertionError("the last race is raised")


async def _receive(
    uow: Any,
    ports: CollectionPorts,
    rail: str,
    batch: ProviderPaymentBatch,
    serves: frozenset[UUID] | None,
    *,
    refused: bool,
) -> ProviderPaymentAnswers:
    for place, fact in enumerate(batch.facts):
        # No account is kept in a currency that nobody here knows: the adapter misreads its provider, and is told so.
        require_currency(fact.currency, f"facts.{place}.currency")
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
    taken = await _take(uow, ports, rail, batch.facts, serves, refused=refused)
    return ProviderPaymentAnswers(fates=taken.fates)


async def _take(
    uow: Any,
    ports: CollectionPorts,
    rail: str,
    facts: Sequence[ProviderPayment],
    serves: frozenset[UUID] | None,
    *,
    refused: bool,
) -> Taken:
    intents = await _lock(uow, ports, rail, facts)
    state = await ports.rails.rail_state(uow, rail)
    if state.registration is None:
        raise RailUnknownError(rail)
    provider, reusable = state.registration.provider, state.registration.reusable
    taken = await take_money(uow, ports, rail, provider, facts, intents, state.now, reusable=reusable, refused=refused)
    if serves is not None and not taken.tenants <= serves:
        # What was written for the batch by now is undone with the transaction.
        _log.warning("audit: a key of rail %s for some tenants told of money that is not theirs", rail)
        raise Refusal("operation_not_permitted", "this key does not serve the tenant of every payment in the batch")
    await end_intents(uow, ports, list(taken.endings.values()), taken.transfers, taken.made)
    return taken


async def _lock(uow: Any, ports: CollectionPorts, rail: str, facts: Sequence[ProviderPayment]) -> dict[UUID, IntentRow]:
    """Lock what the facts may be about, jobs before intents: collections, and what took their money out of suspense.

    Returns the intents of the collections.
    """
    references = sorted({reference_of(fact) for fact in facts if fact.reference})
    found = await ports.collections.by_reference(uow, rail, references)
    jobs = {collection.job_id for collection in found.values()}
    of, takers = await ports.collections.of_transactions(uow, rail, [name for fact in facts for name in names_of(fact)])
    locked, intents = await ports.jobs.lock_jobs_and_intents(uow, sorted(jobs | of), sorted(takers))
    collections = {job.intent_id for job in locked.values()}
    return {each: intent for each, intent in intents.items() if each in collections}


async def tell_again(ports: CollectionPorts, unit_of_work: UnitOfWorkFactory, limit: int) -> int:
    """Judge anew what waited for something that has happened since; return how many facts were taken.

    See `notes_to_tell` of the store for which. A statement's line for a collection that ended without it comes to rest
    in suspense by this.
    """
    async with unit_of_work() as uow:
        noted = await ports.collections.notes_to_tell(uow, limit)
    by_rail: dict[str, list[ProviderPayment]] = defaultdict(list)
    for rail, fact in noted:
        by_rail[rail].append(fact)
    for rail, facts in by_rail.items():
        await receive_payments(ports, unit_of_work, rail, ProviderPaymentBatch(facts=facts))
    return len(noted)
