"""Settle: what adapters learned becomes postings, voids, retries or doubts, a batch in one transaction."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from core.domain.collections import decide_collection
from core.domain.intents import IntentRow, Move, confirmable_until
from core.domain.jobs import JobRow, JobState, Waiting
from core.domain.resolution import Pace
from core.domain.verdicts import (
    PAID,
    Case,
    Decision,
    Step,
    decide_lookup,
    decide_payment,
    fact_key,
    grows,
    money_hash,
)
from core.services.money_in.collection_port import CollectionPorts, Taken
from core.services.money_in.settle_collections import collection_effects, take_collected
from core.services.payments.authorize import AuthorizePorts, authorize
from core.services.payments.auto_confirm import Evidence, auto_confirm_holds
from core.services.payments.returns import Returned, ReturnPorts, make_refunds, returned_before
from core.services.settling.after_void import paid_after_void
from core.services.settling.claims import Claims, TransactionTakenError, claim_of
from core.services.settling.close_job import RACES, ResolutionRefusedError, end_intents, is_held
from core.services.settling.facts import Fact
from core.services.settling.settle_batch import Batch, Delivery, Ended
from schemas.events import IntentState
from schemas.operations import JobKind
from schemas.results import Result, Verdict

__all__ = ["Delivery", "Ended", "SettlePorts", "Settled", "UnitOfWorkFactory", "settle_again", "settle_batch"]

_log = logging.getLogger(__name__)

_IN: Final = frozenset({Verdict.PAID, Verdict.RETURNED})
"""Verdicts that tell of a collection's money."""
_OUTCOMES: Final[dict[Step, Literal["settled", "failed"]]] = {
    Step.POST: "settled",
    Step.RETURN: "settled",
    Step.VOID: "failed",
    Step.REFUSE: "failed",
}


@dataclass(frozen=True, slots=True)
class Settled:
    """What may be acked after commit, which of it was unusable (mirror it on results.dlq), and what ended."""

    acked: Sequence[Delivery]
    unusable: Sequence[tuple[Delivery, str]]
    ended: Sequence[Ended] = ()


class Letters(Protocol):
    """Where unusable results are kept, raw."""

    async def keep_result(self, uow: Any, delivery: Delivery, error_class: str) -> None: ...


class SettlePorts(CollectionPorts, AuthorizePorts, ReturnPorts, Protocol):
    """What settlement works with."""

    @property
    def pace(self) -> Pace: ...
    @property
    def shared_faults(self) -> tuple[type[Exception], ...]: ...
    @property
    def letters(self) -> Letters: ...
    @property
    def evidence(self) -> Evidence: ...
    @property
    def claims(self) -> Claims: ...
    @property
    def jobs(self) -> Any: ...
    @property
    def intents(self) -> Any: ...
    @property
    def collections(self) -> Any: ...


UnitOfWorkFactory = Callable[[], AbstractAsyncContextManager[Any]]


async def settle_batch(
    ports: SettlePorts,
    unit_of_work: UnitOfWorkFactory,
    deliveries: Sequence[Delivery],
    races_left: int = RACES - 1,
    *,
    ask_claims: bool = False,
) -> Settled:
    """Settle a rail's batch in one transaction, lookups in one of their own, or item by item where one makes it fail.

    Everything in the answer is committed and may be acked. Raises the ports' shared faults, such as a database
    that is away or a deadlock: what was not committed by then is done when the batch is settled again.
    """
    lookups = [each for each in deliveries if each.result is not None and each.result.kind is JobKind.LOOKUP]
    if lookups and len(lookups) < len(deliveries):
        # A lookup holds money, a payment's fact releases it: in one transaction that would lock accounts twice, out
        # of order, and deadlock with every acceptance.
        others = [each for each in deliveries if each.result is None or each.result.kind is not JobKind.LOOKUP]
        parts = [await settle_batch(ports, unit_of_work, part) for part in (others, lookups)]
        return _together(deliveries, parts)
    try:
        async with unit_of_work() as uow:
            return await _settle(uow, ports, deliveries, ask_claims=ask_claims)
    except ports.shared_faults:
        raise
    except Exception as error:  # noqa: BLE001 - a poisoned item is kept and told apart, whatever it raised
        if races_left and isinstance(error, TransactionTakenError):
            # So seldom that nobody asks beforehand. Asked, what paid another payment is told apart from the rest.
            return await settle_batch(ports, unit_of_work, deliveries, races_left - 1, ask_claims=True)
        # Whatever one item does to the core, its neighbours settle and its hold stays.
        if len(deliveries) == 1:
            if races_left and isinstance(error, ResolutionRefusedError):
                return await settle_batch(ports, unit_of_work, deliveries, races_left - 1)
            _log.exception("result %s of %s cannot be settled", deliveries[0].entry_id, deliveries[0].stream)
            return await _keep(ports, unit_of_work, deliveries[0], "settlement_failed")
    return _together(deliveries, [await settle_batch(ports, unit_of_work, [delivery]) for delivery in deliveries])


