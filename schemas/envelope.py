"""The envelope of every stream entry: plain fields and one JSON body, so redis-cli can read and write it."""

import json
from collections.abc import Mapping
from typing import NamedTuple

ENVELOPE_VERSION = 1
"""The version that this code writes, and the only one that it reads."""

_WRITTEN_VERSION = str(ENVELOPE_VERSION).encode()

VERSION_MAX = 32_767
"""No version is above this: what claims to be is garbage, and no newer consumer will ever come for it."""


class EnvelopeError(ValueError):
    """The entry is no envelope: a field is missing or is not text."""


class UnknownVersionError(EnvelopeError):
    """The entry is written in a schema version that this process does not know; a newer consumer may."""

    def __init__(self, version: int) -> None:
        super().__init__(f"schema version {version}, this process knows {ENVELOPE_VERSION}")
        self.version = version


class Envelope(NamedTuple):
    """One message. `body` is a JSON text that only its own contract model parses."""

    id: str
    type: str
    body: str
    traceparent: str = ""
    v: int = ENVELOPE_VERSION

    def to_fields(self) -> dict[str, str]:
        """The fields as XADD takes them."""
        return {
            "v": str(self.v),
            "id": self.id,
            "type": self.type,
            "body": self.body,
            "traceparent": self.traceparent,
        }


def version_of(fields: Mapping[bytes, bytes]) -> int:
    """The schema version that an entry claims, known or not. Raises EnvelopeError where it names none."""
    try:
        version = int(fields[b"v"])
    except (KeyError, ValueError):
        raise EnvelopeError("the entry names no schema version") from None
    if not 1 <= version <= VERSION_MAX:
        raise EnvelopeError("no schema version has this number")
    return version


def decode_envelope(fields: Mapping[bytes, bytes]) -> Envelope:
    """The envelope in a stream entry. Raises EnvelopeError; UnknownVersionError is one of them."""
    try:
        if fields.get(b"v") != _WRITTEN_VERSION and (version := version_of(fields)) != ENVELOPE_VERSION:
            raise UnknownVersionError(version)
        return Envelope(
            fields[b"id"].decode(),
            fields[b"type"].decode(),
            fields[b"body"].decode(),
            fields.get(b"traceparent", b"").decode(),
        )
    except KeyError as missing:
        raise EnvelopeError(f"the entry has no field {missing}") from missing
    except EnvelopeError:
        raise
    except ValueError as garbage:
        raise EnvelopeError(f"the entry is not readable: {type(garbage).__name__}") from garbage


def raw_text(fields: Mapping[bytes, bytes]) -> str:
    """The fields as one ASCII text that keeps every byte: for entries that are no envelope we can read."""
    return json.dumps({_text(name): _text(value) for name, value in fields.items()})


def raw_fields(text: str) -> dict[bytes, bytes]:
    """The fields that `raw_text` kept. Raises ValueError where the text is none of its making."""
    kept = json.loads(text)
    if not isinstance(kept, dict) or not kept or not all(isinstance(value, str) for value in kept.values()):
        raise ValueError("not the fields of an entry")
    return {_bytes(name): _bytes(value) for name, value in kept.items()}


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
