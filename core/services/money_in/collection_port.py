"""What taking money in keeps, and works with: the ports, and what a batch of facts comes to."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Protocol
from uuid import UUID

from core.domain.collections import Payment, Tolerance
from core.domain.intents import IntentRow
from core.domain.jobs import JobRow
from core.domain.ledger import Transfer
from core.domain.reconciliation import Break
from core.services.payments.refunds import FeeRules
from core.services.settling.close_job import ClosePorts, Ending, ResolutionRefusedError
from core.services.settling.facts import Alert, DoubtedEnds
from schemas.collections import PaymentFate, ProviderPayment
from schemas.suspense import SuspenseState

SYSTEM_TENANT = UUID(int=0)
"""Keeps what came to a provider account of several tenants, or of none, with a reference that nobody knows."""

Reference = tuple[str, str, str]
"""Provider account, environment, reference."""
TransactionName = tuple[str, str, str, date | None]
"""Provider account, environment, the name, and the business day that it is unique in."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Which intent, and which job of it, a reference stands for."""

    intent_id: UUID
    tenant_id: UUID
    job_id: UUID


@dataclass(frozen=True, slots=True)
class NewPayment:
    """A payment to keep, with the fact that first told of it."""

    payment: Payment
    fact: ProviderPayment
    provider: str


class Collections(Protocol):
    """Where collections and payments are kept."""

    async def open(self, uow: Any, jobs: Sequence[JobRow]) -> None: ...

    async def by_reference(
        self, uow: Any, rail: str, references: Sequence[Reference]
    ) -> dict[Reference, Collection]: ...

    async def of_transactions(
        self, uow: Any, rail: str, names: Sequence[TransactionName]
    ) -> tuple[set[UUID], set[UUID]]: ...

    async def takers_of(self, uow: Any, rail: str, told: Sequence[tuple[UUID, str]]) -> set[UUID]: ...

    async def lock(self, uow: Any, rail: str, accounts: Sequence[str]) -> None: ...

    async def named(
        self, uow: Any, rail: str, names: Sequence[TransactionName]
    ) -> dict[tuple[str, TransactionName], Payment]: ...

    async def insert(self, uow: Any, rail: str, payments: Sequence[NewPayment]) -> None: ...

    async def name(self, uow: Any, rail: str, names: Mapping[tuple[str, TransactionName], Payment]) -> None: ...

    async def move(self, uow: Any, moved: Sequence[tuple[Payment, str]]) -> None: ...

    async def add_sources(self, uow: Any, told: Sequence[tuple[Payment, ProviderPayment, bool]]) -> None: ...

    async def note_event(self, uow: Any, rail: str, event_id: str, body_hash: bytes) -> bytes | None: ...

    async def tenant_of(self, uow: Any, rail: str, account: str, environment: str) -> UUID | None: ...

    async def hurry(self, uow: Any, rail: str, jobs: Sequence[UUID], references: Sequence[str]) -> None: ...

    async def show(self, uow: Any, actions: Mapping[UUID, Mapping[str, Any]]) -> None: ...

    async def consume(self, uow: Any, taken: Mapping[UUID, UUID]) -> None: ...

    async def note_returns(self, uow: Any, payments: Sequence[Payment]) -> None: ...

    async def standing_of(self, uow: Any, payments: Sequence[UUID]) -> dict[UUID, SuspenseState]: ...

    async def record_breaks(self, uow: Any, breaks: Sequence[Break]) -> None: ...
    async def end_breaks(self, uow: Any, ids: Sequence[UUID]) -> None: ...

    async def confirm(self, uow: Any, received: Mapping[UUID, int]) -> None: ...

    async def tolerances_of(self, uow: Any, tenants: Sequence[UUID]) -> dict[tuple[UUID, str, str], Tolerance]: ...

    async def notes_to_tell(self, uow: Any, limit: int) -> list[tuple[str, ProviderPayment]]: ...


class CollectionPorts(ClosePorts, Protocol):
    """What taking money in works with."""

    @property
    def collections(self) -> Collections: ...
    @property
    def doubts(self) -> DoubtedEnds: ...
    @property
    def intents(self) -> Any: ...
    @property
    def fee_rules(self) -> FeeRules: ...
    @property
    def review_within(self) -> timedelta: ...


@dataclass(slots=True)
class Taken:
    """What the caller applies in one go: the ends of intents, the transfers beside them, what was made settled."""

    fates: list[PaymentFate] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    """Why, fact by fact; empty where nothing is to be said."""
    endings: dict[UUID, Ending] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)
    made: list[IntentRow] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    tenants: set[UUID] = field(default_factory=set)
    """Whose money the facts are about, before them and after."""


def names_of(fact: ProviderPayment) -> list[TransactionName]:
    """Return every name that a fact has for its transaction, the provider's own first."""
    return [
        (fact.provider_account, fact.environment, name, fact.recycled_on)
        for name in (fact.transaction_id, *fact.also_known_as)
    ]


def reference_of(fact: ProviderPayment) -> Reference:
    """Return by what a fact finds its collection."""
    return fact.provider_account, fact.environment, fact.reference


class CollectionMovedError(ResolutionRefusedError):
    """A collection that the facts are about was committed behind our look for it: looked for again, it is locked."""


def facts_hash(facts: Sequence[ProviderPayment]) -> bytes:
    """Return what two deliveries of one callback have in common: all but where their bytes are kept."""
    text = "\n".join(fact.model_dump_json(exclude={"evidence_id"}) for fact in facts)
    return hashlib.sha256(text.encode()).digest()
