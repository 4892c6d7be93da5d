"""Resolve: what is in doubt is asked about on a schedule; what is late is expired, or parked for a person."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from core.domain.collections import decide_due_collection, poll_after_s
from core.domain.ids import derive_id
from core.domain.intents import Move
from core.domain.jobs import JobRow, Waiting
from core.domain.resolution import Due, Pace, decide_due
from core.domain.verdicts import Case
from core.services.settling.close_job import ClosePorts, Ending, Jobs, end_intents, is_held, unsent_endings
from core.services.settling.facts import Alert
from core.services.settling.rails import RailState
from core.services.settling.settle import UnitOfWorkFactory
from core.telemetry.catalogue import PAYMENTS_LATE
from schemas.events import IntentState
from schemas.operations import JobKind, OperationType
from wire.failpoints import failpoint

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ResolverMemory:
    """What one resolver knows of itself: since when it has seen each operation of a rail open."""

    voids_per_minute: int
    """Automatic voids of all resolvers together."""
    open_since: dict[tuple[str, str], datetime] = field(default_factory=dict)

    def waits(self, rail: str, operation: str, state: RailState) -> bool:
        """Whether it is paused, waits, or has been open for less than I: time for adapters to catch up."""
        if state.registration is None or state.waits(operation):
            self.open_since.pop((rail, operation), None)
            return True
        since = self.open_since.setdefault((rail, operation), state.now)
        return bool((state.now - since).total_seconds() < state.registration.timing.claim_idle_s)


class ResolvedJobs(Jobs, Protocol):
    """What resolving needs of the jobs' store."""

    async def reserve_voids(self, uow: Any, wanted: int, per_minute: int) -> tuple[int, bool]: ...


class ResolvePorts(ClosePorts, Protocol):
    """What resolving works with."""

    @property
    def shared_faults(self) -> tuple[type[Exception], ...]: ...
    @property
    def jobs(self) -> ResolvedJobs: ...
    @property
    def pace(self) -> Pace: ...


async def resolve_due(ports: ResolvePorts, unit_of_work: UnitOfWorkFactory, memory: ResolverMemory, limit: int) -> int:
    """Take one batch of due jobs one step further and return how many there were. Safe with several at once.

    Where one makes the batch fail, they are taken one by one, and that one is put off with an alert. Raises the ports'
    shared faults, such as a database that is away.
    """
    taken: list[JobRow] = []
    try:
        return await _resolve(ports, unit_of_work, memory, limit, taken)
    except ports.shared_faults:
        raise
    except Exception:  # noqa: BLE001 - whatever one job raises, the others go on
        _log.exception("%d due jobs cannot be resolved together", len(taken))
    together = len(taken)
    for _ in range(together):
        taken.clear()
        try:
            await _resolve(ports, unit_of_work, memory, 1, taken)
        except ports.shared_faults:
            raise
        except Exception:
            if not taken:
                raise
            await _put_off(ports, unit_of_work, taken[0])
    return together


async def _put_off(ports: ResolvePorts, unit_of_work: UnitOfWorkFactory, job: JobRow) -> None:
    _log.exception("job %s cannot be resolved", job.id, extra={"job_id": job.id, "intent_id": job.intent_id})
    async with unit_of_work() as uow:
        await ports.jobs.wait_jobs(uow, [Waiting(job.id, ports.pace.longest_s)])
        alert = Alert(job.tenant_id, "page", "resolution_failed", job.intent_id, job.id, job.reference)
        await ports.facts.raise_alerts(uow, [alert])


async def _resolve(
    ports: ResolvePorts, unit_of_work: UnitOfWorkFactory, memory: ResolverMemory, limit: int, taken: list[JobRow]
) -> int:
    async with unit_of_work() as uow:
        jobs = await ports.jobs.due_jobs(uow, limit)
        if not jobs:
            return 0
        taken += jobs
        intents = await ports.intents.load_intents(uow, sorted({job.intent_id for job in jobs}), lock=True)
        attempts = await ports.facts.attempts_of(uow, [job.id for job in jobs])
        positives = await ports.facts.unapplied_positives(uow, list(intents))
        states = {rail: await ports.rails.rail_state(uow, rail) for rail in sorted({job.rail for job in jobs})}
        steps: dict[Due, list[Case]] = {step: [] for step in Due}
        for job in jobs:
            state = states[job.rail]
            operations = state.registration.operations if state.registration is not None else {}
            capabilities = operations.get(OperationType(job.operation))
            if capabilities is None:
                await ports.jobs.wait_jobs(uow, [Waiting(job.id, ports.pace.after_s(job.inquiries))])
                continue
            doubted = job.ledger_epoch < state.ledger_epoch
            case = Case(
                job=job,
                intent=intents[job.intent_id],
                attempts=attempts[job.id],
                capabilities=capabilities,
                now=state.now,
                epoch_doubted=doubted and not state.epoch_cleared,
                unapplied_positive=job.intent_id in positives,
                horizon_starts_at=state.epoch_raised_at if doubted else None,
            )
            decide = decide_due_collection if job.kind is JobKind.COLLECT else decide_due
            steps[decide(case, waits=memory.waits(job.rail, job.operation, state))].append(case)
        endings = await _voids(uow, ports, memory, steps)
        unconfirmed = [_unconfirmed(case) for case in steps[Due.EXPIRE_UNCONFIRMED]]
        unconfirmed += [_unpaid(case) for case in steps[Due.EXPIRE_UNPAID]]
        await _park(uow, ports, steps[Due.PARK])
        await _ask(uow, ports, [*steps[Due.INQUIRE], *steps[Due.PARK]], JobKind.INQUIRE)
        await _ask(uow, ports, steps[Due.CANCEL], JobKind.CANCEL)
        await _wait(uow, ports, steps[Due.WAIT])
        # What moves money comes last, and at once: it locks accounts that every other transaction wants.
        await end_intents(uow, ports, [*endings, *unconfirmed])
        failpoint("resolver.before_commit")
    late = [("unresolved", case.job.rail) for case in steps[Due.PARK]]
    late += [("expired", ending.intent.rail or "") for ending in endings]
    for (outcome, rail), count in Counter(late).items():
        PAYMENTS_LATE.labels(rail, outcome).inc(count)
    return len(jobs)


