"""The vault: AES-256-GCM, a key per subject wrapped under the master key. Whoever deletes the key erases the subject.

Sealed text is nonce (12 bytes) + ciphertext + tag. The additional data binds it to its place: a text moved to
another intent does not open.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.services.vault_port import Plain, Sealed, VaultError
from core.store.database import UnitOfWork
from schemas.permits import Payee

_NONCE_BYTES: Final = 12
_KEYS_REMEMBERED: Final = 20_000
_INSERT: Final = """
INSERT INTO fleet.subjects (id, tenant_id, wrapped_key)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bytea[]) ON CONFLICT (id) DO NOTHING RETURNING id
"""
_SELECT: Final = "SELECT id, wrapped_key FROM fleet.subjects WHERE id = ANY ($1::uuid[])"


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

    async def seal_instructions(self, uow: UnitOfWork, plains: Sequence[Plain]) -> dict[UUID, Sealed]:
        """Seal each under its subject's key, made where it is new; without a payee there is nothing to seal."""
        subjects = {
            plain.intent_id: self.subject_id(plain.tenant_id, plain.payee)
            for plain in plains
            if plain.payee is not None
        }
        if not subjects:
            return {plain.intent_id: Sealed(plain.intent_id, None, None) for plain in plains}
        tenants = {subjects[plain.intent_id]: plain.tenant_id for plain in plains if plain.intent_id in subjects}
        keys = await self._keys(uow, tenants)
        sealed: dict[UUID, Sealed] = {}
        for plain in plains:
            subject = subjects.get(plain.intent_id)
            text = None
            if subject is not None and plain.payee is not None:
                payee = {"type": plain.payee.type, "value": plain.payee.value}
                body = orjson.dumps({"payee": payee, "message": plain.message})
                text = _seal(keys[subject], body, plain.intent_id.bytes)
            sealed[plain.intent_id] = Sealed(plain.intent_id, subject, text)
        return sealed

    async def open_instructions(
        self, uow: UnitOfWork, sealed: Sequence[Sealed]
    ) -> dict[UUID, tuple[Payee | None, str]]:
        """Return payee and message by intent id. Raises VaultError where a subject was erased or a text is not ours."""
        keys = await self._load(uow, {item.subject_id for item in sealed if item.subject_id is not None})
        opened: dict[UUID, tuple[Payee | None, str]] = {}
        for item in sealed:
            if item.subject_id is None or item.ciphertext is None:
                opened[item.intent_id] = (None, "")
                continue
            key = keys.get(item.subject_id)
            if key is None:
                raise VaultError(f"the subject of intent {item.intent_id} was erased")
            body = orjson.loads(_open(key, item.ciphertext, item.intent_id.bytes))
            # Validated before it was sealed, and proven unchanged by its tag.
            opened[item.intent_id] = (Payee.model_construct(**body["payee"]), body["message"])
        return opened

    def seal_bytes(self, plain: bytes, *, bound_to: str) -> bytes:
        """Encrypt under the master key."""
        return _seal(self._master, plain, bound_to.encode())

    def open_bytes(self, ciphertext: bytes, *, bound_to: str) -> bytes:
        """Decrypt what seal_bytes made. Raises VaultError."""
        return _open(self._master, ciphertext, bound_to.encode())

    async def _keys(self, uow: UnitOfWork, tenants: dict[UUID, UUID]) -> dict[UUID, AESGCM]:
        keys = await self._load(uow, tenants)
        # In id order, so that two batches with the same new subjects never deadlock.
        missing = sorted((subject for subject in tenants if subject not in keys), key=lambda subject: subject.int)
        if not missing:
            return keys
        fresh = {subject: os.urandom(32) for subject in missing}
        wrapped = [_seal(self._master, fresh[subject], subject.bytes) for subject in missing]
        made = await uow.connection.fetch(_INSERT, missing, [tenants[subject] for subject in missing], wrapped)
        keys |= {row["id"]: AESGCM(fresh[row["id"]]) for row in made}
        if len(made) < len(missing):
            keys |= await self._load(uow, [subject for subject in missing if subject not in keys])
        if len(keys) < len(tenants):
            raise VaultError("a subject of this batch was erased: paying it again needs its key made anew")
        return keys

    async def _load(
        self, uow: UnitOfWork, subjects: "Sequence[UUID] | set[UUID] | dict[UUID, UUID]"
    ) -> dict[UUID, AESGCM]:
        # Read each time, though opened once: an erased subject has no wrapped key, whatever is remembered here.
        rows = await uow.connection.fetch(_SELECT, list(subjects)) if subjects else []
        alive = ((row["id"], row["wrapped_key"]) for row in rows)
        return {subject: self._opened(subject, wrapped) for subject, wrapped in alive if wrapped is not None}

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
