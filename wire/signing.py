"""How a request is signed with a service key. Pure; docs/signing.md tells it for other languages.

The canonical string is seven lines: method, path, sorted query, key id, timestamp, nonce, SHA-256 of the body.
A request that is made for a user has an eighth: whom it is made for. One whose Idempotency-Key is signed too has nine,
of which the eighth is empty where it is made for nobody: two texts of different kinds are never the same.
"""

import hashlib
import hmac
from collections.abc import Sequence

KEY_HEADER = "Fleet-Key"
TIMESTAMP_HEADER = "Fleet-Timestamp"
NONCE_HEADER = "Fleet-Nonce"
SIGNATURE_HEADER = "Fleet-Signature"
BODY_DIGEST_HEADER = "Fleet-Body-SHA256"
"""Of a body that is sent in pieces: its SHA-256, in hexadecimal, which the signature is over."""
ON_BEHALF_OF_HEADER = "Fleet-On-Behalf-Of"
"""A user, and after a space who acts for that user; left out where the key acts for itself."""

IDEMPOTENCY_HEADER = "Idempotency-Key"

TOLERANCE_S = 300
"""A timestamp may differ from the server's clock by this much, either way."""


def digest_of(body: bytes) -> str:
    """Return the hexadecimal SHA-256 of a body, as the canonical text has it."""
    return hashlib.sha256(body).hexdigest()


def canonical(
    *,
    method: str,
    path: str,
    query: str,
    body: bytes,
    key_id: str,
    timestamp: str,
    nonce: str,
    on_behalf_of: str | None = None,
    idempotency_key: str | None = None,
    digest: str | None = None,
) -> bytes:
    """Return the text that is signed. `path` and `query` are as they stand in the request line, percent-encoded.

    The query's `name=value` parts are sorted by their bytes, so that a proxy that reorders them does no harm.
    `digest` is the SHA-256 of a body whose bytes are not at hand.
    """
    sorted_query = "&".join(sorted(part for part in query.split("&") if part))
    digest = digest or digest_of(body)
    told = "" if on_behalf_of is None else f"\n{on_behalf_of}"
    if idempotency_key is not None:
        told = f"\n{on_behalf_of or ''}\n{idempotency_key}"
    return f"{method.upper()}\n{path}\n{sorted_query}\n{key_id}\n{timestamp}\n{nonce}\n{digest}{told}".encode()


def sign(secret: str, text: bytes) -> str:
    """Return the hexadecimal HMAC-SHA256 of the canonical text."""
    return hmac.digest(secret.encode(), text, "sha256").hex()


def verify(secrets: Sequence[str], text: bytes, signature: str) -> bool:
    """Whether one of the live secrets made the signature. Every secret is tried, in constant time."""
    given = signature.encode()
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(sign(secret, text).encode(), given)
    return found


def signed_headers(
    *,
    method: str,
    path: str,
    query: str = "",
    body: bytes = b"",
    key_id: str,
    secret: str,
    timestamp: int,
    nonce: str,
    on_behalf_of: str | None = None,
    idempotency_key: str | None = None,
    digest: str | None = None,
) -> dict[str, str]:
    """Return the four headers of a signed request, and those of what else is told and signed.

    That is whom it is made for, its Idempotency-Key, and its body's `digest`.

    A repeat needs a new nonce.
    """
    text = canonical(
        method=method,
        path=path,
        query=query,
        body=body,
        key_id=key_id,
        timestamp=str(timestamp),
        nonce=nonce,
        on_behalf_of=on_behalf_of,
        idempotency_key=idempotency_key,
        digest=digest,
    )
    told = {ON_BEHALF_OF_HEADER: on_behalf_of, IDEMPOTENCY_HEADER: idempotency_key, BODY_DIGEST_HEADER: digest}
    return {name: value for name, value in told.items() if value is not None} | {
        KEY_HEADER: key_id,
        TIMESTAMP_HEADER: str(timestamp),
        NONCE_HEADER: nonce,
        SIGNATURE_HEADER: sign(secret, text),
    }
