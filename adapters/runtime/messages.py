"""The messages that an adapter publishes: results and dead letters, in their envelopes. Pure."""

import hashlib
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from pydantic import ValidationError

from adapters.runtime.errors import ProtocolViolation
from adapters.runtime.execution import Executed
from adapters.runtime.verdicts import basis_of, of_error
from schemas.collections import TRANSACTION_LENGTH_MAX
from schemas.dead_letters import DEAD_LETTER_TYPE, DeadLetter
from schemas.envelope import Envelope
from schemas.ids import mint_id
from schemas.money import MAX_AMOUNT_MINOR
from schemas.operations import JobKind
from schemas.permits import Granted
from schemas.rails import EvidenceItem
from schemas.results import RESULT_TYPE, Basis, Result, Verdict
from wire.consumer import Delivery
from wire.functions import Completion


def has_evidence(executed: Executed) -> bool:
    """Whether there is anything behind this outcome that must be kept encrypted."""
    return bool(executed.outcome.payee_name or executed.outcome.evidence)


def evidence_of(granted: Granted, executed: Executed) -> EvidenceItem | None:
    """Return what must be kept encrypted behind this outcome, if there is anything."""
    outcome = executed.outcome
    if not has_evidence(executed):
        return None
    return EvidenceItem(
        id=mint_id(time.time_ns() // 1_000_000),
        job_id=granted.job_id,
        kind=f"{executed.action.value}_answer",
        payee_name=outcome.payee_name[:140] if outcome.payee_name else None,
        raw=outcome.evidence[:64_000],
    )


def result_completion(
    delivery: Delivery, rail: str, granted: Granted, executed: Executed, evidence_id: UUID | None, incarnation: UUID
) -> Completion:
    """Return the verdict about one held entry. The payee's name goes masked, its evidence only by id."""
    job_id, observed_at = str(granted.job_id), datetime.now(UTC)
    body = plain_result(rail, granted, executed, evidence_id, incarnation, observed_at)
    if body is None:
        try:
            result = result_of(rail, granted, executed, evidence_id, incarnation, observed_at)
        except ValidationError:
            # A rail's outcome that the contract cannot carry must not strand the entry: it proves nothing.
            nonsense = ProtocolViolation("the outcome does not fit the contract")
            executed = Executed(executed.action, of_error(executed.action, nonsense))
            result = result_of(rail, granted, executed, evidence_id, incarnation, observed_at)
        body = result.model_dump_json(exclude_none=True)
    return _completion(delivery, RESULT_TYPE, job_id, body)


def plain_result(
    rail: str,
    granted: Granted,
    executed: Executed,
    evidence_id: UUID | None,
    incarnation: UUID,
    observed_at: datetime,
) -> str | None:
    """Return the text that `result_of` would have, written at a fifth of its cost; None where only that can judge.

    It takes the common outcome alone: no lookup, no name, no wait, and money facts that fit the contract.
    """
    outcome = executed.outcome
    amount_minor, transaction = outcome.amount_minor, outcome.provider_tx_id
    if outcome.lookup or outcome.payee_name or outcome.next_action or outcome.further:
        return None
    if outcome.retry_after_s is not None:
        return None
    if amount_minor is not None and not (type(amount_minor) is int and 0 < amount_minor <= MAX_AMOUNT_MINOR):
        return None
    if transaction is not None and not (type(transaction) is str and len(transaction) <= TRANSACTION_LENGTH_MAX):
        return None
    basis = basis_of(executed.action, outcome)
    told: dict[str, Any] = {
        "job_id": granted.job_id,
        "rail": rail,
        "kind": granted.kind,
        "fence": granted.fence,
        "verdict": outcome.verdict,
        "basis": basis,
        "reference": granted.instruction.target_reference or granted.reference,
    }
    if amount_minor is not None:
        told["amount_minor"] = amount_minor
    if outcome.currency is not None:
        told["currency"] = outcome.currency
    if transaction is not None:
        told["provider_tx_id"] = transaction
    told["reason"] = outcome.reason
    if evidence_id is not None:
        told["evidence_id"] = evidence_id
    told["incarnation"] = incarnation
    told["observed_at"] = observed_at
    try:
        if not _fits(rail, outcome.verdict, basis, outcome.currency, outcome.reason):
            return None
        return orjson.dumps(told, option=orjson.OPT_UTC_Z).decode()
    except TypeError:  # not hashable, or not JSON: the model says what is wrong with it
        return None


@lru_cache(maxsize=1_000)
def _fits(rail: str, verdict: Verdict, basis: Basis, currency: str | None, reason: str) -> bool:
    """Whether the contract takes these words. They come from short lists, so the model is asked once for each."""
    words: dict[str, Any] = {"rail": rail, "verdict": verdict, "basis": basis, "currency": currency, "reason": reason}
    try:
        Result(job_id=UUID(int=0), kind=JobKind.PAY, fence=0, observed_at=datetime.now(UTC), **words)
    except ValidationError:
        return False
    return True


def result_of(
    rail: str, granted: Granted, executed: Executed, evidence_id: UUID | None, incarnation: UUID, observed_at: datetime
) -> Result:
    """Return the verdict as its contract. Raises ValidationError where the outcome does not fit."""
    outcome = executed.outcome
    return Result(
        job_id=granted.job_id,
        rail=rail,
        kind=granted.kind,
        fence=granted.fence,
        verdict=outcome.verdict,
        basis=basis_of(executed.action, outcome),
        reference=granted.instruction.target_reference or granted.reference,
        amount_minor=outcome.amount_minor,
        currency=outcome.currency,
        provider_tx_id=outcome.provider_tx_id,
        reason=outcome.reason,
        retry_after_s=outcome.retry_after_s,
        lookup=outcome.lookup,
        next_action=outcome.next_action,
        further=tuple(outcome.further) or None,
        payee_name_masked=masked_name(outcome.payee_name),
        evidence_id=evidence_id,
        incarnation=incarnation,
        observed_at=observed_at,
    )


def lookup_without_evidence(executed: Executed) -> Executed:
    """Return the lookup as not done: a name that the core does not hold cannot be confirmed."""
    outcome = type(executed.outcome)(Verdict.NOT_SENT, reason="evidence_not_kept", retry_after_s=1.0)
    return Executed(executed.action, outcome)


def dead_letter_completion(
    delivery: Delivery, rail: str, job_id: UUID | None, error_class: str, message: str
) -> Completion:
    """Return the entry as a dead letter. Equal failures have one fingerprint."""
    letter = DeadLetter(
        job_id=job_id,
        rail=rail,
        stream=delivery.stream,
        entry_id=delivery.entry_id,
        error_class=error_class,
        fingerprint=hashlib.sha256(f"{rail}|{error_class}|{message}".encode()).hexdigest()[:16],
        message=message[:500],
        deliveries=delivery.deliveries,
        body=delivery.envelope.body if delivery.envelope is not None else delivery.raw,
    )
    name = str(job_id) if job_id is not None else delivery.entry_id
    return _completion(delivery, DEAD_LETTER_TYPE, name, letter.model_dump_json(), "dead")


def masked_name(name: str | None) -> str | None:
    """Return a name as it may travel: the first letter of each word."""
    if not name:
        return None
    return " ".join(f"{word[0]}***" for word in name.split())[:80]


def _completion(delivery: Delivery, kind: str, name: str, body: str, target: str = "result") -> Completion:
    traceparent = delivery.envelope.traceparent if delivery.envelope is not None else ""
    envelope = Envelope(id=name, type=kind, body=body, traceparent=traceparent)
    return Completion(delivery.entry_id, envelope, "dead" if target == "dead" else "result")
