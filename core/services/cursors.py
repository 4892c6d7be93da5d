"""Cursors are opaque to clients: nobody may lean on what is inside."""

import base64
import binascii

from core.services.problems import Refusal


def encode_cursor(*parts: str) -> str:
    """Return a text that is safe in a query."""
    return base64.urlsafe_b64encode("|".join(parts).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, count: int) -> list[str]:
    """Return the `count` parts of a cursor. Raises Refusal `cursor_malformed`."""
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
    except (ValueError, binascii.Error) as error:
        raise Refusal("cursor_malformed", "use next_cursor as it was given", field="cursor") from error
    parts = text.split("|")
    if len(parts) != count:
        raise Refusal("cursor_malformed", "use next_cursor as it was given", field="cursor")
    return parts
