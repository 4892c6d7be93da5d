"""The port to the vault: payees and messages under a key per subject, anything else under the master key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from schemas.permits import Payee


class VaultError(RuntimeError):
    """What was stored cannot be opened: its subject was erased, or it is not what was sealed under this id."""


@dataclass(frozen=True, slots=True)
class Plain:
    """What one intent asks to be done, before it is sealed."""

    intent_id: UUID
    tenant_id: UUID
    payee: Payee | None
    message: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """One sealed instruction. It opens only together with the intent's id and its subject's key."""

    intent_id: UUID
    subject_id: UUID | None
    ciphertext: bytes | None


class Vault(Protocol):
    """Seals and opens in batches: one round trip for the keys, whatever the batch."""

    async def seal_instructions(self, uow: Any, plains: Sequence[Plain]) -> dict[UUID, Sealed]:
        """Seal each, keyed by intent id; makes the subjects' keys that do not exist yet."""
        ...

    async def open_instructions(self, uow: Any, sealed: Sequence[Sealed]) -> dict[UUID, tuple[Payee | None, str]]:
        """Return payee and message by intent id. Raises VaultError naming the intent."""
        ...

    def seal_bytes(self, plain: bytes, *, bound_to: str) -> bytes:
        """Encrypt under the master key; `bound_to` must be given again to open it."""
        ...

    def open_bytes(self, ciphertext: bytes, *, bound_to: str) -> bytes:
        """Decrypt what seal_bytes made. Raises VaultError."""
        ...
