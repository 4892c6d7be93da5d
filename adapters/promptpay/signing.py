"""How requests to IPPS and its webhooks are signed: HMAC-SHA256 over timestamp, a dot, and the raw body."""

import hashlib
import hmac
from typing import Final

KEY_HEADER: Final = "Ipps-Key"
TIMESTAMP_HEADER: Final = "Ipps-Timestamp"
SIGNATURE_HEADER: Final = "Ipps-Signature"
TOLERANCE_S: Final = 300


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature in hexadecimal digits."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def is_signed(secret: str, timestamp: str, body: bytes, signature: str, now_s: int) -> bool:
    """Whether the signature is right and the timestamp within the tolerance; compared in constant time."""
    fresh = timestamp.isascii() and timestamp.isdigit() and abs(now_s - int(timestamp)) <= TOLERANCE_S
    return hmac.compare_digest(sign(secret, timestamp, body).encode(), signature.encode()) and fresh
