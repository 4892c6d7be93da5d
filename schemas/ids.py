"""Identifiers: minted ones carry time, derived ones carry their parent's time.

Every id is a UUID whose first 48 bits are milliseconds since the epoch (RFC 9562), so that ids sort by time
and the tables, partitioned by id, are partitioned by time while the primary key stays unique over them all.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from uuid import UUID, SafeUUID

_TIME_MASK = ((1 << 48) - 1) << 80
_VARIANT = 0b10 << 62
_RAND_B = (1 << 62) - 1
_DERIVED: Final = 0x8 << 76 | _VARIANT
_TAIL_BYTES = 10
_new: Final = object.__new__
_set: Final = object.__setattr__
_UNKNOWN: Final = SafeUUID.unknown


def mint_id(now_ms: int) -> UUID:
    """Return a new UUIDv7 for the moment `now_ms` (milliseconds since the epoch)."""
    return mint_ids(now_ms, 1)[0]


def mint_ids(now_ms: int, count: int) -> list[UUID]:
    """Return `count` new UUIDv7 for one moment: asking the system for chance once costs less than for each."""
    chance, time_bits = os.urandom(_TAIL_BYTES * count), (now_ms << 80) & _TIME_MASK | 0x7 << 76 | _VARIANT
    found = []
    for at in range(0, len(chance), _TAIL_BYTES):
        tail = int.from_bytes(chance[at : at + _TAIL_BYTES], "big")
        # The upper twelve bits go before the variant, 62 of the others behind it.
        found.append(_uuid(time_bits | tail >> 68 << 64 | tail & _RAND_B))
    return found


def derive_id(parent: UUID, *parts: str) -> UUID:
    """Return the UUIDv8 that belongs to (parent, parts): the same input gives the same id, always.

    The parent's time prefix is kept: a hold and its resolution rest in the partition of their intent.
    Part boundaries are part of the input: ("a", "bc") and ("ab", "c") differ.
    """
    number = parent.int
    material = number.to_bytes(16, "big") + _material(parts)
    digest = int.from_bytes(hashlib.blake2b(material, digest_size=10).digest(), "big")
    # The upper twelve bits go before the variant, 62 of the others behind it.
    return _uuid(number & _TIME_MASK | _DERIVED | digest >> 68 << 64 | digest & _RAND_B)


def _uuid(value: int) -> UUID:
    """Return what `UUID(int=value)` does, in a third of its time: a payment has a dozen ids."""
    made = _new(UUID)
    _set(made, "int", value)
    _set(made, "is_safe", _UNKNOWN)
    return made


@lru_cache(maxsize=1024)
def _material(parts: tuple[str, ...]) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part.encode() for part in parts)


def id_time_ms(identifier: UUID) -> int:
    """Return the milliseconds since the epoch that the id carries."""
    return identifier.int >> 80


def ids_of_that_time(ids: Sequence[UUID]) -> tuple[UUID, UUID]:
    """Return the least and the greatest id that the moments of `ids` can have: bounds for what is derived from them.

    Raises ValueError where `ids` is empty.
    """
    return UUID(int=min(ids).int & _TIME_MASK), UUID(int=max(ids).int | (1 << 80) - 1)
