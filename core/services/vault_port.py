"""The port to the vault: payees and messages under a key per subject, anything else under the master key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from schemas.permits import Payee


class VaultError(RuntimeError):
    """What was stored cannot be opened: its subject was erased, or it is not what was sealed under this id."""


class SubjectRacedError(RuntimeError):
    """Another transaction made a subject's key at the same time: nothing may commit, and a repeat finds that key."""


@dataclass(frozen=True, slots=True)
class Plain:
    """What one intent asks to be done, before it is sealed."""

    intent_id: UUID
    tenant_id: UUID
    subject_id: UUID
    payee: Payee
    message: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """One sealed instruction. It opens only together with the intent's id and its subject's key.

    `wrapped_key` is that key as it is stored at this moment; None where the subject was erased.
    """

    intent_id: UUID
    subject_id: UUID | None
    ciphertext: bytes | None
    wrapped_key: bytes | None = None


class Vault(Protocol):
    """Seals and opens in batches; whoever reads the rows brings their subjects' wrapped keys along."""

    def subject_id(self, tenant_id: UUID, payee: Payee) -> UUID:
        """Return the id of whoever is paid; it tells nothing about them."""
        ...

    async def seal_instructions(
        self, uow: Any, plains: Sequence[Plain], wrapped_keys: Mapping[UUID, bytes | None]
    ) -> dict[UUID, Sealed]:
        """Seal each, keyed by intent id; a subject that has no key, or was erased, gets one made.

        What was sealed under an erased key stays unreadable. Raises SubjectRacedError, at the latest with the commit.
        """
        ...

    def open_instructions(self, sealed: Sequence[Sealed]) -> dict[UUID, tuple[Payee | None, str]]:
        """Return payee and message by intent id. Raises VaultError naming the intent."""
        ...

    def seal_bytes(self, plain: bytes, *, bound_to: str) -> bytes:
        """Encrypt under the master key; `bound_to` must be given again to open it."""
        ...

    def open_bytes(self, ciphertext: bytes, *, bound_to: str) -> bytes:
        """Decrypt what seal_bytes made. Raises VaultError."""
        ...
