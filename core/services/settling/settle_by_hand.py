"""Settle one payment by hand: what a person has seen at the provider decides, once a second person agrees."""

import time
from typing import Any, Protocol
from uuid import UUID

from core.domain.ids import mint_id
from core.domain.intents import IntentRow, Move
from core.domain.jobs import JobRow
from core.domain.operations import sending_job
from core.services.access.keys import DEAD_LETTERS_SCOPE, Caller
from core.services.on_call.audit import Act
from core.services.on_call.redrives import (
    OnCallPorts,
    RedriveRow,
    Tally,
    approve_redrive,
    background_context,
    reach,
    require_same,
    view_of,
)
from core.services.problems import Refusal
from core.services.settling.claims import Claimant, Claims, TransactionTakenError, claim_of
from core.services.settling.close_job import ClosePorts, Ending, end_intents, is_held
from schemas.events import IntentState
from schemas.on_call import HandOutcome, HandSettlementRequest, RedriveAction, RedriveState, RedriveView
from schemas.rails import EvidenceItem


class HandPorts(ClosePorts, OnCallPorts, Protocol):
    """What settling by hand works with."""

    @property
    def intents(self) -> Any: ...
    @property
    def jobs(self) -> Any: ...
    @property
    def evidence(self) -> Any: ...
    @property
    def claims(self) -> Claims: ...


