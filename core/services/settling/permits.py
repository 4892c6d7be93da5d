"""Permits: written and committed before any byte goes to a provider, for a batch of jobs in one transaction."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from pydantic import ConfigDict

from core.domain.jobs import JobRow
from core.domain.permits import ONE_PAUSED_S, Gates, Grant, Refusal, Refused, busy_until_over, decide_permit
from core.services.access.keys import HeldNonce
from core.services.settling.rails import RailState, RailUnknownError
from core.services.vault_port import Sealed, Vault, VaultError
from schemas.events import IntentState
from schemas.operations import JobKind, OperationType
from schemas.permits import (
    Closed,
    Granted,
    Instruction,
    LookupBinding,
    NotFound,
    Payee,
    PermitAnswer,
    PermitMode,
    PermitRequest,
    Sending,
    Wait,
)
from schemas.rails import RailRegistration

_log = logging.getLogger(__name__)
_PAUSES_S: Final = (0.002, 0.005, 0.01, 0.02, 0.04, 0.05)
"""How long a request waits for jobs that another transaction holds, before each new look.

In all about what a relay takes to note a whole batch, and little of S, which runs for what was granted meanwhile.
"""


@dataclass(slots=True)
class LockedJob:
    """A job whose row is ours until the transaction ends, with what its permit needs."""

    job: JobRow
    intent_state: IntentState
    sealed: Sealed
    lookup: str | None
    target_reference: str | None
    target_account: str | None
    target_kind: JobKind | None = None
    withdrawn: bool = False
    """Whether the mandate that it pulls under was cancelled."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A permit that an earlier sending of an asking was given."""

    fence: int
    mode: PermitMode
    granted_at: datetime


class Attempts(Protocol):
    """What permits need of their store."""

    async def lock_jobs(
        self,
        uow: Any,
        rail: str,
        ids: Sequence[UUID],
        tenants: frozenset[UUID] | None,
        nonce: HeldNonce | None = None,
    ) -> tuple[RailState, dict[UUID, LockedJob]]: ...

    async def existing_jobs(
        self, uow: Any, rail: str, ids: Sequence[UUID], tenants: frozenset[UUID] | None
    ) -> set[UUID]: ...

    async def attempts_of(self, uow: Any, fences: Mapping[UUID, int]) -> dict[UUID, Attempt]: ...

    async def given_again(self, uow: Any, ids: Sequence[UUID], request_id: UUID) -> None: ...

    async def note_unread(self, uow: Any, fences: Mapping[UUID, int]) -> None: ...

    async def unsent_jobs(self, uow: Any, ids: Sequence[UUID]) -> set[UUID]: ...

    async def write_attempts(
        self,
        uow: Any,
        permits: Mapping[UUID, tuple[PermitMode, int]],
        *,
        request_id: UUID,
        incarnation: UUID,
        service_key_id: str,
        busy: timedelta,
    ) -> None: ...


class Throttle(Protocol):
    """Whether the results stream of a rail is above its high-water."""

    def throttled(self, rail: str) -> bool: ...


class PermitPorts(Protocol):
    """What permits work with."""

    @property
    def attempts(self) -> Attempts: ...
    @property
    def vault(self) -> Vault: ...
    @property
    def throttle(self) -> Throttle: ...