def _together(deliveries: Sequence[Delivery], parts: Sequence[Settled]) -> Settled:
    unusable = [each for part in parts for each in part.unusable]
    return Settled(deliveries, unusable, [each for part in parts for each in part.ended])


async def _keep(ports: SettlePorts, unit_of_work: UnitOfWorkFactory, delivery: Delivery, error: str) -> Settled:
    async with unit_of_work() as uow:
        result = delivery.result
        if result is not None:
            # Locked as whoever would void it locks it: a "paid" that could not be used blocks every void.
            job = (await ports.jobs.lock_jobs(uow, [result.job_id])).get(result.job_id)
            if job is not None and job.rail == result.rail == delivery.rail:
                hashed = money_hash(result, job.provider_account)
                # PostgreSQL keeps no NUL in a document, and this must be kept whatever was in it.
                body = delivery.body.replace("\\u0000", "")
                await ports.facts.insert_facts(uow, [Fact(result, body, hashed, job.tenant_id, job.intent_id, error)])
        await ports.letters.keep_result(uow, delivery, error)
    return Settled([delivery], [(delivery, error)])


async def _settle(uow: Any, ports: SettlePorts, deliveries: Sequence[Delivery], *, ask_claims: bool) -> Settled:
    usable = [delivery for delivery in deliveries if delivery.result is not None]
    results = [delivery.result for delivery in usable if delivery.result is not None]
    batch = await _load(uow, ports, deliveries[0].rail, results)
    if ask_claims:
        await _ask_claims(uow, ports, batch, results)
    batch.unusable = [(delivery, delivery.error or "unparseable") for delivery in deliveries if delivery.result is None]
    for delivery in usable:
        await _take(uow, ports, batch, delivery)
    await _apply(uow, ports, batch)
    return Settled(deliveries, batch.unusable, batch.ended)


async def settle_again(uow: Any, ports: SettlePorts, delivery: Delivery) -> str:
    """Settle one result that was kept as unusable; return why it still is, or nothing where it counts now.

    In the caller's transaction, which settles nothing else. Raises what settling raises: then nothing may commit.
    """
    if delivery.result is None:
        return delivery.error or "unparseable"
    batch = await _load(uow, ports, delivery.rail, [delivery.result])
    await _ask_claims(uow, ports, batch, [delivery.result])
    await _take(uow, ports, batch, replace(delivery, again=True))
    await _apply(uow, ports, batch)
    # Only now: what a payment in is judged to be shows when it is taken.
    why = batch.unusable[0][1] if batch.unusable else (batch.facts[-1].quarantine or "" if batch.facts else "")
    if not why and batch.facts:
        await ports.facts.apply_fact(uow, batch.facts[-1])
    return why


