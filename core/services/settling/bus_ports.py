"""What the bus needs from PostgreSQL: small ports that the store implements and bootstrap wires."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from schemas.streams import WHOLE, Part
from wire.consumer import Delivery

Receive = Callable[[str, Sequence[Delivery]], Awaitable[Sequence[str]]]
"""Takes a rail and deliveries; returns, after its commit, the entry ids that may be acked."""


EVERY_STREAM: Final = ""
"""The name under which a wake-up is for every stream: one may have been missed."""


@dataclass(frozen=True, slots=True)
class Due:
    """One outbox row on its way into a stream."""

    job_id: UUID
    round: int
    body: str
    traceparent: str


class DueBatch(Protocol):
    """Rows that this relay alone holds until the surrounding transaction ends."""

    @property
    def rows(self) -> Sequence[Due]:
        """The rows, oldest first."""

    async def mark(self, entry_ids: Sequence[str]) -> None:
        """Take the rows off the outbox and record the entry of each."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job that should have an entry in its stream."""

    job_id: UUID
    rail: str
    stream: str
    entry_id: str
    of_older_epoch: bool


class DispatchStore(Protocol):
    """The outbox and the queued jobs."""

    def take_due(self, rail: str, stream: str, limit: int, part: Part = WHOLE) -> AbstractAsyncContextManager[DueBatch]:
        """Lock up to `limit` due rows of this part; commits when the block ends, gives back when it raises."""

    async def queued_jobs(
        self, rail: str, older_than_s: float, after: UUID | None, limit: int, part: Part = WHOLE
    ) -> list[QueuedJob]:
        """Return jobs that were queued that long ago or in an older stream epoch, in id order after `after`."""

    async def requeue(self, jobs: Sequence[QueuedJob]) -> int:
        """Put jobs whose entry is lost back into the outbox under the same id; return how many."""

    async def states_of(self, job_ids: Sequence[UUID]) -> dict[UUID, str]:
        """Return the state of each job that exists."""

    async def stream_token(self, rail: str) -> str | None:
        """Return the token of the shard's stream epoch, None before the first."""

    async def note_stall(self, rail: str, holds_s: float) -> None:
        """Keep that nothing of the rail can be dispatched for so long, unless said again: nothing expires over it."""

    async def raise_stream_epoch(self, rail: str, expected: str | None, token: str) -> str:
        """Raise the epoch to a new token unless another healer did; return the token that counts now."""


@dataclass(frozen=True, slots=True)
class Parked:
    """An entry that nobody could read yet; `fields` is `schemas.envelope.raw_text`."""

    rail: str
    stream: str
    entry_id: str
    job_id: UUID | None
    version: int
    fields: str


class ParkedBatch(Protocol):
    """Parked entries that this process alone holds until the surrounding transaction ends."""

    @property
    def entries(self) -> Sequence[Parked]:
        """The entries, the longest parked first."""

    async def mark(self, entry_ids: Sequence[str]) -> None:
        """Record under which ids they were added again; their queued jobs follow."""


class ParkingStore(Protocol):
    """Where entries wait for a reader of their schema version."""

    async def keep_parked(self, uow: Any, entries: Sequence[Parked]) -> None:
        """Keep each entry once, in the caller's transaction."""

    def take_readable(self, rail: str, stream: str, group: str, limit: int) -> AbstractAsyncContextManager[ParkedBatch]:
        """Lock up to `limit` entries that the newest registration, or this core, reads."""


class Upkeep(Protocol):
    """Chores of the database."""

    async def sign_permits(self, silent_s: float) -> None:
        """Say that adapters are given permits, and where nobody said so for that long, that every rail waited."""

    async def end_waits(self, silent_s: float) -> int:
        """End what nobody says any more that it makes a rail wait, and give the time back; return how many ended.

        Where nobody said for `silent_s` that adapters are given permits, every rail waits from then on.
        """

    async def expire_holds(self, limit: int) -> int:
        """Release holds whose time-out has passed."""

    async def purge_nonces(self, older_than_s: float) -> int:
        """Forget nonces that no accepted timestamp can repeat."""

    async def ensure_partitions(self) -> int:
        """Create the partitions of the months ahead."""
