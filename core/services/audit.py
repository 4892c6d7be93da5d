"""The audit journal: who did what, to what, why; proven whole by its hashes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import orjson

from core.domain.audit import AuditEntry, entry_hash


@dataclass(frozen=True, slots=True)
class Act:
    """Something that somebody did, on its way into the journal."""

    tenant_id: UUID
    actor: str
    action: str
    subject: str
    data: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The data as the text that is hashed and kept."""
        return orjson.dumps(self.data, option=orjson.OPT_SORT_KEYS, default=str).decode()


@dataclass(frozen=True, slots=True)
class Head:
    """Where a tenant's chain ends."""

    tenant_id: UUID
    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries to list; None takes any. `tenant_id` None is every tenant's."""

    tenant_id: UUID | None = None
    actor: str | None = None
    action: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What a walk over the chains found."""

    tenants: int
    entries: int
    faults: Sequence[str]


class Journal(Protocol):
    """Where the journal is kept."""

    async def append(self, uow: Any, acts: Sequence[Act]) -> None: ...
    async def freeze(self, uow: Any) -> None: ...
    async def heads(self, uow: Any, tenant_id: UUID | None) -> list[Head]: ...
    async def tenants_with_entries(self, uow: Any, tenant_id: UUID | None) -> list[UUID]: ...
    async def page(
        self, uow: Any, wanted: AuditFilter, before: tuple[UUID, int] | None, limit: int
    ) -> list[AuditEntry]: ...

    def walk(self, uow: Any, tenant_id: UUID) -> AsyncIterator[AuditEntry]:
        """Read a chain from its first entry on, in flat memory."""
        ...


async def prove(uow: Any, journal: Journal, tenant_id: UUID | None, anchors: Sequence[Head] = ()) -> Proof:
    """Walk the chains of one tenant or of all; return every fault. Flat in memory, whatever the length.

    `anchors` are ends that were noted elsewhere before: an entry with that number must still have that hash.
    The transaction must be one of background work, without any statement before.
    """
    await journal.freeze(uow)
    heads = {head.tenant_id: head for head in await journal.heads(uow, tenant_id)}
    noted = {(anchor.tenant_id, anchor.seq): anchor.hash for anchor in anchors}
    faults: list[str] = []
    entries = 0
    tenants = sorted({*heads, *await journal.tenants_with_entries(uow, tenant_id)})
    for tenant in tenants:
        before, expected = b"", 1
        async for entry in journal.walk(uow, tenant):
            entries += 1
            if entry.seq != expected:
                faults.append(f"{tenant}: entries {expected} to {entry.seq - 1} are missing")
            if entry_hash(before, entry) != entry.hash:
                faults.append(f"{tenant}: entry {entry.seq} was changed, or one before it")
            if noted.pop((tenant, entry.seq), entry.hash) != entry.hash:
                faults.append(f"{tenant}: entry {entry.seq} is not the one that was noted")
            before, expected = entry.hash, entry.seq + 1
        head = heads.get(tenant)
        if head is None or (head.seq, head.hash) != (expected - 1, before):
            faults.append(f"{tenant}: the chain ends at {expected - 1}, and should at {head.seq if head else 0}")
    faults += [f"{tenant}: entry {seq}, which was noted, is not there" for tenant, seq in sorted(noted)]
    return Proof(len(tenants), entries, faults)
