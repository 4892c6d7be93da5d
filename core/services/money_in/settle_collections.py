"""What results about collections do: show what to pay, let it lapse, take in what came."""

from dataclasses import replace
from typing import Any

from core.domain.collections import poll_after_s, received
from core.domain.intents import Move
from core.domain.jobs import Waiting
from core.domain.verdicts import Case, Decision, Step
from core.services.money_in.collection_port import CollectionPorts, Taken
from core.services.money_in.collections import take_money
from core.services.settling.settle_batch import Batch
from schemas.collections import PaymentFate
from schemas.events import IntentState
from schemas.results import Result, Verdict


def collection_effects(batch: Batch, case: Case, decision: Decision, result: Result) -> bool:
    """Write into the batch what a decision does to a collection alone; return whether it was such a decision.

    The fact that brought it is the batch's last.
    """
    job = case.job
    match decision.step:
        case Step.COLLECT | Step.REVERSE:
            told = [(len(batch.facts) - 1, fact) for fact in received(result, job)]
            batch.collected.setdefault(job.id, []).extend(told)
        case Step.AWAIT:
            _await_payment(batch, case, result)
        case Step.LAPSE:
            _lapse(batch, case, decision.reason, result.verdict)
        case _:
            return False
    return True


def _await_payment(batch: Batch, case: Case, result: Result) -> None:
    job, intent = case.job, case.intent
    if result.next_action is not None and intent.next_action is None:
        intent.next_action = batch.shown[intent.id] = result.next_action.model_dump(mode="json")
    batch.waits[job.id] = Waiting(job.id, poll_after_s(case, batch.pace), why=result.verdict.lower())
    batch.retries.pop(job.id, None)


def _lapse(batch: Batch, case: Case, reason: str, verdict: Verdict) -> None:
    """End a collection that nobody paid: by its payer's or its client's will before its time, else by the time."""
    early = verdict is Verdict.CANCELLED and case.now < case.job.deadline
    to = IntentState.CANCELLED if early else IntentState.EXPIRED
    move = Move(case.intent.id, to, to.lower(), data={"reason": reason}, parked=False,
                failure_code=None if early else "payment_not_received",
                failure_message=None if early else "nobody paid in time")  # fmt: skip
    batch.end(case.intent, move, reason)


async def take_collected(uow: Any, ports: CollectionPorts, batch: Batch) -> Taken:
    """Match, credit or suspend what the batch's collections received.

    What a person must look at first is kept unapplied: it was paid, so nothing ends the collection over it.
    """
    told = [(batch.jobs[job_id], *each) for job_id, facts in batch.collected.items() for each in facts]
    intents = {job.intent_id: batch.intents[job.intent_id] for job, _, _ in told}
    first = told[0][0]
    facts = [fact for _, _, fact in told]
    state = batch.states[first.rail]
    reusable = state.registration.reusable if state.registration is not None else frozenset()
    taken = await take_money(uow, ports, first.rail, first.provider, facts, intents, state.now, reusable=reusable)
    seen: set[int] = set()
    for (job, place, _), fate, reason in zip(told, taken.fates, taken.reasons, strict=True):
        # Of a result its own payment decides; another one beside it that a person must look at has a break of its own.
        if fate is PaymentFate.QUARANTINED and place not in seen:
            batch.facts[place] = replace(batch.facts[place], quarantine=reason)
        seen.add(place)
        if job.intent_id not in taken.endings and intents[job.intent_id].expects_payment:
            batch.wait(job, reason or fate.lower())
    return taken