async def _load(uow: Any, ports: SettlePorts, rail: str, results: Sequence[Result]) -> Batch:
    executed = sorted({result.job_id for result in results})
    asking = [result.job_id for result in results if result.kind.on_control_stream]
    targets = await ports.jobs.targets_of(uow, sorted(set(asking)))
    jobs: dict[Any, JobRow] = {}
    if asking:
        # Payments before the inquiries about them: whoever holds the payment may close every job of its intent.
        jobs = await ports.jobs.lock_jobs(uow, sorted({*executed, *targets.values()} - {*asking}))
    # What took a transaction out of suspense is locked with the other intents, before its provider account is: whoever
    # is told of the transaction by the provider locks them in that order. Read only where a collection's money is told.
    told = [(targets.get(r.job_id, r.job_id), tx) for r in results if r.verdict in _IN and (tx := r.provider_tx_id)]
    takers = await ports.collections.takers_of(uow, rail, told) if told else set()
    others = sorted({job.intent_id for job in jobs.values()} | takers)
    locked, intents = await ports.jobs.lock_jobs_and_intents(uow, sorted(set(asking or executed)), others)
    jobs |= locked
    # Read after the locks are held: what an earlier holder wrote must be seen.
    money = [job.id for job in jobs.values() if job.kind.moves_money]
    histories = await ports.facts.histories_of(uow, rail, money, executed)
    states = {rail: histories.state} | {
        other: await ports.rails.rail_state(uow, other)
        for other in sorted({job.rail for job in jobs.values()} - {rail})
    }
    # What voids must not pass is read only where something may be voided.
    back = {jobs[r.job_id].intent_id for r in results if r.verdict is Verdict.RETURNED and r.job_id in jobs}
    doubtful = {jobs[r.job_id].intent_id for r in results if r.verdict is not Verdict.SUCCEEDED and r.job_id in jobs}
    return Batch(
        jobs=jobs,
        intents=intents,
        targets=targets,
        attempts=histories.attempts,
        known=histories.known,
        states=states,
        positives=await ports.facts.unapplied_positives(uow, sorted(doubtful)),
        returned_minor=await returned_before(uow, ports, sorted(back)) if back else {},
        pace=ports.pace,
    )


async def _ask_claims(uow: Any, ports: SettlePorts, batch: Batch, results: Sequence[Result]) -> None:
    """Read whom the transactions that the results name have paid."""
    named = [(batch.jobs.get(batch.targets.get(r.job_id, r.job_id)), r.provider_tx_id) for r in results]
    claims = {claim_of(job, transaction) for job, transaction in named if job is not None and transaction}
    batch.claims.before = await ports.claims.claimants(uow, sorted(claims))


async def _take(uow: Any, ports: SettlePorts, batch: Batch, delivery: Delivery) -> None:
    result = delivery.result
    if result is None:
        return
    job = batch.jobs.get(result.job_id)
    error = _unusable(batch, job, delivery, result)
    if error or job is None:
        batch.unusable.append((delivery, error or "job_unknown"))
        if job is not None and job.rail == result.rail == delivery.rail:
            # Kept unapplied: a "paid" that could not be used still blocks every void.
            hashed = money_hash(result, job.provider_account)
            batch.facts.append(Fact(result, delivery.body, hashed, job.tenant_id, job.intent_id, error))
            if result.verdict in PAID:
                batch.positives.add(job.intent_id)
        return
    subject = batch.jobs[batch.targets[job.id]] if job.id in batch.targets else job
    case = _case(batch, subject, asked_at=job.created_at if job.id != subject.id else None)
    hashed = money_hash(result, subject.provider_account)
    known = batch.known.setdefault(fact_key(result), set())
    # A lookup has no fence that would tell its rounds apart; asked again, it may be NOT_SENT again.
    is_new = hashed not in known
    if not (is_new or delivery.again or result.further or _asked_again(job, result)):
        return
    if known - {hashed} and not grows(case, result):
        decision = Decision(Step.QUARANTINE, "same_fact_other_money")
    elif job.kind is JobKind.LOOKUP:
        holds = await auto_confirm_holds(uow, ports, case.intent, result)
        decision = decide_lookup(case, result, auto_confirm_holds=holds)
    elif subject.kind is JobKind.COLLECT:
        # What came in with the same batch is judged behind all of its facts: nothing else ends the collection first.
        taken = subject.id in batch.collected and result.verdict not in PAID
        decision = Decision(Step.IGNORE) if taken else decide_collection(case, result)
    else:
        decision = batch.claims.judge(case, decide_payment(case, result), result)
    known.add(hashed)
    why = decision.reason if decision.step is Step.QUARANTINE else None
    batch.facts.append(Fact(result, delivery.body, hashed, subject.tenant_id, subject.intent_id, why, is_new))
    if job.id != subject.id:
        batch.closes.append((job.id, result.verdict))
    _note_end(batch, case, decision)
    if subject.kind is not JobKind.COLLECT or not collection_effects(batch, case, decision, result):
        _effects(batch, case, decision, result)


