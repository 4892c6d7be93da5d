"""What makes two requests the same: the hash that an idempotency key is bound to, for good."""

import hashlib
from typing import Any, Final

from schemas.api import IntentRequest

_ALWAYS_IN: Final = frozenset(
    {
        "operation",
        "wallet_id",
        "amount_minor",
        "currency",
        "payee",
        "counterparty_wallet_id",
        "message",
        "reference",
        "auto_confirm",
        "channel",
    }
)
"""The fields that stood in the hash when it was first stored; keys never expire, so they stand in it for ever."""
_LATER: Final[tuple[tuple[str, Any], ...]] = tuple(
    (name, field.default) for name, field in IntentRequest.model_fields.items() if name not in _ALWAYS_IN
)
_EVERY_LATER: Final = {name for name, _ in _LATER}


def request_hash(request: IntentRequest) -> bytes:
    """Return the hash of what is asked. A field that came later counts only where it is set: old keys still match."""
    if _EVERY_LATER.isdisjoint(request.model_fields_set):
        left_out = _EVERY_LATER
    else:
        left_out = {name for name, default in _LATER if getattr(request, name) == default}
    return hashlib.sha256(request.model_dump_json(exclude=left_out).encode()).digest()