async def _voids(uow: Any, ports: ResolvePorts, memory: ResolverMemory, steps: dict[Due, list[Case]]) -> list[Ending]:
    """Return the ends of what is proven unsent or refused; voids of held money stop above the rate, with one alert."""
    wanted = [*steps[Due.EXPIRE_UNSENT], *steps[Due.VOID_NEGATIVE]]
    if not wanted:
        return []
    held = [case for case in wanted if is_held(case.intent)]
    room, first_refusal = len(held), False
    if held:
        room, first_refusal = await ports.jobs.reserve_voids(uow, len(held), memory.voids_per_minute)
    refused = {case.job.id for case in held[room:]}
    unsent = [case.job.id for case in steps[Due.EXPIRE_UNSENT] if case.job.id not in refused]
    endings = await unsent_endings(
        uow,
        ports,
        unsent,
        to=IntentState.EXPIRED,
        type="expired",
        failure_code="deadline_unsent",
        failure_message="the deadline passed before anything was sent",
    )
    negative = [case for case in steps[Due.VOID_NEGATIVE] if case.job.id not in refused]
    # What the door left as it is must not come back at once.
    await _wait(uow, ports, wanted)
    if first_refusal:
        detail = f"more than {memory.voids_per_minute} a minute: the rest waits"
        await ports.facts.raise_alerts(uow, [_alert(held[room], "page", "void_rate_exceeded", detail)])
    return [*endings, *(_unsent(case) for case in negative)]


async def _wait(uow: Any, ports: ResolvePorts, cases: Sequence[Case]) -> None:
    await ports.jobs.wait_jobs(uow, [Waiting(case.job.id, _after_s(case, ports.pace)) for case in cases])


def _after_s(case: Case, pace: Pace) -> float:
    return poll_after_s(case, pace) if case.job.kind is JobKind.COLLECT else pace.after_s(case.job.inquiries)


def _unconfirmed(case: Case) -> Ending:
    return _expired(case, "confirmation_expired", "the lookup was not confirmed in time; nothing was held")


def _unpaid(case: Case) -> Ending:
    words = "nobody paid in time; what is paid later rests in suspense"
    return _expired(case, "payment_not_received", words, parked=False)


def _unsent(case: Case) -> Ending:
    words = "the deadline passed and every permit is proven unsent or refused"
    decision = "VOID" if is_held(case.intent) else None
    return _expired(case, "deadline_unsent", words, parked=False, decision=decision)


def _expired(case: Case, code: str, words: str, **more: Any) -> Ending:
    move = Move(
        case.intent.id,
        IntentState.EXPIRED,
        "expired",
        data={"reason": code},
        failure_code=code,
        failure_message=words,
        **more,
    )
    return Ending.of(case.intent, move, code)


async def _park(uow: Any, ports: ResolvePorts, cases: Sequence[Case]) -> None:
    moves = [Move(case.intent.id, IntentState.UNRESOLVED, "unresolved", parked=True) for case in cases]
    await ports.intents.move_intents(uow, moves)
    await ports.facts.raise_alerts(uow, [_alert(case, "page", "unresolved", case.job.reference) for case in cases])


async def _ask(uow: Any, ports: ResolvePorts, cases: Sequence[Case], kind: JobKind) -> None:
    askable = [case for case in cases if kind is JobKind.CANCEL or case.capabilities.inquiry]
    await ports.jobs.insert_jobs(uow, [question(case.job, kind) for case in askable])
    tombstone = kind is JobKind.CANCEL
    waits = [Waiting(case.job.id, _after_s(case, ports.pace), asked=True, tombstone=tombstone) for case in cases]
    await ports.jobs.wait_jobs(uow, waits)


def question(job: JobRow, kind: JobKind) -> JobRow:
    """Return the next inquiry or cancel about a job; the same round gives the same one."""
    question_id: UUID = derive_id(job.id, kind, str(job.inquiries + 1))
    return JobRow(
        id=question_id,
        tenant_id=job.tenant_id,
        intent_id=job.intent_id,
        target_job_id=job.id,
        kind=kind,
        operation=job.operation,
        rail=job.rail,
        provider=job.provider,
        provider_account=job.provider_account,
        environment=job.environment,
        reference=job.reference,
        amount_minor=job.amount_minor,
        currency=job.currency,
        deadline=job.deadline,
        payee_masked=job.payee_masked,
        ledger_epoch=job.ledger_epoch,
        traceparent=job.traceparent,
    )


def _alert(case: Case, severity: Any, kind: str, detail: str) -> Alert:
    return Alert(case.job.tenant_id, severity, kind, case.intent.id, case.job.id, detail)
