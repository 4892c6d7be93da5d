"""Jobs: one unit of work for an adapter, its states and the reference that the provider knows it by. Pure."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from schemas.operations import JobKind, OperationType
from schemas.streams import control_stream, jobs_stream

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PAIRS: Final = tuple(second + first for first in _ALPHABET for second in _ALPHABET)
_SHORTEST: Final = 16  # 16 of 36 signs are 82 bits


class JobState(StrEnum):
    """READY (outbox) -> QUEUED (stream) -> WAITING (the resolver's) -> CLOSED; DEAD is a dead letter."""

    READY = "READY"
    QUEUED = "QUEUED"
    WAITING = "WAITING"
    DEAD = "DEAD"
    CLOSED = "CLOSED"


@dataclass(slots=True)
class JobRow:
    """One row of fleet.jobs. Amounts are minor units; times are the database's."""

    id: UUID
    tenant_id: UUID
    intent_id: UUID
    kind: JobKind
    operation: OperationType
    rail: str
    provider: str
    provider_account: str
    environment: str
    reference: str
    amount_minor: int
    currency: str
    deadline: datetime
    payee_masked: str = ""
    target_job_id: UUID | None = None
    not_before: datetime | None = None
    ledger_epoch: int = 1
    traceparent: str | None = None
    state: JobState = JobState.READY
    fence: int = 0
    failures: int = 0
    inquiries: int = 0
    tombstoned: bool = False
    first_granted_at: datetime | None = None
    busy_until: datetime | None = None
    next_check_at: datetime | None = None
    closed_at: datetime | None = None
    permit_request: UUID | None = None
    incarnation: UUID | None = None
    queued_at: datetime | None = None
    outcome: str | None = None
    created_at: datetime | None = None
    """None before the database gave it a time."""

    @property
    def stream(self) -> str:
        """The stream that carries the job: inquiries and cancels have one of their own."""
        return control_stream(self.rail) if self.kind.on_control_stream else jobs_stream(self.rail)


def mint_reference(job_id: UUID, length: int) -> str:
    """Return the provider's reference of a job: `length` of A-Z and 0-9, the same for the same job, always.

    Raises ValueError below 16 signs, which would carry less than 80 bits.
    """
    if length < _SHORTEST:
        raise ValueError(f"a reference of {length} signs is too short: the least is {_SHORTEST}")
    number = int.from_bytes(hashlib.blake2b(job_id.bytes, digest_size=40, person=b"reference").digest(), "big")
    pairs = []
    for _ in range((length + 1) // 2):
        number, pair = divmod(number, len(_PAIRS))
        pairs.append(_PAIRS[pair])
    return "".join(pairs)[:length]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that the resolver looks at after `after_s`; `asked` counts an inquiry, `tombstone` marks a cancel."""

    job_id: UUID
    after_s: float
    asked: bool = False
    tombstone: bool = False
    why: str | None = None
    """What was learned last; None leaves it."""
