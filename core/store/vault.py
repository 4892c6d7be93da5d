"""The vault: AES-256-GCM, a key per subject wrapped under the master key. Whoever deletes the key erases the subject.

Sealed text is nonce (12 bytes) + ciphertext + tag. The additional data binds it to its place: a text moved to
another intent does not open.
"""

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.services.vault_port import Plain, Sealed, SubjectRacedError, VaultError
from core.store.unit_of_work import UnitOfWork, Write
from schemas.permits import Payee

_NONCE_BYTES: Final = 12
_KEYS_REMEMBERED: Final = 20_000
_INSERT: Final = Write(
    """
made_subjects AS (
    INSERT INTO fleet.subjects (id, tenant_id, wrapped_key)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bytea[])
    ON CONFLICT (id) DO UPDATE SET wrapped_key = excluded.wrapped_key, erased_at = NULL
        WHERE subjects.wrapped_key IS NULL
    RETURNING id
)
""",
    frozenset({"subjects"}),
    "SELECT count(*) FROM made_subjects",
)


class PostgresVault:
    """Keeps the wrapped keys of subjects in the caller's transaction; the master key never leaves this process."""

    def __init__(self, master_key: bytes) -> None:
        self._master = AESGCM(_derived(master_key, b"wrap"))
        self._subject_key = _derived(master_key, b"subject")
        self._opened = lru_cache(maxsize=_KEYS_REMEMBERED)(self._unwrap)

    def subject_id(self, tenant_id: UUID, payee: Payee) -> UUID:
        """Return the id of whoever is paid: a keyed hash, so that the id tells nothing without the master key."""
        text = b"\x00".join((tenant_id.bytes, payee.type.encode(), payee.value.encode()))
        digest = bytearray(hmac.digest(self._subject_key, text, "sha256")[:16])
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        return UUID(bytes=bytes(digest))

    async def seal_instructions(
        self, uow: UnitOfWork, plains: Sequence[Plain], wrapped_keys: Mapping[UUID, bytes | None]
    ) -> dict[UUID, Sealed]:
        """Seal each under its subject's key, made where it is new."""
        keys = await self._keys(uow, {plain.subject_id: plain.tenant_id for plain in plains}, wrapped_keys)
        sealed: dict[UUID, Sealed] = {}
        for plain in plains:
            payee = {"type": plain.payee.type, "value": plain.payee.value}
            body = orjson.dumps({"payee": payee, "message": plain.message})
            text = _seal(keys[plain.subject_id], body, plain.intent_id.bytes)
            sealed[plain.intent_id] = Sealed(plain.intent_id, plain.subject_id, text)
        return sealed

    def open_instructions(self, sealed: Sequence[Sealed]) -> dict[UUID, tuple[Payee | None, str]]:
        """Return payee and message by intent id. Raises VaultError where a subject was erased or a text is not ours."""
        opened: dict[UUID, tuple[Payee | None, str]] = {}
        for item in sealed:
            if item.subject_id is None or item.ciphertext is None:
                opened[item.intent_id] = (None, "")
                continue
            if item.wrapped_key is None:
                raise VaultError(f"the subject of intent {item.intent_id} was erased")
            key = self._opened(item.subject_id, item.wrapped_key)
            body = orjson.loads(_open(key, item.ciphertext, item.intent_id.bytes))
            # Validated before it was sealed, and proven unchanged by its tag.
            opened[item.intent_id] = (Payee.of_ours(**body["payee"]), body["message"])
        return opened

    def seal_bytes(self, plain: bytes, *, bound_to: str) -> bytes:
        """Encrypt under the master key."""
        return _seal(self._master, plain, bound_to.encode())

    def open_bytes(self, ciphertext: bytes, *, bound_to: str) -> bytes:
        """Decrypt what seal_bytes made. Raises VaultError."""
        return _open(self._master, ciphertext, bound_to.encode())

    async def _keys(
        self, uow: UnitOfWork, tenants: Mapping[UUID, UUID], wrapped_keys: Mapping[UUID, bytes | None]
    ) -> dict[UUID, AESGCM]:
        keys: dict[UUID, AESGCM] = {}
        for subject in tenants.keys() & wrapped_keys.keys():
            if (wrapped := wrapped_keys[subject]) is not None:
                keys[subject] = self._opened(subject, wrapped)
        # Who was erased and is paid again has a new key: what was sealed under the old one stays unreadable.
        # In id order, so that two batches with the same new subjects never deadlock.
        missing = sorted((subject for subject in tenants if subject not in keys), key=lambda subject: subject.int)
        if missing:
            fresh = {subject: os.urandom(32) for subject in missing}
            made = [_seal(self._master, fresh[subject], subject.bytes) for subject in missing]
            owners = [tenants[subject] for subject in missing]
            await uow.later(_INSERT, missing, owners, made, expected=len(missing), missed=SubjectRacedError)
            keys |= {subject: AESGCM(fresh[subject]) for subject in missing}
        return keys

    def _unwrap(self, subject: UUID, wrapped: bytes) -> AESGCM:
        return AESGCM(_open(self._master, wrapped, subject.bytes))


def _derived(master_key: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(key=master_key, person=purpose, digest_size=32).digest()


def _seal(cipher: AESGCM, plain: bytes, bound_to: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, bound_to)


def _open(cipher: AESGCM, sealed: bytes, bound_to: bytes) -> bytes:
    try:
        return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)
    except (InvalidTag, ValueError) as error:
        # ValueError: too short to hold a nonce.
        raise VaultError("a sealed text does not open: another master key, or it was moved") from error
