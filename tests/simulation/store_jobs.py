"""Jobs, permits and the outbox behind the services' own ports, in memory. Each method does what its SQL does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

import orjson

from core.domain.intents import IntentRow
from core.domain.jobs import JobRow, JobState, Waiting
from core.domain.verdicts import PAID, AttemptView
from core.services.access.keys import HeldNonce
from core.services.settling.permits import Attempt, LockedJob
from core.services.settling.rails import RailState
from core.services.vault_port import Sealed
from core.store.settling.outbox import job_body
from schemas.events import IntentState
from schemas.operations import JobKind
from schemas.permits import PermitMode
from tests.simulation.database import Transaction
from tests.simulation.store_payments import Intents, RailStore


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Where a job's entry is: its round, and the stream's epoch that it was added in."""

    rounds: int = 0
    entry_id: str | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A job on its way into a stream."""

    job_id: UUID
    round: int
    stream: str
    not_before: datetime
    body: str


@dataclass(slots=True)
class AttemptRow(AttemptView):
    """A permit with the request that asked for it."""

    request_id: UUID
    incarnation: UUID


class Jobs:
    """The jobs."""

    async def insert_jobs(self, uow: Transaction, jobs: Sequence[JobRow]) -> None:
        """Insert jobs and their outbox rows; a repeat changes nothing."""
        await uow.step()
        for job in sorted(jobs, key=lambda each: each.id):
            await uow.lock("jobs", [job.id])
            if uow.look("jobs", job.id) is not None:
                continue
            uow.put("jobs", job.id, replace(job, created_at=uow.now))
            uow.append("jobs_of", job.intent_id, job.id)
            uow.put("dispatch", job.id, Dispatch())
            row = OutboxRow(job.id, 0, job.stream, job.not_before or uow.now, job_body(job))
            uow.put("outbox", (job.id, 0), row)

    async def insert_first_jobs(self, uow: Transaction, jobs: Sequence[JobRow]) -> None:
        """Insert the first jobs of intents; nobody can have made them before."""
        if any(uow.look("jobs", job.id) is not None for job in jobs):
            raise RuntimeError("the first job of an intent was there before")
        await self.insert_jobs(uow, jobs)

    async def lock_jobs(self, uow: Transaction, ids: Sequence[UUID]) -> dict[UUID, JobRow]:
        """Lock jobs in id order, waiting for their holders."""
        await uow.step()
        wanted = [each for each in sorted(ids) if uow.look("jobs", each) is not None]
        await uow.lock("jobs", wanted)
        return {each: uow.get("jobs", each) for each in wanted}

    async def lock_jobs_and_intents(
        self, uow: Transaction, ids: Sequence[UUID], more_intents: Sequence[UUID]
    ) -> tuple[dict[UUID, JobRow], dict[UUID, IntentRow]]:
        """Lock jobs, then their intents and more."""
        jobs = await self.lock_jobs(uow, ids)
        intent_ids = sorted({*more_intents, *(job.intent_id for job in jobs.values())})
        return jobs, await Intents().load_intents(uow, intent_ids, lock=True)

    async def due_jobs(self, uow: Transaction, limit: int) -> list[JobRow]:
        """Lock and return open payments whose check or deadline is due; what another holds is left to it."""
        await uow.step()
        due = sorted((at, job_id) for job_id in uow.database.open_jobs if (at := due_at(uow.look("jobs", job_id))))
        locked: list[JobRow] = []
        for at, job_id in due:
            if at > uow.now or len(locked) == limit:
                break
            if uow.try_lock("jobs", job_id):
                locked.append(uow.get("jobs", job_id))
        return locked

    async def targets_of(self, uow: Transaction, ids: Sequence[UUID]) -> dict[UUID, UUID]:
        """Return the payment that each question is about."""
        await uow.step()
        found = {each: uow.look("jobs", each) for each in ids}
        return {each: job.target_job_id for each, job in found.items() if job is not None and job.target_job_id}

    async def close_jobs_of(self, uow: Transaction, outcomes: Sequence[tuple[UUID, str]]) -> None:
        """Close every open job of the intents and take it out of the outbox, unless a relay holds it."""
        await uow.step()
        for intent_id, outcome in outcomes:
            for job_id in sorted(uow.look("jobs_of", intent_id) or ()):
                if uow.look("jobs", job_id).closed_at is not None:
                    continue
                await uow.lock("jobs", [job_id])
                if not _close(uow, job_id, outcome):
                    continue
                for key in [(job_id, number) for number in range(uow.look("dispatch", job_id).rounds + 1)]:
                    if uow.look("outbox", key) is not None and uow.try_lock("outbox", key):
                        uow.put("outbox", key, None)

    async def close_jobs(self, uow: Transaction, outcomes: Sequence[tuple[UUID, str]]) -> None:
        """Close jobs that did their work."""
        await uow.step()
        await uow.lock("jobs", sorted(job_id for job_id, _ in outcomes))
        for job_id, outcome in outcomes:
            _close(uow, job_id, outcome)

    async def wait_jobs(self, uow: Transaction, waits: Sequence[Waiting]) -> None:
        """Hand jobs to the resolver until their next check."""
        await uow.step()
        await uow.lock("jobs", sorted(wait.job_id for wait in waits))
        for wait in waits:
            job: JobRow = uow.get("jobs", wait.job_id)
            if job.closed_at is not None:
                continue
            job.inquiries += int(wait.asked)
            job.next_check_at = uow.now + timedelta(seconds=wait.after_s)
            job.tombstoned = job.tombstoned or wait.tombstone
            if wait.why is not None:
                job.outcome, job.state = wait.why, JobState.WAITING
            uow.put("jobs", job.id, job)

    async def requeue_jobs(self, uow: Transaction, jobs: Sequence[tuple[JobRow, float]]) -> None:
        """Put open jobs into the outbox again as their next round."""
        await uow.step()
        for given, after_s in jobs:
            await uow.lock("jobs", [given.id])
            job: JobRow = uow.get("jobs", given.id)
            if job.closed_at is not None:
                continue
            job.state, job.failures, job.next_check_at = JobState.READY, job.failures + 1, None
            job.not_before = uow.now + timedelta(seconds=after_s)
            next_round(uow, job, job.not_before)

    async def reserve_voids(self, uow: Transaction, wanted: int, per_minute: int) -> tuple[int, bool]:
        """Return how many automatic voids this minute still allows, and whether this is its first refusal."""
        await uow.step()
        minute = uow.now.replace(second=0, microsecond=0)
        await uow.lock("void_minutes", [minute])
        voided, refused = uow.look("void_minutes", minute) or (0, 0)
        granted = max(0, min(wanted, per_minute - voided))
        uow.put("void_minutes", minute, (voided + granted, refused + wanted - granted))
        return granted, refused == 0 and granted < wanted


def due_at(job: JobRow) -> datetime | None:
    """Return when the resolver has to look at an open job, None for questions."""
    if job.kind.on_control_stream:
        return None
    return job.next_check_at or job.deadline


def next_round(uow: Transaction, job: JobRow, not_before: datetime) -> None:
    """Write a job of the caller's lock back with an outbox row of the next round."""
    dispatch: Dispatch = uow.look("dispatch", job.id)
    rounds = dispatch.rounds + 1
    uow.put("jobs", job.id, job)
    uow.put("dispatch", job.id, replace(dispatch, rounds=rounds))
    uow.put("outbox", (job.id, rounds), OutboxRow(job.id, rounds, job.stream, not_before, job_body(job)))