def _asked_again(job: JobRow, result: Result) -> bool:
    return (
        job.kind is JobKind.LOOKUP
        and result.verdict is Verdict.NOT_SENT
        and job.state in (JobState.READY, JobState.QUEUED)
    )


def _unusable(batch: Batch, job: JobRow | None, delivery: Delivery, result: Result) -> str:
    if job is None:
        return "job_unknown"
    if result.rail != delivery.rail or job.rail != delivery.rail:
        return "rail_differs"
    # A return that nobody asked about may be told by who knows the reference, and not what kind of job sent it.
    told_unasked = job.kind is JobKind.REFUND and result.kind is JobKind.PAY and result.verdict is Verdict.RETURNED
    if job.kind is not result.kind and not told_unasked:
        return "kind_differs"
    if job.operation not in _operations(batch, job):
        return "rail_unregistered"
    if job.kind.moves_money and result.fence not in batch.attempts[job.id]:
        return "attempt_missing"
    return ""


def _operations(batch: Batch, job: JobRow) -> Any:
    registration = batch.states[job.rail].registration
    return registration.operations if registration is not None else {}


def _case(batch: Batch, job: JobRow, asked_at: datetime | None) -> Case:
    state = batch.states[job.rail]
    doubted = job.ledger_epoch < state.ledger_epoch
    return Case(
        job=job,
        intent=batch.intents[job.intent_id],
        attempts=batch.attempts.get(job.id, {}),
        capabilities=_operations(batch, job)[job.operation],
        now=state.now,
        epoch_doubted=doubted and not state.epoch_cleared,
        unapplied_positive=job.intent_id in batch.positives,
        horizon_starts_at=state.epoch_raised_at if doubted else None,
        returned_minor=batch.returned_minor.get(job.intent_id, 0),
        asked_at=asked_at,
        paused=state.waits(job.operation),
    )


def _note_end(batch: Batch, case: Case, decision: Decision) -> None:
    job, outcome = case.job, _OUTCOMES.get(decision.step)
    if outcome is not None and job.kind.moves_money and job.created_at is not None and not case.decided:
        batch.ended.append(Ended(job.rail, outcome, (case.now - job.created_at).total_seconds()))


def _effects(batch: Batch, case: Case, decision: Decision, result: Result) -> None:
    """Write what a decision does into the batch, and into its rows for the facts that follow."""
    job, intent = case.job, case.intent
    if decision.negative_fence is not None and decision.negative_fence in case.attempts:
        case.attempts[decision.negative_fence].negative = True
        batch.negatives.append((job.id, decision.negative_fence))
    match decision.step:
        case Step.POST:
            _post(batch, intent, result)
        case Step.RETURN:
            _return(batch, case, result)
        case Step.VOID | Step.REFUSE:
            move = Move(intent.id, IntentState.FAILED, "failed", data={"reason": decision.reason}, parked=False,
                        failure_code=decision.reason, failure_message=f"the provider answered {result.verdict}",
                        decision="VOID" if is_held(intent) else None)  # fmt: skip
            batch.end(intent, move, decision.reason)
        case Step.RETRY:
            batch.retries[job.id] = (job, decision.after_s)
            job.failures += 1
        case Step.WAIT:
            batch.wait(job, decision.reason)
        case Step.CONFIRM:
            _confirm(batch, case, decision, result)
        case Step.SUSPEND:
            _suspend(batch, case, decision, result)
        case Step.QUARANTINE:
            if result.verdict in PAID:
                batch.positives.add(intent.id)
                # It was paid, whatever is wrong with the fact: asked about from here on, and never sent again.
                batch.wait(job, decision.reason)
            batch.alert(case, "page", decision.reason, decision.detail)
        case Step.ALERT:
            batch.alert(case, "page", decision.reason)


def _post(batch: Batch, intent: IntentRow, result: Result) -> None:
    move = Move(intent.id, IntentState.SETTLED, "settled", decision="POST", parked=False,
                provider_reference=result.provider_tx_id)  # fmt: skip
    batch.end(intent, move, result.verdict)