async def grant_permits(
    begin: Callable[[], AbstractAsyncContextManager[Any]],
    ports: PermitPorts,
    rail: str,
    service_key_id: str,
    request: PermitRequest,
    tenants: frozenset[UUID] | None = None,
    nonce: HeldNonce | None = None,
) -> list[PermitAnswer]:
    """Answer each job of the request, in its order, in transactions of its own; all is committed when this returns.

    Jobs of another rail, or of a tenant that is not among the key's `tenants`, answer NOT_FOUND and are audited.
    Idempotent per (job, incarnation, asking): what an earlier sending was given is given again, and where that may not
    be used any longer, another in its place (ADR 19). The nonce of the request, if any, is spent with the permits.
    Raises RailUnknownError for a rail without registration, Refusal `replayed_nonce`.

    Jobs that another transaction holds are asked for again, and answer BUSY in the end. Who holds them is nearly always
    the relay, which notes that it dispatched them while the adapter, woken by those very entries, asks. Soon it has
    committed; BUSY would cost the payments the seconds until they are claimed again. Nothing is held while waiting: a
    relay in the middle of its batch may want what this request has locked.
    """
    answers: dict[UUID, PermitAnswer] = {}
    asked = list(dict.fromkeys(request.job_ids))
    for pause_s in (*_PAUSES_S, None):
        async with begin() as uow:
            found, held = await _grant(uow, ports, rail, service_key_id, request, asked, tenants, nonce)
        answers |= found
        if nonce is not None:
            nonce.is_spent, nonce = True, None
        if not held or pause_s is None:
            break
        await asyncio.sleep(pause_s)
        asked = sorted(held)
    return _each_once(request.job_ids, answers)


async def _grant(
    uow: Any,
    ports: PermitPorts,
    rail: str,
    service_key_id: str,
    request: PermitRequest,
    ids: Sequence[UUID],
    tenants: frozenset[UUID] | None,
    nonce: HeldNonce | None,
) -> tuple[dict[UUID, PermitAnswer], set[UUID]]:
    """Answer some of the request's jobs, in one transaction; return which of them another one holds, too."""
    state, locked = await ports.attempts.lock_jobs(uow, rail, ids, tenants, nonce)
    missing = [job_id for job_id in ids if job_id not in locked]
    held = await ports.attempts.existing_jobs(uow, rail, missing, tenants) if missing else set()
    gates = state.gates(throttled=ports.throttle.throttled(rail))
    if state.registration is None:
        raise RailUnknownError(rail)
    answers = _missing(rail, service_key_id, missing, held)
    repeated, late = await _repeated(uow, ports, request, locked, gates)
    grants: dict[UUID, tuple[LockedJob, Grant]] = {}
    unsent = await _unsent(uow, ports, locked)
    for job_id, item in locked.items():
        if job_id in repeated:
            continue
        if job_id in late:
            answers[job_id] = _refusal(job_id, busy_until_over(item.job, gates))
            continue
        decision = _decide(item, state.registration, gates, unsent=job_id in unsent)
        if isinstance(decision, Grant):
            grants[job_id] = (item, decision)
        else:
            answers[job_id] = _refusal(job_id, decision)
    opened = _open(ports.vault, [*(item for item, _ in grants.values()), *(i for i, _ in repeated.values())])
    for job_id in [*grants, *repeated]:
        if job_id not in opened:
            # What cannot be read cannot be sent; a dead letter keeps it in sight.
            answers[job_id] = NotFound(job_id=job_id)
    grants = {job_id: found for job_id, found in grants.items() if job_id in opened}
    for job_id, (item, grant) in grants.items():
        answers[job_id] = _granted(item, grant, _fence(item, grant), gates.timing.send_by_s, opened[job_id])
    for job_id, (item, attempt) in repeated.items():
        if job_id in opened:
            answers[job_id] = _again(item, attempt, gates, opened[job_id])
    await _write(uow, ports, grants, gates, service_key_id, request)
    return answers, held


def _each_once(asked: Sequence[UUID], answers: dict[UUID, PermitAnswer]) -> list[PermitAnswer]:
    """Return the answers in the order asked: one permit is one sending, also where a job was asked for twice."""
    given: set[UUID] = set()
    each: list[PermitAnswer] = []
    for job_id in asked:
        answer = answers[job_id]
        each.append(Wait(answer="BUSY", job_id=job_id) if job_id in given and isinstance(answer, Granted) else answer)
        given.add(job_id)
    return each


async def _unsent(uow: Any, ports: PermitPorts, locked: dict[UUID, LockedJob]) -> set[UUID]:
    """Return the payments whose every permit is proven unsent; asked only where one had a permit before."""
    again = [job_id for job_id, item in locked.items() if item.job.fence > 0 and item.job.kind.moves_money]
    return await ports.attempts.unsent_jobs(uow, again) if again else set()