async def ask_settlement(ports: HandPorts, caller: Caller, request: HandSettlementRequest) -> RedriveView:
    """Keep the evidence, encrypted, and wait for a second person. The same id again returns what was asked.

    Raises Refusal: operation_not_permitted, not_found, wrong_state, transaction_taken, nothing_selected,
    idempotency_conflict.
    """
    caller.require_operation(DEAD_LETTERS_SCOPE)
    async with ports.unit_of_work(background_context(caller)) as uow:
        known = await ports.redrives.find(uow, request.id, reach(caller))
        if known is not None:
            require_same(known, _row(request, caller, known.evidence_id))
            return view_of(known, Tally({}, None))
        job_id = sending_job(await _reached(uow, ports, caller, request.intent_id, lock=False))
        job = (await ports.jobs.lock_jobs(uow, [job_id])).get(job_id)
        intent = await _reached(uow, ports, caller, request.intent_id, lock=True)
        _require_open(intent)
        if job is not None and request.outcome is HandOutcome.PAID and request.provider_tx_id is not None:
            await _require_unclaimed(uow, ports, job, request.provider_tx_id)
        open_ones = await ports.redrives.page(uow, reach(caller), RedriveState.AWAITING_APPROVAL, None, 500)
        if any(row.selection.get("intent_id") == str(intent.id) for row in open_ones):
            raise Refusal("nothing_selected", "a settlement of this payment waits for approval already")
        evidence_id = mint_id(time.time_ns() // 1_000_000)
        item = EvidenceItem(id=evidence_id, job_id=job_id, kind="settled_by_hand", raw=request.evidence)
        await ports.evidence.insert_evidence(uow, intent.rail or "", [item])
        row = _row(request, caller, evidence_id)
        if not await ports.redrives.insert(uow, row):
            raise Refusal("not_found", "this id is another tenant's: choose a new one", field="id")
        data = {**row.selection, "reason": row.reason, "incident": row.incident, "evidence_id": str(evidence_id)}
        subject = f"intent:{intent.id}"
        acts = [Act(intent.tenant_id, row.asked_by, "hand_settlement_asked", subject, {**data, "redrive": str(row.id)})]
        await ports.journal.append(uow, acts)
        made = await ports.redrives.find(uow, row.id, reach(caller))
        return view_of(made or row, Tally({}, None))


async def approve(ports: HandPorts, caller: Caller, redrive_id: UUID, reason: str) -> RedriveView:
    """Approve a redrive, a discard or a settlement; the last takes effect at once.

    Raises Refusal: operation_not_permitted, not_found, redrive_own, wrong_redrive_state, wrong_state, permit_running,
    transaction_taken.
    """
    async with ports.unit_of_work(background_context(caller)) as uow:
        row = await approve_redrive(uow, ports, caller, redrive_id, reason)
        if row.action is RedriveAction.SETTLE and row.state is RedriveState.AWAITING_APPROVAL:
            await _settle(uow, ports, caller, row)
        made = await ports.redrives.find(uow, redrive_id, reach(caller))
        return view_of(made or row, await ports.redrives.tally(uow, redrive_id))


async def _settle(uow: Any, ports: HandPorts, caller: Caller, row: RedriveRow) -> None:
    intent_id, outcome = UUID(row.selection["intent_id"]), HandOutcome(row.selection["outcome"])
    job_id = sending_job(await _reached(uow, ports, caller, intent_id, lock=False))
    # Jobs before intents, everywhere.
    job = (await ports.jobs.lock_jobs(uow, [job_id])).get(job_id)
    intent = await _reached(uow, ports, caller, intent_id, lock=True)
    _require_open(intent)
    if job is None:
        raise Refusal("wrong_state", "its job is not there to be locked: what a permit may do to it is not known")
    moment = await ports.intents.moment(uow)
    if job.busy_until is not None and job.busy_until > moment.now:
        wait_s = int((job.busy_until - moment.now).total_seconds()) + 1
        raise Refusal("permit_running", f"a permit is running: approve again in {wait_s} s")
    paid = outcome is HandOutcome.PAID
    if not paid and await ports.facts.unapplied_positives(uow, [intent_id]):
        raise Refusal("wrong_state", "a fact says that it was paid: it cannot be settled as unpaid")
    transaction = row.selection.get("provider_tx_id")
    if paid and transaction:
        await _claim(uow, ports, job, transaction)
    data = {"outcome": outcome, "evidence_id": str(row.evidence_id), "incident": row.incident,
            "asked_by": row.asked_by, "approved_by": caller.context().actor}  # fmt: skip
    move = Move(
        intent_id,
        IntentState.SETTLED if paid else IntentState.FAILED,
        "settled_by_hand",
        data=data,
        decision="POST" if paid else "VOID",
        provider_reference=transaction,
        failure_code=None if paid else "settled_by_hand",
        failure_message=None if paid else row.reason,
        parked=False,
    )
    if not paid:
        attempts = await ports.facts.attempts_of(uow, [job_id])
        await ports.facts.mark_negative(uow, [(job_id, fence) for fence in attempts[job_id]])
    await ports.redrives.change(
        uow, row.id, state=RedriveState.DONE, ended_because=f"settled as {outcome}", ended_at="now"
    )
    act = Act(intent.tenant_id, caller.context().actor, "hand_settlement_approved", f"intent:{intent_id}", data)
    await ports.journal.append(uow, [act])
    await end_intents(uow, ports, [Ending.of(intent, move, "settled_by_hand")])


async def _claim(uow: Any, ports: HandPorts, job: JobRow, transaction: str) -> None:
    """Keep what the payment was paid by, as every settlement does. Raises Refusal: transaction_taken."""
    try:
        await ports.claims.claim(uow, {claim_of(job, transaction): Claimant(job.tenant_id, job.intent_id)})
        await uow.flush()
    except TransactionTakenError:
        await _require_unclaimed(uow, ports, job, transaction)
        raise


async def _require_unclaimed(uow: Any, ports: HandPorts, job: JobRow, transaction: str) -> None:
    claim = claim_of(job, transaction)
    if (paid := (await ports.claims.claimants(uow, [claim])).get(claim)) is not None:
        detail = f"it paid {paid.told_to(job.tenant_id)}: name the transaction that paid this one"
        raise Refusal("transaction_taken", detail, field="provider_tx_id")


async def _reached(uow: Any, ports: HandPorts, caller: Caller, intent_id: UUID, *, lock: bool) -> IntentRow:
    intent: IntentRow | None = (await ports.intents.load_intents(uow, [intent_id], lock=lock)).get(intent_id)
    if intent is None or reach(caller) not in (None, intent.tenant_id):
        raise Refusal("not_found", "there is no such payment", field="intent_id")
    return intent


def _require_open(intent: IntentRow) -> None:
    if not is_held(intent) or intent.state == IntentState.REVIEW or intent.rail is None:
        raise Refusal("wrong_state", f"the intent is {intent.state}: only a payment on its way is settled by hand")


def _row(request: HandSettlementRequest, caller: Caller, evidence_id: UUID | None) -> RedriveRow:
    return RedriveRow(
        id=request.id,
        tenant_id=caller.tenant_id,
        action=RedriveAction.SETTLE,
        state=RedriveState.AWAITING_APPROVAL,
        reason=request.reason,
        incident=request.incident,
        selection={
            "intent_id": str(request.intent_id),
            "outcome": request.outcome.value,
            "provider_tx_id": request.provider_tx_id,
        },
        total=1,
        canary=0,
        rate_per_s=1,
        ramp_s=0,
        stop_at_percent=100,
        asked_by=caller.context().actor,
        counts={"needs_approval": True},
        evidence_id=evidence_id,
    )