def _suspend(batch: Batch, case: Case, decision: Decision, result: Result) -> None:
    intent = case.intent
    batch.suspended.append(intent)
    if intent.provider_reference is None and result.provider_tx_id is not None:
        batch.late[intent.id] = intent.provider_reference = result.provider_tx_id
    if result.verdict is Verdict.RETURNED:
        batch.back_to_suspense[intent.id] = result.amount_minor or case.job.amount_minor
    if batch.back_to_suspense.get(intent.id, 0) < intent.received_minor:
        batch.alert(case, "page", decision.reason)


def _return(batch: Batch, case: Case, result: Result) -> None:
    job, intent = case.job, case.intent
    if not case.decided:
        _post(batch, intent, result)
    in_all_minor = result.amount_minor or job.amount_minor
    before_minor, earlier = batch.returned_minor.get(intent.id, 0), batch.returned.get(intent.id)
    batch.returned_minor[intent.id] = in_all_minor
    # One refund for what a batch tells, of what came back beyond what was booked before it.
    amount_minor = in_all_minor - before_minor + (earlier.amount_minor if earlier is not None else 0)
    batch.returned[intent.id] = Returned(intent, amount_minor, result.provider_tx_id, job.id, case.now)


def _confirm(batch: Batch, case: Case, decision: Decision, result: Result) -> None:
    intent = case.intent
    if result.lookup is None:
        return
    lookup = result.lookup.model_dump(mode="json") | {
        "payee_name_masked": result.payee_name_masked,
        "evidence_id": str(result.evidence_id) if result.evidence_id else None,
    }
    fee_minor = intent.fees_on_top_minor + result.lookup.fee_minor
    move = Move(intent.id, IntentState.AWAITING_CONFIRMATION, "payee_found", lookup=lookup, fee_minor=fee_minor)
    batch.confirmed.append((intent, move))
    intent.state, intent.lookup, intent.fee_minor = move.to, lookup, fee_minor
    if decision.reason == "auto":
        batch.closes.append((case.job.id, result.verdict))
        batch.authorized.append(intent)
        return
    # The lookup stays open until the client confirms: it is what the resolver expires the intent by.
    left_s = (confirmable_until(intent) - case.now).total_seconds()
    batch.waits[case.job.id] = Waiting(case.job.id, max(0.0, left_s), why=result.verdict.lower())


async def _apply(uow: Any, ports: SettlePorts, batch: Batch) -> None:
    taken = await take_collected(uow, ports, batch) if batch.collected else Taken()
    batch.endings |= taken.endings
    await ports.facts.insert_facts(uow, batch.facts)
    # Before accounts are locked: whoever waits here for another's claim holds nothing that the other waits for.
    await ports.claims.claim(uow, batch.claims.made)
    await ports.facts.mark_negative(uow, batch.negatives)
    await ports.jobs.close_jobs(uow, batch.closes)
    # What ended later in the batch neither waits nor comes again.
    waits = [wait for wait in batch.waits.values() if batch.jobs[wait.job_id].intent_id not in batch.endings]
    retries = [retry for retry in batch.retries.values() if retry[0].intent_id not in batch.endings]
    await ports.jobs.wait_jobs(uow, waits)
    await ports.jobs.requeue_jobs(uow, retries)
    await ports.facts.raise_alerts(uow, batch.alerts)
    whole = [each.id for each in batch.suspended if batch.back_to_suspense.get(each.id) == each.received_minor]
    if whole:
        await ports.facts.close_alerts(uow, whole, "success_after_void", "what was paid came back whole")
    for delivery, error in batch.unusable:
        await ports.letters.keep_result(uow, delivery, error)
    if batch.confirmed:
        await ports.intents.move_intents(uow, [move for _, move in batch.confirmed])
    if batch.authorized:
        await authorize(uow, ports, batch.authorized)
    # What moves money comes last, and at once: it locks accounts that every other transaction wants.
    refunds, transfers = await make_refunds(uow, ports, list(batch.returned.values()))
    transfers += await paid_after_void(uow, ports.ledger, batch.suspended, batch.back_to_suspense)
    transfers += taken.transfers
    if batch.shown:
        await ports.collections.show(uow, batch.shown)
    await end_intents(uow, ports, list(batch.endings.values()), transfers, [*refunds, *taken.made])
    if batch.late:
        # After the end that it comes too late for, which may be in this batch.
        await ports.intents.paid_after_void(uow, batch.late)
