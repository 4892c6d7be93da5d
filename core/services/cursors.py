"""Cursors are opaque to clients: nobody may lean on what is inside."""

import base64
import binascii
from typing import Final
from uuid import UUID

from core.services.problems import Refusal

INTEGER_MAX: Final = 2**31 - 1
BIGINT_MAX: Final = 2**63 - 1


def encode_cursor(*parts: str) -> str:
    """Return a text that is safe in a query."""
    return base64.urlsafe_b64encode("|".join(parts).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, count: int) -> list[str]:
    """Return the `count` parts of a cursor. Raises Refusal `cursor_malformed`."""
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
    except (ValueError, binascii.Error) as error:
        raise malformed_cursor() from error
    parts = text.split("|")
    if len(parts) != count:
        raise malformed_cursor()
    return parts


def malformed_cursor() -> Refusal:
    """Return the refusal of a cursor that we did not write."""
    return Refusal("cursor_malformed", "use next_cursor as it was given", field="cursor")


def id_of(part: str) -> UUID:
    """Return the id in a part of a cursor. Raises Refusal `cursor_malformed`."""
    try:
        return UUID(part)
    except ValueError as error:
        raise malformed_cursor() from error


def number_of(part: str, most: int = INTEGER_MAX) -> int:
    """Return the number in a part of a cursor; beyond its column's range none was ours. Raises `cursor_malformed`."""
    if not (part.isascii() and part.isdecimal() and int(part[:20]) <= most and len(part) < 20):
        raise malformed_cursor()
    return int(part)
