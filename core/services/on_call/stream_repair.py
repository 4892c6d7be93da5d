"""What people do about streams that stand still: give back, hand over, rebuild, trim. The journal tells of each act."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from core.domain.context import Context
from core.services.access.keys import Caller
from core.services.access.people import SYSTEM_TENANT
from core.services.on_call.audit import Act, Journal, require_reason
from core.services.on_call.overview import Streams
from core.services.problems import Refusal
from core.services.settling.bus_ports import QueuedJob
from schemas.rail_desk import JobWithoutEntry, StaleEntry, StreamDifference, StreamStatusView

_T = TypeVar("_T")
STUCK_S: Final = 60.0
"""What is held untouched for longer is stuck."""
SETTLED_S: Final = 30.0
"""A job that was queued this moment may be between its stream and its outbox."""


@dataclass(frozen=True, slots=True)
class HeldEntry:
    """An entry that a consumer has and has not finished."""

    stream: str
    id: str
    consumer: str
    idle_s: float
    deliveries: int


@dataclass(frozen=True, slots=True)
class Tidied:
    """What the janitor took out of one stream."""

    stream: str
    trimmed: int
    consumers_dropped: int


@dataclass(slots=True)
class StreamDiff:
    """What one rail's streams and PostgreSQL disagree about."""

    rail: str
    queued: int = 0
    """Jobs that should have an entry."""
    entries: int = 0
    """Entries that are not done: unread or pending."""
    lost: list[QueuedJob] = field(default_factory=list)
    """Queued jobs whose entry is gone, or of a server that was wiped."""
    acked: list[QueuedJob] = field(default_factory=list)
    """Queued jobs whose entry was acknowledged; a verdict on its way explains that for a moment, and no longer."""
    stale: list[tuple[str, str, str]] = field(default_factory=list)
    """Entries (stream, id, job) of jobs that are closed, unknown or wait elsewhere."""

    def add(self, other: "StreamDiff") -> None:
        """Count another part of the rail in."""
        self.queued += other.queued
        self.entries += other.entries
        self.lost += other.lost
        self.acked += other.acked
        self.stale += other.stale


def told_of(diff: StreamDiff, requeued: int | None) -> StreamDifference:
    """Return a difference as people see it; `requeued` is None where nothing was to be changed."""
    return StreamDifference(
        rail=diff.rail,
        queued=diff.queued,
        entries=diff.entries,
        lost=_named(diff.lost),
        acked=_named(diff.acked),
        stale=tuple(StaleEntry(stream=stream, id=entry, job=job) for stream, entry, job in diff.stale),
        requeued=requeued,
    )


def _named(jobs: Sequence[QueuedJob]) -> tuple[JobWithoutEntry, ...]:
    return tuple(JobWithoutEntry(job_id=str(job.job_id), stream=job.stream, entry_id=job.entry_id) for job in jobs)


class RepairedStreams(Streams, Protocol):
    """Streams that a hand reaches. Each raises OSError where their server is away."""

    @property
    def rails(self) -> Sequence[str]: ...
    async def held(self, rail: str, consumer: str | None = None) -> list[HeldEntry]: ...
    async def release(self, rail: str, consumer: str, idle_s: float) -> int: ...
    async def claim(self, rail: str, consumer: str, to: str, idle_s: float) -> int: ...
    async def status(self) -> list[StreamStatusView]: ...
    async def compare(self, rail: str, age_s: float = SETTLED_S) -> StreamDiff: ...
    async def queue_again(self, diff: StreamDiff) -> int: ...
    async def tidy(self, rail: str) -> list[Tidied]: ...


def streams_of(streams: RepairedStreams | None, rail: str) -> RepairedStreams:
    """Return what reaches the streams of a rail. Raises Refusal `not_found`."""
    if streams is None:
        raise Refusal("not_found", "this core was given no streams")
    if rail not in streams.rails:
        raise Refusal("not_found", "the core serves no such rail")
    return streams


async def reached(answer: Awaitable[_T]) -> _T:
    """Return what streams answer. Raises Refusal `unavailable` where their server is away."""
    try:
        return await answer
    except OSError as error:
        raise Refusal("unavailable", f"{error}: try again in a moment") from error


class RepairPorts(Protocol):
    """Where acts upon streams are noted, under the worker role."""

    @property
    def unit_of_work(self) -> Any: ...
    @property
    def journal(self) -> Journal: ...


async def note(ports: RepairPorts, caller: Caller, action: str, rail: str, reason: str, **data: Any) -> None:
    """Note an act upon a rail's streams before it is done: what follows cannot be undone with a transaction.

    Raises Refusal: operation_not_permitted where the caller is not of the system's tenant, invalid_request.
    """
    if caller.tenant_id != SYSTEM_TENANT:
        raise Refusal("operation_not_permitted", "streams serve every tenant: only the system's people act upon them")
    require_reason(reason)
    actor = caller.context().actor
    async with ports.unit_of_work(Context(None, actor)) as uow:
        act = Act(SYSTEM_TENANT, actor, action, f"stream:{rail}", {"reason": reason, **data})
        await ports.journal.append(uow, [act])