def _close(uow: Transaction, job_id: UUID, outcome: str) -> bool:
    job: JobRow = uow.get("jobs", job_id)
    if job.closed_at is not None:
        return False
    job.state, job.closed_at, job.outcome, job.next_check_at = JobState.CLOSED, uow.now, outcome, None
    uow.put("jobs", job_id, job)
    return True


@dataclass(slots=True)
class Attempts:
    """What permits need."""

    rails: RailStore = field(default_factory=RailStore)

    async def lock_jobs(
        self,
        uow: Transaction,
        rail: str,
        ids: Sequence[UUID],
        tenants: frozenset[UUID] | None = None,
        nonce: HeldNonce | None = None,
    ) -> tuple[RailState, dict[UUID, LockedJob]]:
        """Lock the rail's jobs; what another transaction holds is left out."""
        state = await self.rails.rail_state(uow, rail)
        locked = {}
        for job_id in sorted(ids):
            job: JobRow | None = uow.look("jobs", job_id)
            if (
                job is None
                or job.rail != rail
                or (tenants is not None and job.tenant_id not in tenants)
                or not uow.try_lock("jobs", job_id)
            ):
                continue
            job = uow.get("jobs", job_id)
            intent = uow.look("intents", job.intent_id)
            target: JobRow | None = uow.look("jobs", job.target_job_id) if job.target_job_id else None
            locked[job_id] = LockedJob(
                job,
                IntentState(intent.state),
                Sealed(intent.id, intent.subject_id, intent.instruction, b""),
                None if intent.lookup is None else orjson.dumps(intent.lookup).decode(),
                target.reference if target is not None else None,
                target.provider_account if target is not None else None,
            )
        return state, locked

    async def existing_jobs(
        self, uow: Transaction, rail: str, ids: Sequence[UUID], tenants: frozenset[UUID] | None = None
    ) -> set[UUID]:
        """Return which of the ids are jobs of the rail."""
        await uow.step()
        jobs = {each: uow.look("jobs", each) for each in ids}
        return {
            each
            for each, job in jobs.items()
            if job is not None and job.rail == rail and (tenants is None or job.tenant_id in tenants)
        }

    async def attempts_of(self, uow: Transaction, fences: Mapping[UUID, int]) -> dict[UUID, Attempt]:
        """Return these permits, one of each job."""
        await uow.step()
        rows: dict[UUID, AttemptRow] = {each: uow.look("attempts", (each, fence)) for each, fence in fences.items()}
        return {each: Attempt(row.fence, row.mode, row.granted_at) for each, row in rows.items()}

    async def given_again(self, uow: Transaction, ids: Sequence[UUID], request_id: UUID) -> None:
        """Note which sending the last permits of these jobs went to."""
        await uow.step()
        for job_id in ids:
            job: JobRow = uow.get("jobs", job_id)
            job.permit_request = request_id
            uow.put("jobs", job_id, job)

    async def note_unread(self, uow: Transaction, fences: Mapping[UUID, int]) -> None:
        """Note that these permits never reached who asked for them."""
        await uow.step()
        for key in fences.items():
            uow.put("attempts", key, replace(uow.get("attempts", key), negative=True))

    async def unsent_jobs(self, uow: Transaction, ids: Sequence[UUID]) -> set[UUID]:
        """Return those whose every permit to send has a definite negative, with no fact that says "paid"."""
        await uow.step()
        return {each for each in ids if not _may_be_sent(uow, uow.look("jobs", each))}

    async def write_attempts(
        self,
        uow: Transaction,
        permits: Mapping[UUID, tuple[PermitMode, int]],
        *,
        request_id: UUID,
        incarnation: UUID,
        service_key_id: str,
        busy: timedelta,
    ) -> None:
        """Raise the fences of locked jobs and write the attempts."""
        await uow.step()
        for job_id, (mode, fence) in permits.items():
            job: JobRow = uow.get("jobs", job_id)
            assert fence == job.fence + 1
            job.fence, job.permit_request, job.incarnation = fence, request_id, incarnation
            job.first_granted_at = job.first_granted_at or uow.clock
            job.busy_until = uow.clock + busy
            uow.put("jobs", job_id, job)
            row = AttemptRow(job.fence, mode, uow.clock, False, request_id, incarnation)
            uow.put("attempts", (job_id, job.fence), row)


