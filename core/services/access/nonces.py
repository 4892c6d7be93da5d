"""Nonces: of what changes something they are rows, claimed in micro-batches; of reads each process keeps the latest.

Requests that arrive while a claim is under way share the next one. Why reads need no row: docs/adr/0017.
"""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from core.services.payments.micro_batch import MicroBatcher

Nonce = tuple[UUID, str, str]


class NonceClaims(Protocol):
    """Claims many nonces in one round trip."""

    async def claim_nonces(self, nonces: Sequence[Nonce]) -> list[bool]: ...


class NonceGate:
    """Answers whether a nonce is new; at most two claims are under way."""

    def __init__(self, claims: NonceClaims) -> None:
        self._batcher = MicroBatcher[Nonce, bool](claims.claim_nonces, limit=500, in_flight=2)

    async def claim(self, tenant_id: UUID, key_id: str, nonce: str) -> bool:
        """Return False where the nonce was seen before with this key."""
        return await self._batcher.submit((tenant_id, key_id, nonce))


class RecentNonces:
    """Answers whether the nonce of a read is new to this process; beyond `keep` of them the oldest are forgotten."""

    def __init__(self, keep: int = 50_000) -> None:
        self._keep, self._seen = keep, dict[Nonce, None]()

    def claim(self, tenant_id: UUID, key_id: str, nonce: str) -> bool:
        """Return False where the nonce was seen before with this key. Nothing is written: it works on a full disk."""
        claimed = (tenant_id, key_id, nonce)
        if claimed in self._seen:
            return False
        self._seen[claimed] = None
        if len(self._seen) > self._keep:
            # A dict keeps the order in which it was filled.
            del self._seen[next(iter(self._seen))]
        return True
