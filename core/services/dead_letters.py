"""Dead letters: kept in PostgreSQL with what they prove, and what may be done about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from schemas.dead_letters import DeadLetter


class Redrive(StrEnum):
    """Whether a dead letter may be sent again."""

    SAFE = "SAFE"
    INQUIRE_FIRST = "INQUIRE_FIRST"
    REFUSED = "REFUSED"


class LetterState(StrEnum):
    """What became of a dead letter."""

    OPEN = "OPEN"
    REDRIVEN = "REDRIVEN"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters to list; None takes any."""

    rail: str | None = None
    error_class: str | None = None
    fingerprint: str | None = None
    state: LetterState = LetterState.OPEN


@dataclass(frozen=True, slots=True)
class LetterView:
    """One dead letter as people see it; the body stays sealed."""

    id: UUID
    stream: str
    entry_id: str
    rail: str
    job_id: UUID | None
    intent_id: UUID | None
    error_class: str
    fingerprint: str
    message: str
    deliveries: int
    fence: int
    all_negative: bool
    job_closed: bool
    intent_state: str | None
    state: str
    received_at: datetime

    @property
    def verdict(self) -> tuple[Redrive, str]:
        """What a redrive would be, and why."""
        if self.intent_state in ("SETTLED", "FAILED", "CANCELLED", "EXPIRED") or self.job_closed:
            return Redrive.REFUSED, "the intent is decided: a new linked intent is the way"
        if self.stream.endswith(":results"):
            return Redrive.SAFE, "the provider answered: only the core has to read it again"
        if self.job_id is None:
            return Redrive.REFUSED, "no job is known by this entry"
        if self.fence == 0:
            return Redrive.SAFE, "no permit was ever given: nothing was sent"
        if self.all_negative:
            return Redrive.SAFE, "every permit is proven unpaid"
        return Redrive.INQUIRE_FIRST, f"{self.fence} permits were given: it may have been sent"


class Letters(Protocol):
    """What dead letters need of their store."""

    async def keep_dead(self, uow: Any, letters: Sequence[DeadLetter]) -> None: ...

    async def list_letters(
        self, uow: Any, wanted: LetterFilter, limit: int, after: UUID | None = None
    ) -> Sequence[LetterView]: ...

    async def find_letter(self, uow: Any, letter_id: UUID) -> LetterView | None: ...


async def receive(uow: Any, store: Letters, letters: Sequence[DeadLetter]) -> None:
    """Keep dead letters once each and mark their open jobs DEAD; what was sent is inquired about at once."""
    if letters:
        await store.keep_dead(uow, letters)