def _decide(item: LockedJob, registration: RailRegistration, gates: Gates, *, unsent: bool) -> Grant | Refused:
    capabilities = registration.operations.get(OperationType(item.job.operation))
    if capabilities is None:
        return Refused(Refusal.PAUSED, after_s=ONE_PAUSED_S)  # it was withdrawn: it waits, it does not fail
    moved = item.job.provider_account != registration.provider_account
    if item.job.environment != registration.environment or (item.job.kind.moves_money and moved):
        # The adapter speaks for another account or environment now; only the one that was chosen may be used.
        return Refused(Refusal.PAUSED, after_s=ONE_PAUSED_S)
    decision = decide_permit(item.job, item.intent_state, capabilities, gates, unsent)
    if item.withdrawn and (item.job.fence == 0 or unsent) and item.job.kind.moves_money and isinstance(decision, Grant):
        # Whoever cancelled the mandate died before this debit was; the completer cancels it. Nothing was sent.
        return Refused(Refusal.CLOSED, reason="mandate_cancelled")
    return decision


def _missing(rail: str, service_key_id: str, missing: Sequence[UUID], held: set[UUID]) -> dict[UUID, PermitAnswer]:
    answers: dict[UUID, PermitAnswer] = {}
    for job_id in missing:
        if job_id in held:
            answers[job_id] = Wait(answer="BUSY", job_id=job_id)
            continue
        _log.warning("audit: key %s of rail %s asked a permit for foreign job %s", service_key_id, rail, job_id)
        answers[job_id] = NotFound(job_id=job_id)
    return answers


async def _repeated(
    uow: Any, ports: PermitPorts, request: PermitRequest, locked: dict[UUID, LockedJob], gates: Gates
) -> tuple[dict[UUID, tuple[LockedJob, Attempt]], set[UUID]]:
    """Return what an earlier sending of this asking was given and may still use, and which jobs it is late for.

    A later sending proves that no answer to an earlier one was read: what may not be used any longer was never sent.
    An earlier one that arrives behind a later proves nothing; whoever sent it has gone.
    """
    asked = Sending.of(request.request_id)
    given = {
        job_id: Sending.of(item.job.permit_request)
        for job_id, item in locked.items()
        if item.job.permit_request is not None
        and item.job.incarnation == request.incarnation
        and Sending.of(item.job.permit_request).asking == asked.asking
        and item.job.closed_at is None
        and not item.intent_state.is_terminal
    }
    late = {job_id for job_id, sending in given.items() if sending.number > asked.number}
    fences = {job_id: locked[job_id].job.fence for job_id in given if job_id not in late}
    if not fences:
        return {}, late
    attempts = await ports.attempts.attempts_of(uow, fences)
    lapsed = {job_id for job_id, attempt in attempts.items() if _left_s(attempt, gates) <= 0}
    # The very same sending twice is an adapter of a release that did not number them: it proves nothing either.
    late |= {job_id for job_id in lapsed if given[job_id] == asked}
    if unread := {job_id: fences[job_id] for job_id in lapsed - late}:
        await ports.attempts.note_unread(uow, unread)
    for job_id in unread:
        # Nobody is at work under it.
        locked[job_id].job = replace(locked[job_id].job, busy_until=None)
    again = {job_id: (locked[job_id], attempt) for job_id, attempt in attempts.items() if job_id not in lapsed}
    if again:
        await ports.attempts.given_again(uow, list(again), request.request_id)
    return again, late


def _left_s(attempt: Attempt, gates: Gates) -> float:
    """Return how much of S is left for this permit, in seconds."""
    return gates.timing.send_by_s - (gates.now - attempt.granted_at).total_seconds()


def _open(vault: Vault, items: Sequence[LockedJob]) -> dict[UUID, tuple[Payee | None, str]]:
    """Return payee and message by job id; what cannot be opened is left out. A cancel or inquiry needs none."""
    opened: dict[UUID, tuple[Payee | None, str]] = {
        item.job.id: (None, "") for item in items if item.job.kind.on_control_stream
    }
    sealed = [item for item in items if not item.job.kind.on_control_stream]
    if not sealed:
        return opened
    try:
        plain = vault.open_instructions([item.sealed for item in sealed])
    except VaultError:
        plain = _open_apart(vault, sealed)
    opened |= {item.job.id: plain[item.job.intent_id] for item in sealed if item.job.intent_id in plain}
    return opened


