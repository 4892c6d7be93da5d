"""The audit journal's chain: the hash of an entry, over its parts and the entry before it. Pure."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry as it is stored; `data` is the JSON text that was hashed."""

    tenant_id: UUID
    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    data: str
    hash: bytes


def entry_hash(before: bytes, entry: AuditEntry) -> bytes:
    """Return the hash that the entry must have after an entry with the hash `before`; empty before the first.

    The database computes the same, in fleet.audit_append.
    """
    at_us = (entry.at - _EPOCH) // timedelta(microseconds=1)
    parts = (entry.tenant_id, entry.seq, at_us, entry.actor, entry.action, entry.subject, entry.data)
    return hashlib.sha256(before + b"".join(hashlib.sha256(str(part).encode()).digest() for part in parts)).digest()
