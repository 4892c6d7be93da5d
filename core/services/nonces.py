"""Nonces are claimed in micro-batches: requests that arrive while a claim is under way share the next one."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from core.services.micro_batch import MicroBatcher

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