def _may_be_sent(uow: Transaction, job: JobRow) -> bool:
    rows: list[AttemptRow] = [uow.look("attempts", (job.id, fence)) for fence in range(1, job.fence + 1)]
    facts = [fact for each in uow.look("jobs_of", job.intent_id) for fact in uow.look("facts", each) or ()]
    return any(row.mode is PermitMode.SEND and not row.negative for row in rows if row is not None) or any(
        fact.result.verdict in PAID for fact in facts
    )


async def take_due(uow: Transaction, stream: str, limit: int) -> list[OutboxRow]:
    """Lock due rows of a stream; what another relay holds is left to it."""
    await uow.step()
    due = sorted(
        (row for row in uow.rows("outbox").values() if row.stream == stream and row.not_before <= uow.now),
        key=lambda row: (row.not_before, row.job_id),
    )
    return [row for row in due if uow.try_lock("outbox", (row.job_id, row.round))][:limit]


async def mark_dispatched(uow: Transaction, rows: Sequence[OutboxRow], entry_ids: Sequence[str], epoch: int) -> None:
    """Take the rows off the outbox, queue their jobs and dispatch their intents, where they still wait for it."""
    await uow.step()
    for row, entry_id in sorted(zip(rows, entry_ids, strict=True), key=lambda each: each[0].job_id):
        uow.put("outbox", (row.job_id, row.round), None)
        await uow.lock("jobs", [row.job_id])
        job: JobRow = uow.get("jobs", row.job_id)
        if job.closed_at is not None or uow.look("dispatch", job.id).rounds != row.round:
            continue
        job.state = JobState.QUEUED if job.state is JobState.READY else job.state
        job.queued_at = uow.now
        uow.put("jobs", job.id, job)
        uow.put("dispatch", job.id, Dispatch(row.round, entry_id, epoch))
        if job.kind is JobKind.PAY:
            await uow.lock("intents", [job.intent_id])
            intent = uow.get("intents", job.intent_id)
            if intent.state == IntentState.AUTHORIZED:
                intent.state, intent.version = IntentState.DISPATCHED, intent.version + 1
                uow.put("intents", intent.id, intent)


async def requeue_lost(uow: Transaction, lost: Sequence[tuple[UUID, str]]) -> int:
    """Put queued jobs whose entry is lost back into the outbox; one that moved meanwhile is left alone."""
    await uow.step()
    put_back = 0
    for job_id, entry_id in lost:
        if not uow.try_lock("jobs", job_id):
            continue
        job: JobRow = uow.get("jobs", job_id)
        dispatch: Dispatch = uow.look("dispatch", job_id)
        if job.state is JobState.QUEUED and dispatch.entry_id == entry_id and job.closed_at is None:
            job.state, job.queued_at = JobState.READY, None
            next_round(uow, job, uow.now)
            put_back += 1
    return put_back
