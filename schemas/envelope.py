"""The envelope of every stream entry: plain fields and one JSON body, so redis-cli can read and write it."""

from collections.abc import Mapping
from dataclasses import dataclass

ENVELOPE_VERSION = 1


class EnvelopeError(ValueError):
    """The entry is no envelope: a field is missing or is not text."""


class UnknownVersionError(EnvelopeError):
    """The entry is written in a schema version that this process does not know; a newer consumer may."""


@dataclass(frozen=True, slots=True)
class Envelope:
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


def decode_envelope(fields: Mapping[bytes, bytes]) -> Envelope:
    """The envelope in a stream entry. Raises EnvelopeError; UnknownVersionError is one of them."""
    try:
        version = int(fields[b"v"])
        if version != ENVELOPE_VERSION:
            raise UnknownVersionError(  # noqa: TRY301 - one place decides what an unreadable entry is
                f"schema version {version}, this process knows {ENVELOPE_VERSION}"
            )
        return Envelope(
            id=fields[b"id"].decode(),
            type=fields[b"type"].decode(),
            body=fields[b"body"].decode(),
            traceparent=fields.get(b"traceparent", b"").decode(),
            v=version,
        )
    except KeyError as missing:
        raise EnvelopeError(f"the entry has no field {missing}") from missing
    except UnknownVersionError:
        raise
    except ValueError as garbage:
        raise EnvelopeError(f"the entry is not readable: {type(garbage).__name__}") from garbage