def _open_apart(vault: Vault, items: Sequence[LockedJob]) -> dict[UUID, tuple[Payee | None, str]]:
    plain: dict[UUID, tuple[Payee | None, str]] = {}
    for item in items:
        try:
            plain |= vault.open_instructions([item.sealed])
        except VaultError:
            _log.exception("the instruction of job %s cannot be opened", item.job.id)
    return plain


async def _write(
    uow: Any,
    ports: PermitPorts,
    grants: dict[UUID, tuple[LockedJob, Grant]],
    gates: Gates,
    service_key_id: str,
    request: PermitRequest,
) -> None:
    permits = {
        job_id: (grant.mode, _fence(item, grant))
        for job_id, (item, grant) in grants.items()
        if grant.mode is not PermitMode.READ
    }
    if not permits:
        return
    await ports.attempts.write_attempts(
        uow,
        permits,
        request_id=request.request_id,
        incarnation=request.incarnation,
        service_key_id=service_key_id,
        busy=timedelta(seconds=gates.timing.send_by_s + gates.timing.call_total_s),
    )


def _fence(item: LockedJob, grant: Grant) -> int:
    """Return the number of this permit. The job is locked: nobody writes another before it. A reading has none."""
    return 0 if grant.mode is PermitMode.READ else item.job.fence + 1


def _refusal(job_id: UUID, refused: Refused) -> PermitAnswer:
    match refused.answer:
        case Refusal.CLOSED:
            return Closed(job_id=job_id, reason=refused.reason)
        case Refusal.PAUSED:
            return Wait(answer="PAUSED", job_id=job_id, after_s=refused.after_s)
        case Refusal.THROTTLED:
            return Wait(answer="THROTTLED", job_id=job_id, after_s=refused.after_s)
        case Refusal.BUSY:
            return Wait(answer="BUSY", job_id=job_id, after_s=refused.after_s)


def _again(item: LockedJob, attempt: Attempt, gates: Gates, plain: tuple[Payee | None, str]) -> PermitAnswer:
    """Repeat a grant whose reply was lost, with what is left of its S."""
    first = attempt.fence == 1 and attempt.mode is PermitMode.SEND and item.job.ledger_epoch == gates.ledger_epoch
    left_s = min(_left_s(attempt, gates), gates.timing.send_by_s)
    return _granted(item, Grant(attempt.mode, first), attempt.fence, left_s, plain)


def _granted(item: LockedJob, grant: Grant, fence: int, send_by_s: float, plain: tuple[Payee | None, str]) -> Granted:
    """Return the grant; built without validation, since every field comes from our own tables."""
    job = item.job
    payee, message = plain
    return Granted.of_ours(
        answer="GRANTED",
        job_id=job.id,
        kind=job.kind,
        mode=grant.mode,
        fence=fence,
        first=grant.first,
        send_by_s=send_by_s,
        reference=job.reference,
        amount_minor=job.amount_minor,
        currency=job.currency,
        provider_account=item.target_account or job.provider_account,
        environment=job.environment,
        instruction=Instruction.of_ours(
            payee=payee,
            message=message,
            lookup=_binding(item.lookup),
            target_reference=item.target_reference,
            target_kind=item.target_kind,
            operation=job.operation,
            # Whole seconds: every provider can say them, and the same permit always says the same.
            expires_at=job.deadline.replace(microsecond=0) if job.kind is JobKind.COLLECT else None,
        ),
    )


def _binding(lookup: str | None) -> LookupBinding | None:
    if lookup is None:
        return None
    # The intent keeps more about its lookup than the provider is told.
    return _LookupText.model_validate_json(lookup).binding()


class _LookupText(LookupBinding):
    model_config = ConfigDict(extra="ignore")

    def binding(self) -> LookupBinding:
        return LookupBinding(lookup_id=self.lookup_id, expires_at=self.expires_at, fee_minor=self.fee_minor)
