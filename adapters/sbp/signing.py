"""How QP signs its callbacks: HMAC-SHA256 over a few of the body's values, joined by `|`.

Whatever else the body says is not signed: the status is read again before anything is credited. The amount is signed as
the body writes it, so its digits are kept. Source: Raiffeisen-DGTL/sbp-sdk-java, `SbpUtilTest`.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

SIGNATURE_HEADER: Final = "X-Api-Signature-SHA256"


def payment_text(body: Mapping[str, Any]) -> str:
    """Return what is signed of a payment's callback: `amount|merchant|order|status|date`. Raises KeyError."""
    names = ("amount", "sbpMerchantId", "order", "paymentStatus", "transactionDate")
    return "|".join(str(body[name]) for name in names)


def payout_text(payout: Mapping[str, Any]) -> str:
    """Return what is signed of a payout's callback: `amount|id|status|date`. Raises KeyError."""
    return "|".join(str(part) for part in (payout["amount"], payout["id"], *_status(payout)))


def sign(secret: str, text: str) -> str:
    """Return the signature in hexadecimal digits."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def is_signed(secret: str, text: str, signature: str) -> bool:
    """Whether the signature is right; compared in constant time."""
    return hmac.compare_digest(sign(secret, text).encode(), signature.encode())


def _status(payout: Mapping[str, Any]) -> tuple[str, str]:
    status = payout["status"]
    return str(status["value"]), str(status["date"])
