"""The audit journal: who did what, to what, why; proven whole by its hashes."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import orjson

from core.domain.audit import AuditEntry, entry_hash
from core.domain.context import Context
from core.services.problems import Refusal


def require_reason(reason: str) -> None:
    """Raise Refusal `invalid_request` unless the journal can say why something was done by hand."""
    if not 3 <= len(reason) <= 500:
        raise Refusal("invalid_request", "say why in 3 to 500 characters", field="reason")


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

    def __str__(self) -> str:
        return f"{self.tenant_id}:{self.seq}:{self.hash.hex()}"


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
    ends: Sequence[Head]


class Journal(Protocol):
    """Where the journal is kept."""

    async def append(self, uow: Any, acts: Sequence[Act]) -> None: ...
    async def freeze(self, uow: Any) -> None: ...
    async def heads(self, uow: Any, tenant_id: UUID | None) -> list[Head]: ...
    async def tenants_with_entries(self, uow: Any, tenant_id: UUID | None) -> list[UUID]: ...
    async def page(
        self, uow: Any, wanted: AuditFilter, before: tuple[UUID, int] | None, limit: int
    ) -> list[AuditEntry]: ...

    async def stretch(self, uow: Any, tenant_id: UUID, after: int, upto: int) -> list[AuditEntry]:
        """Return the next entries of a chain, oldest first, up to a thousand; none where it ends."""
        ...

    def walk(self, uow: Any, tenant_id: UUID) -> AsyncIterator[AuditEntry]:
        """Read a chain from its first entry on, in flat memory."""
        ...


class ExportPorts(Protocol):
    """What an export reads with, under the worker role."""

    @property
    def unit_of_work(self) -> Callable[[Context], AbstractAsyncContextManager[Any]]: ...
    @property
    def journal(self) -> Journal: ...


async def export(ports: ExportPorts, context: Context, tenant_id: UUID | None) -> AsyncIterator[list[AuditEntry]]:
    """Yield every entry of one tenant's chain or of all, oldest first, up to the ends that they have at the beginning.

    Flat in memory, and no transaction stays open: a chain only grows, so that its beginning is always the same.
    """
    async with ports.unit_of_work(context) as uow:
        heads = await ports.journal.heads(uow, tenant_id)
    for head in heads:
        after = 0
        while after < head.seq:
            async with ports.unit_of_work(context) as uow:
                entries = await ports.journal.stretch(uow, head.tenant_id, after, head.seq)
            if not entries:
                break
            yield entries
            after = entries[-1].seq


def entry_document(entry: AuditEntry) -> dict[str, object]:
    """Return an entry in the shape of `schemas.on_call.AuditEntryView`."""
    return {
        "tenant_id": entry.tenant_id,
        "seq": entry.seq,
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "data": orjson.loads(entry.data),
        "hash": entry.hash.hex(),
    }


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
    return Proof(len(tenants), entries, faults, [heads[tenant] for tenant in tenants if tenant in heads])
