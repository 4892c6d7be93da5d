"""What settlement and resolution keep: facts, alerts and doubted ends, and the ports to their stores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol
from uuid import UUID

from core.domain.ids import derive_id
from core.domain.jobs import JobRow
from core.domain.verdicts import AttemptView, FactKey
from core.services.settling.rails import RailState
from schemas.collections import ProviderPayment
from schemas.results import Result

END_DOUBTED: Final = "end_doubted"
"""The alert of a payment that its provider tells of as otherwise than it ended here."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact about a job; `quarantine` says why it was not applied.

    `is_new` promises that its inbox key is nowhere: its job is locked, and was seen without it since.
    """

    result: Result
    body: str
    money_hash: bytes
    tenant_id: UUID
    intent_id: UUID
    quarantine: str | None
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person must see."""

    tenant_id: UUID
    severity: Literal["ticket", "page"]
    kind: str
    intent_id: UUID
    job_id: UUID | None
    detail: str

    @property
    def id(self) -> UUID:
        """The same subject, kind and detail is one alert."""
        return derive_id(self.intent_id, "alert", self.kind, self.detail)


@dataclass(frozen=True, slots=True)
class Histories:
    """What the facts of a batch are judged by: the rail's state, each payment's permits, the facts known before."""

    state: RailState
    attempts: dict[UUID, dict[int, AttemptView]]
    known: dict[FactKey, set[bytes]]
    """The hashes of the money by inbox key."""


class Facts(Protocol):
    """The inbox, the negatives and the alerts."""

    async def attempts_of(self, uow: Any, job_ids: Sequence[UUID]) -> dict[UUID, dict[int, AttemptView]]: ...

    async def mark_negative(self, uow: Any, fences: Sequence[tuple[UUID, int]]) -> None: ...

    async def histories_of(
        self, uow: Any, rail: str, payments: Sequence[UUID], executed: Sequence[UUID]
    ) -> Histories: ...

    async def unapplied_positives(self, uow: Any, intent_ids: Sequence[UUID]) -> set[UUID]: ...

    async def insert_facts(self, uow: Any, facts: Sequence[Fact]) -> None: ...

    async def apply_fact(self, uow: Any, fact: Fact) -> None: ...

    async def raise_alerts(self, uow: Any, alerts: Sequence[Alert]) -> None: ...

    async def close_alerts(self, uow: Any, intent_ids: Sequence[UUID], kind: str, because: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Doubted:
    """A payment that ended unpaid and was told of as paid."""

    job_id: UUID
    tenant_id: UUID
    intent_id: UUID
    reference: str

    def alert(self, rail: str) -> Alert:
        """Return what a person is told at once."""
        detail = f"{rail} calls {self.reference} paid, which ended unpaid: it is asked about"
        return Alert(self.tenant_id, "ticket", END_DOUBTED, self.intent_id, self.job_id, detail)


@dataclass(frozen=True, slots=True)
class Doubt:
    """One that was told of, as it is looked at: how often it was asked about, and what the last question brought."""

    job: JobRow
    asks: int
    answer: str | None
    asked: bool
    """Whether the last question is still on its way."""
    anew: bool
    """Whether it was told of since it was asked about last."""
    came_back: bool
    """Whether it was told that it came back, and not that it was paid."""
    told_by: str
    age_s: float
    """How long ago it was told."""
    unpaid: bool
    """Whether it ended unpaid, and nothing that counts says otherwise by now."""

    def alert(self) -> Alert:
        """Return what a person is told of it."""
        job = self.job
        if not self.came_back:
            return Doubted(job.id, job.tenant_id, job.intent_id, job.reference).alert(job.rail)
        detail = f"{job.rail} says that {job.reference} came back, and its status does not show it"
        return Alert(job.tenant_id, "ticket", END_DOUBTED, job.intent_id, job.id, detail)


class NextAsk(NamedTuple):
    """What becomes of a doubt: a question, if any, and when it is looked at again; `after_s` None where it ended."""

    job_id: UUID
    question_id: UUID | None
    after_s: float | None
    answer: str | None


class DoubtedEnds(Protocol):
    """Where they are kept."""

    async def doubt(self, uow: Any, rail: str, told: Sequence[ProviderPayment]) -> list[Doubted]: ...
    async def due(self, uow: Any, limit: int) -> list[Doubt]: ...
    async def note(self, uow: Any, asks: Sequence[NextAsk]) -> None: ...
    async def withdraw(self, uow: Any, job_ids: Sequence[UUID]) -> None: ...
